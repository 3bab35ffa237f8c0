"""Enforces the NetworkPolicies of a cluster of one node, whose own network does not (ADR 0036)."""
