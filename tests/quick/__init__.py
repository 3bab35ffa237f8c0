"""The quick tier of the tests: what it selects, and what it refuses."""
