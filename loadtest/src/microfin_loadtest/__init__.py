"""Loads a running platform with k6, waits until it is at rest, audits it, and reports."""
