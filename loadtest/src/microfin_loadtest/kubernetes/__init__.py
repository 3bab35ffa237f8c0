"""Load on a bank in a Kubernetes cluster, by k6 operator jobs inside it."""
