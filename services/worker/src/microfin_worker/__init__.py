"""microfin's worker: one for each partition."""
