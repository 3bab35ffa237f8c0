"""The summary at the end: which components are real, which are substitutes, and what to do next."""

from microfin_deploy.platform import Platform
from microfin_deploy.releases import Wanted


def components(wanted: Wanted, platform: Platform) -> list[tuple[str, str]]:
    """Return each component, and whether it is the real one."""
    kafka = (
        "real: Strimzi's, mutual TLS"
        if platform.kafka is None
        else f"existing: {platform.kafka.namespace}/{platform.kafka.name}, mutual TLS"
    )
    ingress = (
        f"real: class {platform.ingress_class}, host {wanted.host}"
        if platform.ingress_class
        else "missing: no controller in this cluster; use the Service"
    )
    return [
        ("API, workers, operator", f"real: images {wanted.tag}"),
        ("PostgreSQL", f"real: CloudNativePG, {wanted.shards} shards, each with its pooler"),
        ("Redis", "real: Redis Cluster of the chart microfin-data"),
        ("Kafka", kafka),
        ("Ingress", ingress),
        ("NetworkPolicies", "enforced if your network can"),
        ("Monitors and alerts", _monitoring(wanted, platform)),
    ]


def _monitoring(wanted: Wanted, platform: Platform) -> str:
    if not platform.prometheus_operator:
        return "missing: no Prometheus operator in this cluster"
    return "real: those of the charts" if wanted.size == "production" else "none in this size"


def summary(wanted: Wanted, platform: Platform) -> str:
    """Return the list of components, and commands to try next."""
    listed = components(wanted, platform)
    width = max(len(name) for name, _ in listed)
    lines = [f"  {name:{width}}  {state}" for name, state in listed]
    space = wanted.namespace
    return "\n".join(
        (
            "",
            "Components",
            *lines,
            "",
            "Next",
            f"  helm test microfin -n {space} --logs",
            f"  kubectl -n {space} get mfc",
            f"  kubectl -n {space} scale mfc/microfin --replicas={6 * wanted.shards}",
            f"  kubectl -n {space} port-forward svc/microfin-api 8090:80   # http://127.0.0.1:8090/docs",
            "  make undeploy",
        )
    )
