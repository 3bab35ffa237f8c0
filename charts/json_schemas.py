"""Makes JSON schemas for kubeconform from what vendors publish; `charts/kubeconform.sh` calls it.

    python charts/json_schemas.py FOLDER FILE...

A FILE is an OpenAPI v3 document of Kubernetes (.json) or holds CustomResourceDefinitions (.yaml).
Every kind in it becomes FOLDER/GROUP/KIND_VERSION.json; the core group is called v1. The schemas
refuse unknown fields, as `kubectl apply --validate=strict` does. CEL rules are not in them: those
are for an API server to judge.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Schema = dict[str, Any]
_REFERENCE = "#/components/schemas/"


class Kind(NamedTuple):
    """A kind of objects, and what they must look like."""

    group: str
    version: str
    name: str
    schema: Schema


def closed(schema: Schema) -> Schema:
    """Return a schema that refuses fields it does not know, except where any are welcome.

    What stands in allOf, anyOf and oneOf is left alone: it restricts fields that are known.
    """
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: closed(it) for name, it in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = closed(schema[key])
    return made


def from_openapi(document: Schema) -> Iterator[Kind]:
    """Yield the kinds of an OpenAPI document, each with the definitions that it refers to."""
    definitions = {name: closed(it) for name, it in document["components"]["schemas"].items()}
    for name, definition in definitions.items():
        needed = _reachable(name, definitions)
        schema = {"$ref": _REFERENCE + name, "components": {"schemas": needed}}
        for it in definition.get("x-kubernetes-group-version-kind", ()):
            yield Kind(it["group"], it["version"], it["kind"], schema)


def _reachable(name: str, definitions: dict[str, Schema]) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting.extend(_references(definitions[name]))
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for it in node:
            yield from _references(it)
    elif isinstance(node, dict):
        for key, it in node.items():
            if key == "$ref" and isinstance(it, str):
                yield it.removeprefix(_REFERENCE)
            yield from _references(it)


def from_definitions(documents: Iterator[Any]) -> Iterator[Kind]:
    """Yield the kinds of CustomResourceDefinitions, a kind for each version."""
    for document in documents:
        if not document or document["kind"] != "CustomResourceDefinition":
            continue
        spec = document["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {}}
            schema["properties"] = {**own, **schema["properties"]}
            yield Kind(spec["group"], version["name"], spec["names"]["kind"], schema)


def kinds(path: Path) -> Iterator[Kind]:
    """Yield the kinds that a file describes."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return from_openapi(json.loads(text))
    return from_definitions(yaml.load_all(text, Loader=yaml.CSafeLoader))


def main(arguments: list[str]) -> int:
    """Write the schemas."""
    folder = Path(arguments[0])
    for path in arguments[1:]:
        for kind in kinds(Path(path)):
            place = folder / (kind.group or "v1") / f"{kind.name.lower()}_{kind.version}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(kind.schema), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
