"""The front matter of a dataset card: YAML that every reader takes for the same.

All texts are quoted: ``20260101_000000`` is a number to YAML 1.1, and other readers take more for numbers.
Nothing but ASCII stands in it: ``datasets`` ends lines at U+2028 too.
"""

import math
from collections.abc import Mapping
from typing import Any

import yaml


def dump(front: Mapping[str, Any]) -> str:
    """The front matter with its two lines of ``---``."""
    text = yaml.dump(_quoted(front), Dumper=_Dumper, sort_keys=False, width=math.inf, allow_unicode=False)
    return f"---\n{text}---\n"


def load(card: bytes) -> Mapping[Any, Any]:
    """What stands between the first two lines of ``---``; nothing where that is no YAML."""
    try:
        text = card.decode()
        if not text.startswith("---\n"):
            return {}
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        front = yaml.load(text[4 : text.index("\n---\n") + 1], Loader=loader)  # noqa: S506 - a safe one
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}


class _Quoted(str):
    """Written between quotation marks."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML ships no types
    """Without references to what stood there before: two equal lists are written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent(dumper: yaml.SafeDumper, text: _Quoted) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Quoted, _represent)


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return _Quoted(value)
    if isinstance(value, Mapping):
        return {key: _quoted(one) for key, one in value.items()}
    return [_quoted(one) for one in value] if isinstance(value, list) else value
