"""The Hub's failures, as its client raises them, sorted into `faults`.

huggingface_hub 2.4 raises five families that have nothing in common: `HfHubHTTPError`, httpx2's transport
errors, `RuntimeError` around what went wrong with an upload, `ValueError` (a card that was refused, but also
HTML in place of JSON), and Xet's own. Whatever is in none of them counts as no answer: waiting is safer than
giving up.
"""

import contextlib
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # meant to be

from consumer.archive.faults import Away, Busy, HubFault, Refused, Stale, Throttled

_UNSAID_WAIT_S = 60.0
_REASON_MAX = 400

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}")
_BEARER = re.compile(r"(?i)bearer\s+\S+")
_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")
_IN_A_WHILE = re.compile(r"\bin (\d+) (second|minute|hour)", re.IGNORECASE)
_UNITS_S = {"second": 1, "minute": 60, "hour": 3600}


def translate(error: BaseException, token: str | None) -> HubFault:
    """What an exception of the client means. Its cause counts where it is a wrapper around one that tells."""
    chain = [error]
    # Not the context: it may be an answer that was dealt with, such as the 404 before a repository is made.
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    for one in chain:
        if (fault := _told(one, clean(str(error if one is error else f"{error} {one}"), token))) is not None:
            # What the storage behind the Hub refuses (a signature that ran out) says nothing of the token.
            return fault if one is error or not isinstance(fault, Refused) else Away(str(fault))
    text = clean(f"{type(error).__name__}: {error}", token)
    if "xet-write-token" in text:
        return Away(f"{text}; for a Hub without Xet set hub.xet = false")
    if isinstance(error, ValueError) and not isinstance(error, httpx2.HTTPError | OSError):
        return Refused(text, whole_repo=False)
    # hf_xet's own, and what nobody foresaw: waiting is safer than giving up.
    return Away(text)


def _told(error: BaseException, text: str) -> HubFault | None:
    """What one of the chain says by itself; None: nothing."""
    match error:
        case _ThrottledError():
            return Throttled(text, error.after_s)
        case _ConflictError():
            return Busy(text)
        case HfHubHTTPError() | httpx2.HTTPStatusError():
            return _by_status(error, text)
        case json.JSONDecodeError():
            return Away(f"the answer is no JSON: {text}")
        case _:
            return None


def clean(text: str, token: str | None) -> str:
    """`text` on one line, cut, without the token, anything that looks like one, or what signs an address."""
    if token:
        text = text.replace(token, "***")
    text = _SIGNED.sub(r"\1", _BEARER.sub("Bearer ***", _TOKEN.sub("***", text)))
    return " ".join(text.split())[:_REASON_MAX]


class _ThrottledError(Exception):
    """Raised inside the client, so that it does not sleep by itself."""

    def __init__(self, reason: str, after_s: float) -> None:
        super().__init__(reason)
        self.after_s = after_s


class _ConflictError(Exception):
    """Likewise: the client would ask again at once, for ever."""


def _by_status(error: HfHubHTTPError | httpx2.HTTPStatusError, text: str) -> HubFault:
    status = error.response.status_code
    if status == 412:  # noqa: PLR2004 - numbers of HTTP, here and below
        return Stale(text)
    if status == 409:  # noqa: PLR2004
        return Busy(text)
    if status == 429:  # noqa: PLR2004
        return Throttled(text, _wait_s(error.response))
    if status == 408 or status >= 500:  # noqa: PLR2004
        return Away(text)
    # The revision is asked for by the name of a branch that `prepare` made.
    gone = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
    return Refused(text, whole_repo=gone or status in {401, 402, 403, 404})


def raise_for_loops(response: httpx2.Response) -> None:
    """Raise on what the client would wait for by itself without a bound. A hook for its responses."""
    if response.status_code == 409 and response.url.path.endswith("/api/repos/create"):  # noqa: PLR2004
        response.read()
        if "conflicting operation" in response.text:
            raise _ConflictError(f"409 from {response.url.host}: {response.text}")
    if response.status_code == 429:  # noqa: PLR2004
        response.read()
        raise _ThrottledError(f"429 from {response.url.host}: {response.text}", _wait_s(response))


def _wait_s(response: httpx2.Response) -> float:
    """How long a 429 asks to wait, seconds.

    There are two kinds: the quota of requests is in `RateLimit`, which counts only where nothing remains; the
    limit of commits to a repository is told in words.
    """
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    after = response.headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after) + 1.0
    if after:
        with contextlib.suppress(ValueError, TypeError):
            left = parsedate_to_datetime(after).astimezone(UTC) - datetime.now(UTC)
            return max(1.0, left.total_seconds() + 1.0)
    if (said := _IN_A_WHILE.search(response.text)) is not None:
        return float(int(said[1]) * _UNITS_S[said[2].lower()]) + 1.0
    return _UNSAID_WAIT_S
