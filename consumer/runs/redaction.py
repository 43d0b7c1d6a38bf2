"""Secrets in ``config`` and ``report`` are replaced before they reach the disk.

The rule is lmms-eval's (``evaluator.py``, ``_redact``), with two differences: only strings are secrets
(``"token": true`` stays; below a secret key every string is one), and names of a tokenizer's special tokens
(``tokenizer_pad_token``, ``eos_token``) are no secrets.
"""

import re
from typing import Any

REDACTED = "[REDACTED]"

_SECRET_KEYS = frozenset(
    {"api_key", "client_secret", "hf_token", "huggingface_hub_token", "huggingfacehub_api_token", "token"}
)
_SECRET_ENDINGS = ("api_key", "_token", "_secret", "password")
_SPECIAL_TOKEN = re.compile(r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|eot|image|video|audio)_token$")
_ASSIGNMENT = re.compile(r"(^|[,\s])(\w*(?:api_key|token|secret|password))=([^,\s]+)", re.IGNORECASE)
_HF_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")


def redact(value: Any, key: str = "") -> Any:
    """`value`, a JSON value found under `key`, without secrets."""
    if isinstance(value, dict):
        below = key if _is_secret(key.lower()) else ""
        return {name: redact(item, below or name) for name, item in value.items()}
    if isinstance(value, list):
        return [redact(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if _is_secret(key.lower()) and value:
        return REDACTED
    return _HF_TOKEN.sub(REDACTED, _ASSIGNMENT.sub(_redact_assignment, value))


def _is_secret(key: str) -> bool:
    return key in _SECRET_KEYS or (key.endswith(_SECRET_ENDINGS) and not _SPECIAL_TOKEN.search(key))


def _redact_assignment(match: re.Match[str]) -> str:
    before, name, _ = match.groups()
    return match.group(0) if _SPECIAL_TOKEN.search(name.lower()) else f"{before}{name}={REDACTED}"
