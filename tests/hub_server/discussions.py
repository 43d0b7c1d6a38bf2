"""Pull requests as the client reads them: the list in pages, and one with its commits. They are made by `writing.commit`."""

from typing import Any

from tests.hub_server.exchange import Answer, Request, Where, json_answer, refusal
from tests.hub_server.hub import Hub
from tests.hub_server.reading import moment
from tests.hub_server.repository import Discussion, Repository

_AUTHOR = {"name": "tester", "type": "user"}


def listed(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/discussions?p=&type=&status=&author=`."""
    repository = hub.access(request, where["kind"], where["repo"])
    kind, status = request.first("type", "all"), request.first("status", "all")
    found = [
        one
        for one in reversed(repository.discussions)
        if kind in ("all", "pull_request" if one.is_pull_request else "discussion")
        and (status == "all" or (status == "open") == (one.status in ("open", "draft")))
        and request.first("author", "tester") == "tester"
    ]
    start = int(request.first("p", "0")) * hub.page_size
    page = found[start : start + hub.page_size]
    said = [_summary(repository, one) for one in page]
    return json_answer({"discussions": said, "count": len(found), "start": start})


def details(hub: Hub, request: Request, where: Where) -> Answer:
    """`GET …/discussions/{number}?diff=1`; the diff names files only."""
    repository = hub.access(request, where["kind"], where["repo"])
    number = int(where["number"])
    if not 0 < number <= len(repository.discussions):
        raise refusal(404, "Discussion not found")
    discussion = repository.discussions[number - 1]
    commits = [
        one
        for one in reversed(repository.history(discussion.reference))
        if one.branch == discussion.reference
    ]
    events: list[dict[str, Any]] = [
        {
            "id": one.oid[:24],
            "type": "commit",
            "createdAt": moment(one.at),
            "author": _AUTHOR,
            "data": {"subject": one.title, "oid": one.oid},
        }
        for one in commits
    ]
    changed = sorted({path for one in commits for path in one.changed})
    return json_answer(
        {
            **_summary(repository, discussion),
            "events": events,
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
            "diff": "".join(f"diff --git a/{path} b/{path}\n" for path in changed),
        }
    )


def _summary(repository: Repository, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "author": _AUTHOR,
        "createdAt": moment(discussion.at),
        "isPullRequest": discussion.is_pull_request,
        "repo": {"name": repository.id, "type": repository.kind},
    }
