"""What microfin's API, worker and command line share: the ledger's words, rules and edges."""
