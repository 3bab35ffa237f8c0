"""People who sign in: their names and passwords, and ending their sessions."""
