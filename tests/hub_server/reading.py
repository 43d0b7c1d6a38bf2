"""The calls that read: repository and revision info, tree, paths, file contents, history, refs, who is there.

Owns paging (`Link`, as GitHub does it) and the headers of file contents. Trade-off: large files are answered directly with
the `X-Linked-…` headers, not by a redirect to another host; the client takes both.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

from tests.hub_server.card import front_matter
from tests.hub_server.exchange import Answer, Refusal, Request, Where, entry_not_found, json_answer, refusal
from tests.hub_server.hub import Hub
from tests.hub_server.repository import MAIN, Commit, File, Repository, git_blob_oid

EXPANDED_PAGE_SIZE = 50
MOST_PATHS = 1000
"""Per paths-info; beyond it the Hub says 413."""


def info(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET /api/{kind}s/{repo}[/revision/{revision}]`, with `?blobs=` and `?expand=`."""
    repository = hub.access(request, where["kind"], where["repo"])
    commit = repository.commit(where.get("revision") or MAIN)
    readme = commit.files.get("README.md")
    card = front_matter(readme.data.decode(errors="replace"))[0] if readme else {}
    everything = {
        "sha": commit.oid,
        "author": repository.id.partition("/")[0],
        "createdAt": moment(repository.created_at),
        "lastModified": moment(commit.at),
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags") or [],
        "cardData": card or None,
        "siblings": [
            _sibling(path, file, blobs=request.flag("blobs")) for path, file in sorted(commit.files.items())
        ],
        "usedStorage": sum(len(file.data) for file in commit.files.values()),
    }
    wanted = request.query.get("expand", []) + request.query.get("expand[]", [])
    chosen = {name: value for name, value in everything.items() if not wanted or name in wanted}
    return json_answer({"_id": repository.head[:24], "id": repository.id, **chosen})


