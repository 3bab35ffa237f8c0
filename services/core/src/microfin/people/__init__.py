"""People who sign in: how they are named, and what they may do."""
