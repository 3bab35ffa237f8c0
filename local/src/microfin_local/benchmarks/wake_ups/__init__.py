"""Which processes an operation wakes, in which order, and where its time goes."""
