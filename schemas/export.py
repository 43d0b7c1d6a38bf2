"""JSON Schemas and the AsyncAPI document, generated from the Structs: ``python -m schemas.export [--check]``.

Owns: ``schemas/generated/`` and what is in it. Descriptions come from the docstrings: a Struct's from its
text, a property's from its line under ``Attributes:``. Invariants: equal Structs give equal bytes; every
attribute that a docstring describes exists. ``--check`` writes nothing and exits with 1 where a file is out
of step.

What JSON Schema cannot say, the decoder refuses all the same: ``1.0`` is an integer to JSON Schema, not to
us; a ``shard`` is below its ``num_shards``; rows are UTF-8.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from schemas import asyncapi, events, metrics, results, state
from schemas.events import Event

FOLDER: Final = Path(__file__).parent / "generated"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SUFFIX: Final = ".schema.json"

_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


def documents() -> dict[str, dict[str, Any]]:
    """File name to its content, for every generated file."""
    exported: dict[str, Any] = {"event": Event}
    for struct in (*get_args(Event), results.Evalsink, metrics.MetricRow, *state.EXPORTED):
        exported[_file_stem(struct)] = struct
    files = {f"{stem}{_SUFFIX}": _json_schema(stem, kind) for stem, kind in exported.items()}
    _, components = msgspec.json.schema_components(
        [*get_args(Event), state.Receipt], ref_template="#/components/schemas/{name}"
    )
    _describe(components)
    files["asyncapi.json"] = asyncapi.document(components)
    return files


def _file_stem(struct: type[Struct]) -> str:
    """``RunStarted`` is in ``run-started.schema.json``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", struct.__name__).lower()


def _json_schema(stem: str, kind: Any) -> dict[str, Any]:
    schema = msgspec.json.schema(kind)
    _describe(schema["$defs"])
    return {"$schema": _DIALECT, "$id": f"urn:evalsink:schema:{stem}", **schema}


def _describe(definitions: Mapping[str, dict[str, Any]]) -> None:
    """Replace docstrings by descriptions, of each definition and of its properties."""
    structs = dict(_structs(events, metrics, results, state))
    for name, definition in definitions.items():
        struct = structs[name]
        text, attributes = _parse(inspect.getdoc(struct) or "")
        definition["description"] = text
        parts = _parts(struct, definition)
        for attribute, description in attributes.items():
            # A KeyError here: the docstring describes what does not exist.
            parts[attribute]["description"] = description


def _structs(*modules: ModuleType) -> Iterator[tuple[str, type[Struct]]]:
    for module in modules:
        for name, member in vars(module).items():
            if isinstance(member, type) and issubclass(member, Struct):
                yield name, member


def _parts(struct: type[Struct], definition: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Attribute to its schema; Structs that are arrays in JSON have theirs by place."""
    if "prefixItems" in definition:
        return dict(zip(struct.__struct_fields__, definition["prefixItems"], strict=True))
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    return {attribute: definition["properties"][name] for attribute, name in names}


def _parse(docstring: str) -> tuple[str, dict[str, str]]:
    """A docstring's text, and its attributes with theirs; markup is Markdown, a paragraph one line."""
    text, _, section = docstring.replace("``", "`").partition("\nAttributes:\n")
    attributes: dict[str, list[str]] = {}
    for line in section.splitlines():
        if match := _ATTRIBUTE.match(line):
            lines = attributes[match[1]] = [match[2]]
        elif line.strip():
            lines.append(line.strip())
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join(filter(None, paragraphs)), {
        name: " ".join(lines) for name, lines in attributes.items()
    }


def _render(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or check them; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.export", description="Generate schemas/generated/."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of step")
    check = parser.parse_args(arguments).check
    wanted = {name: _render(document) for name, document in documents().items()}
    present = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
    differing = sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )
    if check:
        for name in differing:
            sys.stderr.write(f"{name} is out of step with the Structs; run: python -m schemas.export\n")
        return 1 if differing else 0
    FOLDER.mkdir(exist_ok=True)
    for name in differing:
        if name in wanted:
            (FOLDER / name).write_bytes(wanted[name])
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
