"""What a samples file's columns hold, such that files of different runs still load as one table. Pure.

Owns: types of columns as a join-semilattice: null < bool, int64 < float64, string, list, struct < json. A
list has the type of its elements, a struct the types of its fields, joined one by one; two kinds that do not
fit, and what is too deep or too broad to declare, are json. `join` is commutative, associative and
idempotent, so that neither the order of files nor who read them shows.

Found by loading with datasets 5.2.0: declared features load files that lack a column, hold only nulls or
empty lists, order their fields otherwise, or have whole numbers where others have fractions; a column that is
not declared does not load. Lists and structs that are declared come back exactly. But as soon as one column
anywhere in a configuration is json, every row of it goes through ujson, which rounds all its fractions to 10
decimals, reads text in a json column that is JSON itself (``"1"``) as what it spells, and refuses whole
numbers beyond 64 bits. So json is declared only where nothing else loads: for kinds that are mixed in a
column, and for ``1e999``, which Arrow refuses and ujson reads as null. Whole numbers beyond 64 bits are
float64.

What no declaration mends: a text column in which all texts are dates comes back as ``2020-01-01 00:00:00``; a
name that comes twice in a row is refused by Arrow; a field that is absent comes back as null.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

Scalar = Literal["null", "bool", "int64", "float64", "string", "json"]

Type: TypeAlias = "str | list[Type] | dict[str, Type]"
"""A `Scalar`; a list as a list of its elements' type; a struct as field to type."""

Columns: TypeAlias = dict[str, "Type"] | Literal["wide", "unreadable"]
"""Column to type; or why there is no table to declare."""

WIDE: Final = "wide"
"""More columns than can be declared."""

UNREADABLE: Final = "unreadable"
"""Not JSON Lines with an object in each."""

COLUMNS_MAX = 1000
FIELDS_MAX = 64
"""More fields are keys that are data, names of documents say: a struct of them is null almost everywhere."""

DEPTH_MAX = 12

_NO_FIELD = re.compile(r'[\x00-\x1f"\\]')

_BEYOND_INT64 = 1 << 63
_KINDS: dict[type, Scalar] = {type(None): "null", bool: "bool", float: "float64", str: "string"}
_SCALARS: dict[str, Any] = {
    "null": None,
    "bool": bool | None,
    "int64": Annotated[int, Meta(ge=-_BEYOND_INT64, le=_BEYOND_INT64 - 1)] | None,
    "float64": float | None,
    "string": str | None,
    "json": Raw,
}


def join(one: Columns, other: Columns) -> Columns:
    """What holds the rows of both. `UNREADABLE` joins with nothing: such a file is left out."""
    if isinstance(one, str) or isinstance(other, str):
        return UNREADABLE if UNREADABLE in (one, other) else WIDE
    joined = _fields(one, other, COLUMNS_MAX)
    return WIDE if joined is None else joined


