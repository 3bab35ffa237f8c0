"""microfin's Kubernetes operator: runs one worker for each partition of a MicrofinCluster.

It is level-based: `reconcile` reads the cluster's current state (`observe`), decides without I/O
what to do (`decide`), and does it. It may be killed between any two steps; the next pass continues
from the state that it finds.
"""
