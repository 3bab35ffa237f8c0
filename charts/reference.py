"""Writes each chart's values.schema.json and README.md from its values.yaml.

    python charts/reference.py          # write them
    python charts/reference.py --check  # exit 1 and say which are stale

The comment right above a value describes it and begins with `# -- `. A line `# @schema` with a JSON
object adds to the schema of this value. Without a description it adds to the schema of the values
below this one, where one of them depends on another.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHARTS = Path(__file__).resolve().parent
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")
_COMMENT = re.compile(r"^ *# ?(.*)$")
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


class Value(NamedTuple):
    """One value that a user may set."""

    path: tuple[str, ...]
    description: str
    schema: dict[str, Any]
    default: Any

    @property
    def is_group(self) -> bool:
        """Whether this only adds to the schema of the values below it."""
        return not self.description


def read_values(text: str) -> list[Value]:
    """Return the described values of a values.yaml, in its order."""
    defaults = yaml.safe_load(text)
    found: list[Value] = []
    parents: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        key, remark = _KEY.match(line), _COMMENT.match(line)
        if remark is not None:
            comment.append(remark[1])
            continue
        if key is not None:
            depth = len(key[1])
            parents = [it for it in parents if it[0] < depth] + [(depth, key[2])]
            path = tuple(name for _, name in parents)
            if any(it.startswith(("-- ", "@schema ")) for it in comment):
                found.append(_value(path, comment, defaults))
        comment = []
    return found


def _value(path: tuple[str, ...], comment: list[str], defaults: Any) -> Value:
    described = (index for index, it in enumerate(comment) if it.startswith("-- "))
    begin = next(described, len(comment))
    words = [it.removeprefix("-- ") for it in comment[begin:] if not it.startswith("@schema")]
    extra = [it.removeprefix("@schema ") for it in comment if it.startswith("@schema ")]
    schema = json.loads(extra[0]) if extra else {}
    for name in path:
        defaults = defaults[name]
    return Value(path, " ".join(words), schema, defaults)


def schema_of(chart: str, values: list[Value]) -> dict[str, Any]:
    """Return the JSON schema of a chart's values. Unknown values are refused."""
    root = _object(f"Values of the chart {chart}.")
    root = {"$schema": "http://json-schema.org/draft-07/schema#", **root}
    for value in values:
        place = root
        for name in value.path[:-1]:
            place = place["properties"].setdefault(name, _object(""))
        if value.is_group:
            place["properties"].setdefault(value.path[-1], _object("")).update(value.schema)
        else:
            place["properties"][value.path[-1]] = _leaf(value)
    # A chart that has this one as a part also passes its own global values on.
    root["properties"].setdefault("global", _object(""))["additionalProperties"] = True
    return root


def _object(description: str) -> dict[str, Any]:
    about = {"description": description} if description else {}
    return {"type": "object", **about, "additionalProperties": False, "properties": {}}


def _leaf(value: Value) -> dict[str, Any]:
    kind = _TYPES.get(type(value.default), "object")
    return {
        "type": kind,
        "description": value.description,
        "default": value.default,
        **value.schema,
    }


def readme_of(chart: dict[str, Any], introduction: str, values: list[Value]) -> str:
    """Return a chart's README: its introduction and a table of its values."""
    rows = [
        f"| `{'.'.join(it.path)}` | `{json.dumps(it.default)}` | {it.description} |"
        for it in values
        if not it.is_group
    ]
    return "\n".join(
        (
            f"# {chart['name']}",
            "",
            introduction.strip(),
            "",
            "## Values",
            "",
            "`python charts/reference.py` makes this table from [values.yaml](values.yaml).",
            "",
            "| value | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


def documents(folder: Path) -> dict[Path, str]:
    """Return what a chart's generated files should hold."""
    chart = yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))
    values = read_values((folder / "values.yaml").read_text(encoding="utf-8"))
    introduction = (folder / "INTRODUCTION.md").read_text(encoding="utf-8")
    schema = json.dumps(schema_of(chart["name"], values), indent=2, ensure_ascii=False)
    return {
        folder / "values.schema.json": schema + "\n",
        folder / "README.md": readme_of(chart, introduction, values),
    }


def main(arguments: list[str]) -> int:
    """Write the files, or say which are stale."""
    charts = sorted(path.parent for path in CHARTS.glob("*/Chart.yaml"))
    wanted = {path: text for chart in charts for path, text in documents(chart).items()}
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(CHARTS)} is stale: run python charts/reference.py")
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(CHARTS)}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
