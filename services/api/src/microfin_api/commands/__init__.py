"""Commands to the ledger: sending them, and waiting for their outcomes."""
