"""Measures the project's figures for this commit and for one before it, in turn, as ratios."""
