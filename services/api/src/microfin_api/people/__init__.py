"""People: signing up and in, sessions, passwords, and the limits on attempts."""
