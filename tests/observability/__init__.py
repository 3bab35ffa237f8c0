"""Checks of the rules and dashboards that the charts bring, and of the metrics that they name."""