def tree(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/tree/{revision}[/{path}]?recursive=&expand=`, in pages."""
    repository = hub.access(request, where["kind"], where["repo"])
    commit = repository.commit(where["revision"])
    base = (where["path"] or "").strip("/")
    entries = _entries(commit)
    if base and entries.get(base, {}).get("type") != "directory":
        raise entry_not_found(f"{base} does not exist on {where['revision']!r}")
    inside = [path for path in sorted(entries) if path.startswith(f"{base}/" if base else "")]
    if not request.flag("recursive"):
        depth = base.count("/") + 1 if base else 0
        inside = [path for path in inside if path.count("/") == depth]
    expand = request.flag("expand")
    if expand:
        _add_last_commits(repository, where["revision"], entries)
    size = min(hub.page_size, EXPANDED_PAGE_SIZE) if expand else hub.page_size
    return _page(hub, request, [entries[path] for path in inside], size)


def paths_info(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST …/paths-info/{revision}`, a form or JSON. Paths that are not there are left out."""
    repository = hub.access(request, where["kind"], where["repo"])
    commit = repository.commit(where["revision"])
    if request.headers.get("content-type", "").startswith("application/json"):
        form = request.json()
        paths, expand = form["paths"], bool(form.get("expand"))
    else:
        fields = parse_qs(request.body.decode())
        paths, expand = fields.get("paths", []), fields.get("expand", [""])[0].lower() in {"1", "true"}
    if len(paths) > MOST_PATHS:
        raise refusal(413, "too many parameters")
    entries = _entries(commit)
    if expand:
        _add_last_commits(repository, where["revision"], entries)
    return json_answer([entries[path] for path in (one.strip("/") for one in paths) if path in entries])


def resolve(hub: Hub, request: Request, where: Where) -> Answer:
    """`HEAD|GET /[datasets/]{repo}/resolve/{revision}/{path}`, with Range."""
    kind = "dataset" if where["prefix"] else "model"
    repository = hub.content(request, kind, where["repo"])
    commit = repository.commit(where["revision"])
    file = commit.files.get(where["path"])
    revision = ("X-Repo-Commit", commit.oid)
    if file is None:
        answer = entry_not_found().answer
        raise Refusal(answer._replace(headers=(*answer.headers, revision)))
    large = (("X-Linked-Etag", f'"{file.oid}"'), ("X-Linked-Size", str(len(file.data)))) if file.lfs else ()
    headers = (
        ("Content-Type", "application/octet-stream" if file.lfs else "text/plain; charset=utf-8"),
        ("ETag", f'"{file.oid}"'),
        ("Accept-Ranges", "bytes"),
        revision,
        *large,
    )
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if wanted is None or wanted[0] == "bytes=-":
        return Answer(200, file.data, headers)
    size = len(file.data)
    first = int(wanted[1]) if wanted[1] else max(size - int(wanted[2]), 0)
    last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
    if first > last:
        return Answer(416, b"", (*headers, ("Content-Range", f"bytes */{size}")))
    return Answer(
        206, file.data[first : last + 1], (*headers, ("Content-Range", f"bytes {first}-{last}/{size}"))
    )


def commits(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/commits/{revision}`, newest first, in pages."""
    repository = hub.access(request, where["kind"], where["repo"])
    listed = [
        {
            "id": one.oid,
            "title": one.title,
            "message": one.description,
            "authors": [{"user": "system" if one.parent is None else "tester"}],
            "date": moment(one.at),
        }
        for one in repository.history(where["revision"])
    ]
    return _page(hub, request, listed, hub.page_size)


def refs(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/refs?include_prs=`."""
    repository = hub.access(request, where["kind"], where["repo"])
    branches, proposals = [], []
    for name, oid in sorted(repository.branches.items()):
        if name.startswith("refs/"):
            proposals.append({"name": name, "ref": name, "targetCommit": oid})
        else:
            branches.append({"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid})
    extra = {"pullRequests": proposals} if request.flag("include_prs") else {}
    return json_answer({"branches": branches, "converts": [], "tags": [], **extra})


def whoami(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET /api/whoami-v2`."""
    token = hub.require(request)
    role = "write" if token in hub.tokens else "read"
    return json_answer(
        {
            "type": "user",
            "id": "0" * 24,
            "name": "tester",
            "fullname": "Tester",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}},
        }
    )


def auth_check(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/auth-check[/write]`."""
    if where["write"]:
        hub.access(request, where["kind"], where["repo"], "write")
    else:
        hub.content(request, where["kind"], where["repo"])
    return json_answer({})


def harnesses(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET /api/agent-harnesses`: the client asks for its user agent; there are none."""
    return json_answer({"standardEnvVars": [], "harnesses": {}})


def moment(at: datetime) -> str:
    """A time as the Hub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    sibling: dict[str, Any] = {"rfilename": path, "size": len(file.data), "blobId": file.blob_oid}
    if file.lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return sibling


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Every file and folder of a commit, by path."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        entry = {"type": "file", "oid": file.blob_oid, "size": len(file.data), "path": path}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
        entries[path] = entry
        for folder in _folders(path):
            oid = git_blob_oid(f"{commit.oid}/{folder}".encode())
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    return entries


def _folders(path: str) -> list[str]:
    """The folders a path lies in."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def _add_last_commits(repository: Repository, revision: str, entries: dict[str, dict[str, Any]]) -> None:
    for commit in repository.history(revision):
        said = {"id": commit.oid, "title": commit.title, "date": moment(commit.at)}
        for path in commit.changed:
            for place in (path, *_folders(path)):
                if place in entries:
                    entries[place].setdefault("lastCommit", said)


def _page(hub: Hub, request: Request, entries: Sequence[Any], size: int) -> Answer:
    start = int(request.first("cursor", "0"))
    page = entries[start : start + size]
    answer = json_answer(list(page))
    if start + size >= len(entries):
        return answer
    query = [(name, value) for name, values in request.query.items() if name != "cursor" for value in values]
    following = f"{hub.endpoint}{request.raw_path}?{urlencode([*query, ('cursor', start + size)])}"
    return answer._replace(headers=(*answer.headers, ("Link", f'<{following}>; rel="next"')))
