"""One HTTP exchange as the handlers see it: what came in, what goes out, and how the Hub says no.

Owns no state. A `Refusal` is an answer that a handler raises; its constructors are the Hub's own forms, since the client
chooses its exception by status, `X-Error-Code` and `X-Error-Message` (`hf_raise_for_status`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Where = Mapping[str, str]
"""What the address names (`kind`, `repo`, `revision`, `path` …), decoded; "" for what it leaves out."""


@dataclass(eq=False)
class Request:
    """A request that came in. Kept in `HubServer.requests` without its body; no `repr` shows a token."""

    method: str
    path: str
    """Decoded, without the query."""
    raw_path: str = field(default="", repr=False)
    """As it came: a revision such as `refs%2Fpr%2F1` is one part of it."""
    query: dict[str, list[str]] = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    step: str = "unknown"
    """Which call this is; `routes.STEPS` lists the names."""
    body: bytes = field(default=b"", repr=False)
    """Whole while hooks, faults and handlers see the request; empty afterwards."""
    body_bytes: int = 0
    """How much of the body was read."""
    status: int | None = None
    """Of the answer; None as long as there is none, and for ever where the connection was cut."""

    @property
    def authorized(self) -> bool:
        """Whether an Authorization header came, good or not."""
        return "authorization" in self.headers

    @property
    def token(self) -> str | None:
        """The bearer token."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def first(self, name: str, otherwise: str = "") -> str:
        """A query parameter's first value."""
        return self.query.get(name, [otherwise])[0]

    def flag(self, name: str) -> bool:
        """Whether a query parameter is given and true."""
        return self.first(name).lower() in {"1", "true"}

    def json(self) -> Any:
        """The body.

        Raises:
            Refusal: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise bad_request(f"the body is not JSON: {error}") from error


class Answer(NamedTuple):
    """What goes out. For HEAD the body's length is announced and the body kept back."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(Exception):  # noqa: N818 - it is an answer, not an accident
    """An answer that says no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body[:200]!r}")
        self.answer = answer


def json_answer(content: Any, status: int = 200, **headers: str) -> Answer:
    """JSON; `X_Error_Code="…"` becomes the header `X-Error-Code`."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    body = json.dumps(content, ensure_ascii=False).encode()
    return Answer(status, body, (("Content-Type", "application/json; charset=utf-8"), *named))


def refusal(status: int, message: str, code: str | None = None) -> Refusal:
    """The Hub's usual form: the message in the body and in a header, sometimes a code."""
    headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
    return Refusal(json_answer({"error": message}, status, **headers))


def bad_request(message: str) -> Refusal:
    """400."""
    return refusal(400, message)


def repository_not_found() -> Refusal:
    """Missing, or not to be seen with this token: the Hub does not tell which."""
    return refusal(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    """No such branch, pull request or commit."""
    return refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str = "Entry not found") -> Refusal:
    """No such file or folder."""
    return refusal(404, message, "EntryNotFound")
