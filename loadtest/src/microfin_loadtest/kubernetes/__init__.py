"""Load on a bank in a Kubernetes cluster, by k6 in the cluster: a TestRun or a Job."""
