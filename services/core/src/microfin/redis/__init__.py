"""Redis Cluster: calls that never wait long, and what is kept there."""
