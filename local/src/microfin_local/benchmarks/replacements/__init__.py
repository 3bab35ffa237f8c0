"""Benchmarks of what we made by hand in place of a library's own way: both, side by side."""
