"""The whole microfin platform on one machine: real parts, no containers."""
