"""Compares ledgers with an HTTP API: the same transfers, on as many connections."""
