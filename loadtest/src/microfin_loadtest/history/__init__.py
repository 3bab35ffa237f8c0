"""A ledger's past, made up: millions of explained operations, to measure how costs grow with it."""
