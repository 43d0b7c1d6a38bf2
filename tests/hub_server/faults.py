"""What goes wrong on purpose, and where a test looks in.

Owns the list of faults and the hooks. A fault belongs to a step (`routes.STEPS`, or `ANY`) and strikes at one of three points:
`"body"`, while the request's body is still being read; `"before"`, when the request is whole and nothing was applied;
`"after"`, when it was applied and the client has not heard of it. Faults strike in the order they were added, one per
point and request. Hooks (`Hooks`) run at `"before"` and `"after"` too, and for `commit` at `"during"`, while the
repository's commit lock is held.

    hub.faults.add("commit", status(500))                       # the next commit fails, nothing applied
    hub.faults.add("commit", status(500), at="after")           # it is applied, the client reads 500
    hub.faults.add("commit", CUT, at="after", times=None)       # for ever, until `.remove()`
    hub.faults.add("lfs-put", CutBody(3_000_000))               # RST after 3 MB
    hub.faults.add("preupload", Hang(gate := Gate()))           # until gate.open()
    hub.faults.add("commit", COMMIT_LIMIT, when=lambda request: request.token == "hf_other")
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from tests.hub_server.exchange import Answer, Request, json_answer

ANY: Final = "any"
Point = Literal["body", "before", "during", "after"]


class Gate:
    """Something waits here until a test lets it go. Fit to be a hook, and what `Hang` waits for.

    As a context manager it opens at the end, so that a test that fails meanwhile leaves nobody waiting.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        """Set when the first one came."""
        self._open = threading.Event()

    def open(self) -> None:
        """Let all go, also those that come later."""
        self._open.set()

    def wait_reached(self, timeout_s: float = 30) -> None:
        """Until somebody stands at the gate; fails when nobody comes."""
        assert self.reached.wait(timeout_s), f"nobody came to the gate within {timeout_s:g} s"

    def pass_through(self) -> None:
        """Come to the gate and wait."""
        self.reached.set()
        self._open.wait()

    def __call__(self, request: Request) -> None:
        self.pass_through()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


@dataclass(frozen=True)
class Respond:
    """Answer this, whatever the truth is."""

    answer: Answer


@dataclass(frozen=True)
class CutBody:
    """Reset the connection once so many bytes of the request's body were read. Always at `"body"`."""

    after_bytes: int


@dataclass(frozen=True)
class Cut:
    """Reset the connection instead of answering."""


@dataclass(frozen=True)
class Hang:
    """Say nothing until the gate opens, then go on as if nothing had been; the client may be gone by then."""

    gate: Gate


Effect = Respond | CutBody | Cut | Hang
CUT: Final = Cut()


@dataclass(eq=False)
class Fault:
    """A fault in the list. `hits` counts how often it struck."""

    step: str
    effect: Effect
    at: Point
    left: int | None
    when: Callable[[Request], bool] | None
    remove: Callable[[], None] = field(repr=False)
    hits: int = 0


class Faults:
    """The faults of one Hub."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._gates: set[Gate] = set()

    def add(
        self,
        step: str,
        effect: Effect,
        *,
        times: int | None = 1,
        at: Point = "before",
        when: Callable[[Request], bool] | None = None,
    ) -> Fault:
        """Let something go wrong.

        Args:
            step: Which call; `ANY` for each, `harnesses` and `telemetry` among them, which clients send unasked.
            effect: What happens.
            times: How often; None for ever, until `Fault.remove()` or `clear()`.
            at: `"before"` or `"after"` it was applied. After a refusal by the Hub itself nothing strikes.
            when: Only for requests it says yes to. At `"body"` it sees no body yet.
        """
        point: Point = "body" if isinstance(effect, CutBody) else at
        fault = Fault(step, effect, point, times, when, remove=lambda: self._remove(fault))
        with self._lock:
            self._faults.append(fault)
            if isinstance(effect, Hang):
                self._gates.add(effect.gate)
        return fault

    def clear(self) -> None:
        """Nothing goes wrong any more; what hangs already, goes on hanging."""
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        """Open every gate that something hangs at."""
        with self._lock:
            for gate in self._gates:
                gate.open()

    def take(self, request: Request, at: Point) -> Effect | None:
        """The effect that strikes this request at this point, and is used up by it."""
        with self._lock:
            candidates = [one for one in self._faults if one.at == at and one.step in {request.step, ANY}]
        # A predicate is a test's code: it may look at the Hub, so no lock is held while it runs.
        for fault in candidates:
            if fault.when is not None and not fault.when(request):
                continue
            with self._lock:
                if fault not in self._faults:
                    continue  # another request used it up meanwhile
                fault.hits += 1
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left == 0:
                        self._faults.remove(fault)
            return fault.effect
        return None

    def _remove(self, fault: Fault) -> None:
        with self._lock:
            if fault in self._faults:
                self._faults.remove(fault)


class Hooks:
    """Callbacks of tests. They run in the thread that serves the request: one that waits holds its client up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooks: list[tuple[str, Point, Callable[[Request], object]]] = []

    def add(self, step: str, callback: Callable[[Request], object], at: Point) -> Callable[[], None]:
        """Register; the result takes it back."""
        entry = (step, at, callback)
        with self._lock:
            self._hooks.append(entry)

        def remove() -> None:
            with self._lock:
                if entry in self._hooks:
                    self._hooks.remove(entry)

        return remove

    def run(self, request: Request, at: Point) -> None:
        """Call those for this step and point, in the order they came."""
        with self._lock:
            found = [
                callback
                for step, point, callback in self._hooks
                if point == at and step in {request.step, ANY}
            ]
        for callback in found:
            callback(request)


def status(
    code: int, error: str = "Internal Error - We're working hard to fix this as soon as possible!"
) -> Respond:
    """An error of the Hub itself, in JSON."""
    return Respond(json_answer({"error": error}, code))


def rate_limited(reset_s: int = 55, quota: int = 500, window_s: int = 300) -> Respond:
    """429 of the API quota: nothing remains until the window ends."""
    return Respond(
        json_answer(
            {"error": "You have exceeded the rate limit for the api."},
            429,
            RateLimit=f'"api";r=0;t={reset_s}',
            RateLimit_Policy=f'"fixed window";"api";q={quota};w={window_s}',
        )
    )


def retry_after(seconds: int, code: int = 429) -> Respond:
    """The plain HTTP form, as proxies in front of the Hub send it."""
    return Respond(json_answer({"error": "Too Many Requests"}, code, Retry_After=str(seconds)))


def commit_limit(minutes: int = 43) -> Respond:
    """429 of the commits per hour. The header speaks of another quota, of which much is left."""
    text = (
        "You have exceeded the rate limit for repository commits (128 per hour). "
        f"You can retry this action in {minutes} minutes"
    )
    return Respond(json_answer({"error": text}, 429, RateLimit='"api";r=949;t=12'))


def proxy_page(code: int = 502) -> Respond:
    """A page of a proxy where JSON is expected; with 200 as a captive portal or a login page sends it."""
    page = f"<html><head><title>{code}</title></head><body><h1>{code} proxy</h1></body></html>".encode()
    return Respond(Answer(code, page, (("Content-Type", "text/html"),)))


COMMIT_LIMIT: Final = commit_limit()