def scan(lines: Iterable[bytes]) -> Columns:
    """The columns of a file, line by line, in memory bounded by a line and `COLUMNS_MAX`.

    What was seen so far is a decoder; a line which that takes adds nothing, and costs no Python.
    """
    columns: dict[str, Type] = {}
    takes = _decoder(columns)
    for line in lines:
        try:
            takes(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            if not line.strip():
                continue
        else:
            continue
        row = _row(line)
        if isinstance(row, str):
            return row
        joined = join(columns, row)
        if isinstance(joined, str):
            return joined
        if joined != columns:
            columns = joined
            takes = _decoder(columns)
    return columns


def features(columns: Mapping[str, Type]) -> list[dict[str, Any]]:
    """The list that a dataset card has under ``features``, by name."""
    return [{"name": name, **_declared(columns[name])} for name in sorted(columns)]


def of_features(declared: object) -> dict[str, Type]:
    """The columns that `features` declared.

    Raises:
        ValueError: somebody else declared them.
    """
    return _struct_of(declared, 0)


def _fields(one: Mapping[str, Type], other: Mapping[str, Type], most: int) -> dict[str, Type] | None:
    """Both structs' fields; None if these are more than can be declared."""
    names = [*one, *(name for name in other if name not in one)]
    if len(names) > most:
        return None
    return {name: _join(one.get(name, "null"), other.get(name, "null")) for name in names}


def _join(one: Type, other: Type) -> Type:
    if other in (one, "null"):
        return one
    if one == "null":
        return other
    joined: Type | None = None
    if isinstance(one, dict) and isinstance(other, dict):
        joined = _fields(one, other, FIELDS_MAX)
    elif isinstance(one, list) and isinstance(other, list):
        joined = [_join(one[0], other[0])]
    elif (one, other) in (("int64", "float64"), ("float64", "int64")):
        joined = "float64"
    return "json" if joined is None else joined


class _Odd:
    """Stands for a value that only json loads."""


_ODD = _Odd()


def _row(line: bytes) -> Columns:
    """The columns of one row, also of what Python's tolerant parser lets pass."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            row = json.loads(line, parse_float=_float)
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            row = _marked(row)
        except (ValueError, RecursionError):
            return UNREADABLE
    if not isinstance(row, dict):
        return UNREADABLE
    if len(row) > COLUMNS_MAX:
        return WIDE
    if not all(_is_text(name) for name in row):
        return UNREADABLE
    return {name: _infer(value, DEPTH_MAX) for name, value in row.items()}


def _float(digits: str) -> float | _Odd:
    number = float(digits)
    return number if math.isfinite(number) else _ODD


def _marked(value: Any) -> Any:
    """`value`, halves of surrogate pairs marked as odd."""
    if isinstance(value, str):
        return value if _is_text(value) else _ODD
    if isinstance(value, list):
        return [_marked(one) for one in value]
    if isinstance(value, dict):
        return {name: _marked(one) for name, one in value.items()}
    return value


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _infer(value: Any, depth: int) -> Type:
    kind: Type = _KINDS.get(type(value), "json")
    if isinstance(value, int) and not isinstance(value, bool):
        kind = "int64" if -_BEYOND_INT64 <= value < _BEYOND_INT64 else "float64"
    elif isinstance(value, list) and depth:
        element: Type = "null"
        for one in value:
            element = _join(element, _infer(one, depth - 1))
        kind = [element]
    elif isinstance(value, dict) and depth and len(value) <= FIELDS_MAX and all(map(_is_text, value)):
        kind = {name: _infer(one, depth - 1) for name, one in value.items()}
    return kind


def _decoder(columns: Mapping[str, Type]) -> Any:
    """A decoder that fails for every line that is not of these columns."""
    return msgspec.json.Decoder(_shape(columns)).decode


def _shape(kind: Any) -> Any:
    if isinstance(kind, str):
        return _SCALARS[kind]
    if isinstance(kind, list):
        return list.__class_getitem__(_optional(_shape(kind[0])))
    # A row that has a field whose name msgspec does not take is inferred anew each time.
    names = {f"f{number}": name for number, name in enumerate(kind) if not _NO_FIELD.search(name)}
    return msgspec.defstruct(
        "Row",
        [(field, _optional(_shape(kind[name])), None) for field, name in names.items()],
        rename=names,
        forbid_unknown_fields=True,
        gc=False,
    )


def _optional(shape: Any) -> Any:
    return shape if shape in (None, Raw) else shape | None


def _declared(kind: Type) -> dict[str, Any]:
    if isinstance(kind, str):
        return {"dtype": kind}
    if isinstance(kind, dict):
        return {"struct": features(kind)}
    inner = kind[0]
    if isinstance(inner, str):
        return {"list": inner}
    return {"list": features(inner) if isinstance(inner, dict) else _declared(inner)}


def _struct_of(declared: object, depth: int) -> dict[str, Type]:
    if not isinstance(declared, list) or depth > DEPTH_MAX:
        raise ValueError("features are a list")
    fields: dict[str, Type] = {}
    for one in declared:
        match one:
            case {"name": str(name), "dtype": str(scalar), **more} if scalar in _SCALARS and not more:
                fields[name] = scalar
            case {"name": str(name), "struct": inner, **more} if not more:
                fields[name] = _struct_of(inner, depth + 1)
            case {"name": str(name), "list": inner, **more} if not more:
                fields[name] = [_element_of(inner, depth + 1)]
            case _:
                raise ValueError("no feature of ours")
    return fields


def _element_of(inner: object, depth: int) -> Type:
    match inner:
        case str() if inner in _SCALARS:
            return inner
        case {"list": deeper, **more} if not more and depth <= DEPTH_MAX:
            return [_element_of(deeper, depth + 1)]
        case _:
            return _struct_of(inner, depth)
