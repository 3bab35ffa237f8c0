"""Writes docs/reference/microfincluster.md from the CustomResourceDefinition.

    python charts/custom_resource_reference.py          # write it
    python charts/custom_resource_reference.py --check  # exit 1 where it is stale

Fields come with type, default and description, and every rule with the message of its refusal, so
that the page says what `kubectl explain` and the API server say.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
DEFINITION = REPOSITORY / "charts/microfin-operator/files/microfinclusters.yaml"
PAGE = REPOSITORY / "docs/reference/microfincluster.md"

_START = """\
# MicrofinCluster

<!-- Made from charts/microfin-operator/files/microfinclusters.yaml (`python
charts/custom_resource_reference.py`); a test fails where it is stale. -->

"""

_EXAMPLE = """\
```yaml
apiVersion: microfin.io/v1alpha1
kind: MicrofinCluster
metadata:
  name: microfin
spec:
  topic:
    strimzi: {cluster: microfin, namespace: microfin}
  worker:
    image: ghcr.io/microfin/worker:1.0.0
    envFrom:
      - secretRef: {name: microfin-worker-settings}
```

The chart microfin makes one, and leaves `partitions` out
([ADR 20](../adr/0020-partitions-left-out.md)). What its conditions and Events mean, and what to do,
is in [Troubleshooting](../guide/troubleshooting.md).
"""


class Field(NamedTuple):
    """One field of the schema, by its path from the root."""

    path: str
    schema: dict[str, Any]
    required: bool


def fields_of(schema: dict[str, Any], path: str) -> Iterator[Field]:
    """Yield the fields below a schema, in its order; those of a list's items as `path[].name`."""
    inner = schema.get("items", schema)
    place = f"{path}[]" if "items" in schema else path
    for name, field in inner.get("properties", {}).items():
        below = f"{place}.{name}"
        yield Field(below, field, name in inner.get("required", ()))
        yield from fields_of(field, below)


def rules_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yield where each validation rule looks, and what its refusal says."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"{path}{rule.get('fieldPath', '')}", rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from rules_of(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from rules_of(schema["items"], f"{path}[]")


def page_of(definition: dict[str, Any]) -> str:
    """Return the page."""
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [_START, _names(definition), schema["description"], "\n\n", _EXAMPLE]
    for name in ("spec", "status"):
        parts += [f"\n## {name}\n\n", _table(fields_of(schema["properties"][name], name))]
    parts += ["\n## Scaling\n\n", _scaling(version["subresources"]["scale"])]
    parts += ["\n## What kubectl shows\n\n", _columns(version["additionalPrinterColumns"])]
    parts += ["\n## What is refused\n\n", _refusals(rules_of(schema, ""))]
    return "".join(parts)


def _names(definition: dict[str, Any]) -> str:
    spec = definition["spec"]
    names = spec["names"]
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    return (
        f"`{spec['group']}/{spec['versions'][0]['name']}`, kind `{names['kind']}`, short name "
        f"{short}, in a namespace.\n\n"
    )


def _table(fields: Iterator[Field]) -> str:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        default = f"`{json.dumps(field.schema['default'])}`" if "default" in field.schema else ""
        description = _one_line(field.schema.get("description", ""))
        needed = "**Required.** " if field.required and field.path.startswith("spec") else ""
        kind = _kind(field.schema)
        rows.append(f"| `{field.path}` | {kind} | {default} | {(needed + description).strip()} |")
    return "\n".join(rows) + "\n"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "items" in schema:
        return f"list of {schema['items']['type']}s"
    if "additionalProperties" in schema:
        return f"{schema['additionalProperties']['type']}s by name"
    return str(schema["type"])


def _scaling(scale: dict[str, str]) -> str:
    return (
        f"`kubectl scale mfc/NAME --replicas=N` sets `{scale['specReplicasPath'].lstrip('.')}`; "
        f"`{scale['statusReplicasPath'].lstrip('.')}` and "
        f"`{scale['labelSelectorPath'].lstrip('.')}` answer it. It only grows.\n"
    )


def _columns(columns: list[dict[str, Any]]) -> str:
    rows = ["| column | from | with `-o wide` only | meaning |", "|---|---|---|---|"]
    for it in columns:
        wide = "yes" if it.get("priority") else ""
        path, description = it["jsonPath"].lstrip("."), _one_line(it.get("description", ""))
        rows.append(f"| {it['name']} | `{path}` | {wide} | {description} |")
    return "\n".join(rows) + "\n"


def _refusals(rules: Iterator[tuple[str, str]]) -> str:
    rows = ["| where | what the API server says |", "|---|---|"]
    rows += [f"| `{path.lstrip('.')}` | {_one_line(message)} |" for path, message in rules]
    return "\n".join(rows) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page, or report that it is stale."""
    wanted = page_of(yaml.safe_load(DEFINITION.read_text(encoding="utf-8")))
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in arguments:
        print(f"{PAGE.name} is stale: run python charts/custom_resource_reference.py")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
