"""The documents about `report.json`, generated from the classes of `hansa.report.schema` and their docstrings.

``python -m hansa.report.documentation docs`` writes `docs/report-schema.md` and `docs/report.schema.json`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hansa.report.part import Part
from hansa.report.schema import REPORT_SCHEMA_VERSION, Report

MARKDOWN_NAME = "report-schema.md"
JSON_SCHEMA_NAME = "report.schema.json"


def json_schema() -> str:
    """The JSON Schema (draft 2020-12) of `report.json`."""
    tree = Report.model_json_schema(mode="serialization")
    for name, part in _definitions(tree).items():
        kind = _kinds()[name]
        part["description"] = summary(kind)
        for field, text in attributes(kind).items():
            part["properties"][field].pop("title", None)  # pydantic's own: the key once more
            part["properties"][field]["description"] = text
    return (
        json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree}, indent=2, ensure_ascii=False
        )
        + "\n"
    )


def markdown() -> str:
    """The same for people: one table for each part."""
    definitions = _definitions(json.loads(json_schema()))
    lines = [
        "# `report.json`",
        "",
        f"What `hansa simulate` writes, schema version {REPORT_SCHEMA_VERSION}. The file is strict JSON in UTF-8: no NaN, no",
        "infinities, no other keys than these. A program can check it with [report.schema.json](report.schema.json).",
        "Times are in seconds, sizes in bytes, qualities from 0 to 1, hashes in hexadecimal.",
        "",
        "Both documents are generated from `hansa.report.schema` by `python -m hansa.report.documentation docs`.",
    ]
    for name, part in definitions.items():
        lines += [
            "",
            f"## {name}",
            "",
            _code(part["description"]),
            "",
            "| key | type | meaning |",
            "| --- | --- | --- |",
        ]
        for key, field in part["properties"].items():
            text = _code(field["description"]).replace("|", "\\|")
            lines.append(f"| `{key}` | {_type(field)} | {text} |")
    return "\n".join(lines) + "\n"


def summary(kind: type[BaseModel]) -> str:
    """What stands in a class's docstring before its attributes, as one line of text."""
    text = inspect.cleandoc(kind.__doc__ or "").split("\nAttributes:")[0]
    return " ".join(text.split())


def attributes(kind: type[BaseModel]) -> dict[str, str]:
    """The `Attributes` section of a class's docstring: name to text.

    Raises:
        ValueError: the section and the fields of the class are not the same.
    """
    section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")[2]
    found = {
        match["name"]: " ".join(match["text"].split())
        for match in re.finditer(
            r"^    (?P<name>\w+): (?P<text>.*(?:\n {8}.*)*)", section, flags=re.MULTILINE
        )
    }
    different = set(found) ^ set(kind.model_fields)
    if different:
        raise ValueError(
            f"{kind.__name__}: {sorted(different)} are fields without a text, or texts without a field"
        )
    return found


def _kinds() -> Mapping[str, type[Part]]:
    return {kind.__name__: kind for kind in Part.__subclasses__()}


def _definitions(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts by name, the report itself first."""
    return {"Report": tree, **tree.get("$defs", {})}


def _type(field: Mapping[str, Any]) -> str:
    """A JSON Schema type in a few words."""
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(option)}`" for option in field["enum"])
    match field.get("type"):
        case "array" if "prefixItems" in field:
            return f"[{', '.join(_type(item) for item in field['prefixItems'])}]"
        case "array":
            return f"array of {_type(field['items'])}"
        case "object" if isinstance(field.get("additionalProperties"), Mapping):
            return f"object of {_type(field['additionalProperties'])}"
        case str() as simple:
            return simple
        case _:
            return "any"


def _code(text: str) -> str:
    return text.replace("``", "`")


def main(arguments: list[str]) -> None:
    """Write both documents into a folder, by default ``docs``."""
    folder = Path(arguments[0] if arguments else "docs")
    (folder / JSON_SCHEMA_NAME).write_text(json_schema(), encoding="utf-8")
    (folder / MARKDOWN_NAME).write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
