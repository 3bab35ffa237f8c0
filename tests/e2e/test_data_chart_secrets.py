"""secrets.yaml of the chart microfin-data. That passwords are kept is tested on a cluster."""

import base64

from e2e.data_chart import named, names, render
from e2e.rendered_chart import of_kind

ALL = [
    "microfin-postgres-api",
    "microfin-postgres-auditor",
    "microfin-postgres-worker",
    "microfin-redis",
]


def test_the_passwords_that_no_operator_makes() -> None:
    items = render()
    assert names(items, "Secret") == ALL
    for item in of_kind(items, "Secret"):
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        for key, value in item["data"].items():
            if key.endswith("password"):
                assert len(base64.b64decode(value)) == 40
    passwords = [
        value
        for item in of_kind(items, "Secret")
        for key, value in item["data"].items()
        if key.endswith("password")
    ]
    assert len(passwords) == len(set(passwords)) == 6


def test_a_database_roles_secret_is_what_cloudnativepg_reads() -> None:
    for role in ("worker", "api", "auditor"):
        item = named(render(), "Secret", f"microfin-postgres-{role}")
        assert item["type"] == "kubernetes.io/basic-auth"
        assert base64.b64decode(item["data"]["username"]).decode() == f"microfin_{role}"
        assert item["metadata"]["labels"]["cnpg.io/reload"] == "true"


def test_redis_users() -> None:
    item = named(render(), "Secret", "microfin-redis")
    assert sorted(item["data"]) == ["admin-password", "api-password", "worker-password"]


def test_an_exporter_has_a_password_of_its_own() -> None:
    item = named(render("redis.exporter.enabled=true"), "Secret", "microfin-redis")
    assert "metrics-password" in item["data"]


def test_one_may_bring_ones_own() -> None:
    assert names(render("secrets.create=false"), "Secret") == []


def test_only_for_the_components_that_are_there() -> None:
    assert names(render("postgres.enabled=false"), "Secret") == ["microfin-redis"]
    assert names(render("redis.enabled=false"), "Secret") == ALL[:3]


def test_one_name_for_all() -> None:
    items = render("name=ledger", "postgres.shards=2")
    named_after = {item["metadata"]["name"] for item in items} - {"broker", "controller"}
    assert all(name.startswith("ledger") for name in named_after)
    assert "microfin-" not in str([item["spec"] for item in items if "spec" in item]).replace(
        "microfin-workers", ""
    ).replace("'app.kubernetes.io/name': 'microfin-redis'", "")
