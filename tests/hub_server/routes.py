"""Which address is which step, and who handles it. The names of the steps are what faults, hooks and tests speak of."""

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from tests.hub_server import discussions, large_files, reading, writing, xet_calls
from tests.hub_server.exchange import Answer, Request, Where
from tests.hub_server.hub import Hub

Handler = Callable[[Hub, Request, Where], Answer]

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>dataset|model)s/{_REPO}"
_GIT = rf"/(?P<prefix>datasets/)?{_REPO}\.git/info/lfs/objects"
_REVISION = r"(?P<revision>[^/]+)"
_CAS = r"/xet-cas/v1"


class Route(NamedTuple):
    """One call."""

    step: str
    methods: str
    address: re.Pattern[str]
    handler: Handler


def _route(step: str, methods: str, address: str, handler: Handler) -> Route:
    return Route(step, methods, re.compile(address), handler)


# The repository's own address comes last of its kind: it would match none of the others, they end in more.
ROUTES = (
    _route("whoami", "GET", r"/api/whoami-v2", reading.whoami),
    _route("create", "POST", r"/api/repos/create", writing.create),
    _route("validate", "POST", r"/api/validate-yaml", writing.validate),
    _route("harnesses", "GET", r"/api/agent-harnesses", reading.harnesses),
    _route("preupload", "POST", rf"{_API}/preupload/{_REVISION}", writing.preupload),
    _route("commit", "POST", rf"{_API}/commit/{_REVISION}", writing.commit),
    _route("lfs-batch", "POST", rf"{_GIT}/batch", large_files.batch),
    _route("lfs-verify", "POST", rf"{_GIT}/verify", large_files.verify),
    _route("lfs-put", "PUT", r"/lfs/(?P<key>\w+)", large_files.put),
    _route("lfs-put", "PUT", r"/lfs/(?P<key>\w+)/(?P<part>\d+)", large_files.put_part),
    _route("lfs-complete", "POST", r"/lfs/(?P<key>\w+)", large_files.complete),
    _route("tree", "GET", rf"{_API}/tree/{_REVISION}(?P<path>/.*)?", reading.tree),
    _route("paths-info", "POST", rf"{_API}/paths-info/{_REVISION}", reading.paths_info),
    _route("commits", "GET", rf"{_API}/commits/{_REVISION}", reading.commits),
    _route("refs", "GET", rf"{_API}/refs", reading.refs),
    _route("branch", "POST", rf"{_API}/branch/{_REVISION}", writing.create_branch),
    _route("branch", "DELETE", rf"{_API}/branch/{_REVISION}", writing.delete_branch),
    _route("settings", "PUT", rf"{_API}/settings", writing.settings),
    _route("discussions", "GET", rf"{_API}/discussions", discussions.listed),
    _route("discussion", "GET", rf"{_API}/discussions/(?P<number>\d+)", discussions.details),
    _route("auth-check", "GET", rf"{_API}/auth-check(?P<write>/write)?", reading.auth_check),
    _route("xet-token", "GET", rf"{_API}/xet-(?P<scope>read|write)-token/{_REVISION}", xet_calls.token),
    _route("xet-grant", "POST", rf"{_CAS}/xorb-grants/[^/]+/(?P<hash>\w+)", xet_calls.grant),
    _route("xet-query", "GET", rf"{_CAS}/chunks/[^/]+/(?P<hash>\w+)", xet_calls.known_chunk),
    _route("xet-upload", "PUT", r"/xet-upload/(?P<id>\w+)", xet_calls.granted),
    _route(
        "xet-grant-commit",
        "POST",
        rf"{_CAS}/xorb-commits/[^/]+/(?P<hash>\w+)/grant/(?P<id>\w+)",
        xet_calls.grant_commit,
    ),
    _route("xet-upload", "POST", rf"{_CAS}/xorbs/[^/]+/(?P<hash>\w+)", xet_calls.xorb),
    _route("xet-shard", "POST", r"/xet-cas/v(?P<version>[12])/shards", xet_calls.shard),
    _route("telemetry", "POST", r"/v1/telemetry", xet_calls.telemetry),
    _route(
        "resolve",
        "GET HEAD",
        rf"/(?P<prefix>datasets/)?{_REPO}/resolve/{_REVISION}/(?P<path>.+)",
        reading.resolve,
    ),
    _route("info", "GET", rf"{_API}/revision/{_REVISION}", reading.info),
    _route("info", "GET", _API, reading.info),
)

STEPS = tuple(dict.fromkeys(route.step for route in ROUTES))


def find(method: str, raw_path: str) -> tuple[Route, Where] | None:
    """The route of an address and what it names."""
    for route in ROUTES:
        if method in route.methods.split() and (found := route.address.fullmatch(raw_path)):
            return route, {name: unquote(value or "") for name, value in found.groupdict().items()}
    return None
