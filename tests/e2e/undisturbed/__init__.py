"""Tests with one bank that none of them disturbs: what its components report, and load."""
