"""Benchmarks: commands that measure on this machine and print one JSON object."""
