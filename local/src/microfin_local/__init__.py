"""The whole microfin platform on one machine: real components, no containers."""
