"""microfin's HTTP API: people sign in, open accounts and move money; it decides nothing itself."""
