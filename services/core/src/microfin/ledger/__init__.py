"""The ledger's rules, pure: amounts, numbers, routing, records, decisions. No I/O."""
