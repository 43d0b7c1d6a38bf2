"""The calls that change a repository: create, validate, preupload, commit, branches, settings.

Owns the NDJSON of a commit and which file is a large one. Invariants: one commit of a repository at a time, a second is
409 at once and never waits; what is refused changed nothing. Not modelled: `gitIgnore` of preupload (nothing is ignored)
and copies of large files between repositories.
"""

import base64
import binascii
import fnmatch
import json
from typing import Any

from tests.hub_server.card import front_matter, mistakes
from tests.hub_server.exchange import Answer, Refusal, Request, Where, bad_request, json_answer, refusal
from tests.hub_server.hub import Hub, Kind, Right, valid_repo_id
from tests.hub_server.repository import BUSY, Change, File, Repository


def create(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /api/repos/create`. Existing is 409 with the url that `create_repo(exist_ok=True)` reads."""
    hub.require(request, "write")
    wanted = request.json()
    kind: Kind = wanted.get("type") or "model"
    if kind not in {"dataset", "model"}:
        raise bad_request(f"this Hub has no {kind} repositories")
    repo_id = valid_repo_id(f"{wanted.get('organization') or 'tester'}/{wanted['name']}")
    private = wanted.get("visibility") == "private" or wanted.get("private") is True
    try:
        made = hub.create(repo_id, kind, private=private)
    except Refusal as exists:
        url = f"{hub.endpoint}/{hub.repo(repo_id, kind).path}"
        raise Refusal(json_answer(json.loads(exists.answer.body) | {"url": url}, 409)) from exists
    return json_answer({"url": f"{hub.endpoint}/{made.path}", "name": repo_id, "id": made.head[:24]})


def validate(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST /api/validate-yaml`."""
    hub.authenticate(request)
    readme = str(request.json().get("content", ""))
    errors = mistakes(readme)
    warnings = [] if front_matter(readme)[0] or errors else ["empty or missing yaml metadata in repo card"]
    said = {
        "errors": [{"message": one} for one in errors],
        "warnings": [{"message": one} for one in warnings],
    }
    return json_answer(said, 400 if errors else 200)


def preupload(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST …/preupload/{revision}`: how each file is to be sent, and what is there under its name."""
    right: Right = "propose" if request.flag("create_pr") else "write"
    repository = hub.access(request, where["kind"], where["repo"], right)
    head = repository.commit(where["revision"])
    patterns = _lfs_patterns(head.files.get(".gitattributes"))
    # The simple patterns of git, as those of .gitattributes; no `!`, no folders.
    ignored = head.files[".gitignore"].data.decode().split() if ".gitignore" in head.files else []
    answers = []
    for wanted in request.json()["files"]:
        path, size = wanted["path"], wanted["size"]
        sample = base64.b64decode(wanted.get("sample", ""))
        large = size > hub.lfs_above_bytes or b"\0" in sample or _matches(path, patterns)
        there = head.files.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": _matches(path, ignored),
            }
            | ({"oid": there.oid} if there else {})
        )
    return json_answer({"files": answers, "commitOid": head.oid})


def commit(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST …/commit/{revision}`, with `?create_pr=1` to a new pull request."""
    propose = request.flag("create_pr")
    repository = hub.access(request, where["kind"], where["repo"], "propose" if propose else "write")
    change = _change(hub, repository, request)
    if not repository.committing.acquire(blocking=False):
        raise refusal(409, BUSY)
    try:
        hub.hooks.run(request, "during")
        author = request.token or ""
        extra = {}
        if propose:
            discussion, made = repository.propose(change, author)
            extra["pullRequestUrl"] = f"{hub.endpoint}/{repository.path}/discussions/{discussion.num}"
        else:
            made = repository.apply(where["revision"], change, author)
    finally:
        repository.committing.release()
    url = f"{hub.endpoint}/{repository.path}/commit/{made.oid}"
    return json_answer({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": "", **extra})


def create_branch(hub: Hub, request: Request, where: Where) -> Answer:
    """`POST …/branch/{branch}`."""
    repository = hub.access(request, where["kind"], where["repo"], "write")
    repository.create_branch(where["revision"], request.json().get("startingPoint") or "main")
    return json_answer({}, 201)


def delete_branch(hub: Hub, request: Request, where: Where) -> Answer:
    """`DELETE …/branch/{branch}`."""
    hub.access(request, where["kind"], where["repo"], "write").delete_branch(where["revision"])
    return json_answer({})


def settings(hub: Hub, request: Request, where: Where) -> Answer:
    """`PUT …/settings`: gated and visibility."""
    repository = hub.access(request, where["kind"], where["repo"], "write")
    wanted = request.json()
    with repository.lock:
        if "gated" in wanted:
            if wanted["gated"] not in ("auto", "manual", False):
                raise bad_request('"gated" must be one of [auto, manual, false]')
            repository.gated = wanted["gated"]
        if "visibility" in wanted:
            repository.private = wanted["visibility"] == "private"
        elif "private" in wanted:
            repository.private = bool(wanted["private"])
    return json_answer({})


def _lfs_patterns(attributes: File | None) -> list[str]:
    lines = attributes.data.decode().splitlines() if attributes else []
    return [line.split()[0] for line in lines if "filter=lfs" in line and not line.startswith("#")]


def _matches(path: str, patterns: list[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in one else name, one) for one in patterns)


def _change(hub: Hub, repository: Repository, request: Request) -> Change:
    header: dict[str, Any] | None = None
    added: dict[str, File] = {}
    files: list[str] = []
    folders: list[str] = []
    for number, line in enumerate(request.body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                added[value["path"]] = _regular(hub, value)
            elif key == "lfsFile":
                added[value["path"]] = _large(repository, value)
            elif key == "deletedFile":
                files.append(value["path"])
            elif key == "deletedFolder":
                folders.append(value["path"])
            else:
                raise bad_request(f"line {number}: unknown key {key}")
        except (ValueError, KeyError, TypeError) as error:
            raise bad_request(f"line {number} of the commit is not as it should be: {error!r}") from error
    if header is None or not header.get("summary"):
        raise bad_request("the commit has no header with a summary")
    return Change(
        header["summary"], header.get("description", ""), header.get("parentCommit"), added, files, folders
    )


def _regular(hub: Hub, value: dict[str, Any]) -> File:
    try:
        data = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise bad_request(f"{value['path']}: the content is not base64") from error
    if len(data) > hub.lfs_above_bytes:
        raise bad_request(
            "Your push was rejected because it contains files larger than "
            f"{hub.lfs_above_bytes} bytes. Offending files: {value['path']}"
        )
    if value["path"] == "README.md" and (errors := mistakes(data.decode(errors="replace"))):
        raise bad_request("Invalid metadata in README.md.\n" + "\n".join(errors))
    return File(data)


def _large(repository: Repository, value: dict[str, Any]) -> File:
    data = repository.lfs.get(value["oid"])
    if data is None or value.get("size", len(data)) != len(data):
        raise bad_request(
            "Your push was rejected because an LFS pointer pointed to a file that does not exist. "
            f"Offending file: {value['path']}"
        )
    return File(data, lfs=True)
