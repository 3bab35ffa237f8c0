"""Redis Cluster: calls that never wait long, and the data that processes share there."""
