"""The schemas by which charts/kubeconform.sh judges manifests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def made_of(name: str, text: str, folder: Path) -> dict[str, Any]:
    """Return the schemas that are made of a file, by their places."""
    (folder / name).write_text(text, encoding="utf-8")
    schemas = folder / "schemas"
    program = str(ROOT / "charts/json_schemas.py")
    subprocess.run([sys.executable, program, str(schemas), str(folder / name)], check=True)
    found = schemas.rglob("*.json")
    return {it.relative_to(schemas).as_posix(): json.loads(it.read_bytes()) for it in found}


def test_a_definition_refuses_unknown_fields_except_where_any_are_welcome(tmp_path: Path) -> None:
    welcome = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {}}
    pairs = {"type": "object", "additionalProperties": {"type": "object", "properties": {}}}
    one_of = [{"properties": {"any": {}}}]
    spec = {"properties": {"any": welcome, "properties": pairs}, "oneOf": one_of}
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    definition = {
        "kind": "CustomResourceDefinition",
        "spec": {
            "group": "tests.io",
            "names": {"kind": "Thing"},
            "versions": [{"name": "v1", "schema": schema}],
        },
    }
    made = made_of("things.yaml", yaml.safe_dump_all([None, definition]), tmp_path)
    assert list(made) == ["tests.io/thing_v1.json"]
    root = made["tests.io/thing_v1.json"]
    assert root["additionalProperties"] is False
    assert root["properties"].keys() == {"apiVersion", "kind", "metadata", "spec"}
    closed = root["properties"]["spec"]
    assert closed["additionalProperties"] is False
    assert closed["oneOf"] == one_of
    assert "additionalProperties" not in closed["properties"]["any"]
    values = closed["properties"]["properties"]["additionalProperties"]
    assert values["additionalProperties"] is False


def test_a_kind_of_kubernetes_brings_what_it_refers_to_and_no_more(tmp_path: Path) -> None:
    at = "#/components/schemas/"
    definitions = {
        "Pod": {
            "properties": {
                "spec": {"allOf": [{"$ref": f"{at}PodSpec"}]},
                "$ref": {"type": "string"},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
        },
        "PodSpec": {"properties": {"next": {"items": {"$ref": f"{at}PodSpec"}}}},
        "Node": {"properties": {}},
    }
    made = made_of("v1.json", json.dumps({"components": {"schemas": definitions}}), tmp_path)
    assert list(made) == ["v1/pod_v1.json"]
    pod = made["v1/pod_v1.json"]
    assert pod["$ref"] == f"{at}Pod"
    needed = pod["components"]["schemas"]
    assert needed.keys() == {"Pod", "PodSpec"}
    assert all(it["additionalProperties"] is False for it in needed.values())
