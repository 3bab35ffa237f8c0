"""A stand-in for Strimzi beside a broker that has no operator, such as the lab's.

It has two parts of Strimzi's: of the Cluster Operator the two authorities and the broker's
certificate, and the User Operator. Names, labels and keys of Secrets are Strimzi's.
"""

from typing import Final

NAMESPACE: Final = "kafka"
CLUSTER: Final = "lab"

LABELS: Final = {
    "app.kubernetes.io/instance": CLUSTER,
    "app.kubernetes.io/managed-by": "strimzi-cluster-operator",
    "app.kubernetes.io/name": "strimzi",
    "app.kubernetes.io/part-of": f"strimzi-{CLUSTER}",
    "strimzi.io/cluster": CLUSTER,
    "strimzi.io/kind": "Kafka",
    "strimzi.io/name": "strimzi",
}
