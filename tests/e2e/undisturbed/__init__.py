"""Tests with one bank that none of them disturbs: what its parts tell, and load."""
