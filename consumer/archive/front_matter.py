"""The front matter of a dataset card: YAML that every reader takes for the same.

All texts are quoted: ``20260101_000000`` is a number to YAML 1.1, and other readers take more for numbers.
Nothing but ASCII stands in it: ``datasets`` ends lines at U+2028 too. Its last line, a comment, has the hash
of the others: what somebody edited is read back as nothing, and never parsed.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml


def dump(front: Mapping[str, Any]) -> str:
    """The front matter with its two lines of ``---``."""
    text = yaml.dump(_quoted(front), Dumper=_Dumper, sort_keys=False, width=1 << 30, allow_unicode=False)
    return f"---\n{text}{_seal(text)}\n---\n"


def load(card: bytes) -> Mapping[Any, Any]:
    """What `dump` wrote; nothing where somebody else wrote it, or edited it since."""
    try:
        text = card.decode()
        if not text.startswith("---\n"):
            return {}
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content, _, seal = text[4 : text.index("\n---\n")].rpartition("\n")
        if seal != _seal(f"{content}\n"):
            return {}
        front = yaml.load(content, Loader=loader)  # noqa: S506 - a safe one
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}


class _Quoted(str):
    """Written between quotation marks."""

    __slots__ = ()


def _seal(text: str) -> str:
    return f"# sha256 of the lines above, by evalsink: {hashlib.sha256(text.encode()).hexdigest()}"


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # PyYAML ships no types
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
