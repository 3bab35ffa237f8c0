"""Installs microfin into the Kubernetes cluster of KUBECONFIG (`make deploy`)."""
