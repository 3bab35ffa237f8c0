"""HTTP: reading requests, writing answers and problems. It knows nothing of money."""
