"""What microfin's API, worker and command line share: the ledger's rules and its edges."""
