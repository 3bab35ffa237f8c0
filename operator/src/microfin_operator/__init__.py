"""microfin's Kubernetes operator: keeps a MicrofinCluster's workers equal to its partitions.

Level-based: `reconcile` looks at what is (`observe`), decides without I/O what to do (`decide`),
and does it. It may be killed between any two steps; the next pass goes on from what it finds.
"""
