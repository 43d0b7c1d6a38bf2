"""A Hugging Face Hub for tests: the calls of `create_commit`, reading and Xet over HTTP on loopback, with faults on demand.

The real `huggingface_hub`, `hf_xet` and `datasets` talk to it; none of them is ever mocked.

    with HubServer() as hub:
        api = HfApi(endpoint=hub.endpoint, token=GOOD_TOKEN)
        api.create_repo("org/name", repo_type="dataset")
        api.create_commit("org/name", operations, commit_message="…", repo_type="dataset")
        hub.repo("org/name").files(), .commits, .head, .private, .gated, .discussions, .empty_commits
        hub.requests, hub.seen("commit"), hub.unknown
        hub.faults.add("commit", status(500), at="after"); hub.on("lfs-put", hook); hub.down(); hub.up()

`hub` is what a test may do, `faults` what can go wrong, `routes` the calls and the names of the steps; `repository` holds the
contents, `writing`, `reading`, `large_files`, `discussions` and `xet_calls` answer, `server` speaks HTTP. By hand:
`python -m tests.hub_server --port 8080`.

A client that uses Xet keeps what it knows of a store on disk: give it a `HF_HOME` of the test. `HF_ENDPOINT` and
`HF_HUB_DISABLE_XET` are read when huggingface_hub is imported: set them for a subprocess.
"""

from tests.hub_server.exchange import Answer, Request
from tests.hub_server.faults import (
    ANY,
    COMMIT_LIMIT,
    CUT,
    CutBody,
    Gate,
    Hang,
    Respond,
    commit_limit,
    proxy_page,
    rate_limited,
    retry_after,
    status,
)
from tests.hub_server.hub import GOOD_TOKEN
from tests.hub_server.repository import Commit, Repository
from tests.hub_server.routes import STEPS
from tests.hub_server.server import HubServer

__all__ = [
    "ANY",
    "COMMIT_LIMIT",
    "CUT",
    "GOOD_TOKEN",
    "STEPS",
    "Answer",
    "Commit",
    "CutBody",
    "Gate",
    "Hang",
    "HubServer",
    "Repository",
    "Request",
    "Respond",
    "commit_limit",
    "proxy_page",
    "rate_limited",
    "retry_after",
    "status",
]
