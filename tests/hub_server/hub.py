"""The Hub's state and what a test may do to it: repositories, tokens, faults, hooks, records of what was asked.

Owns who may see and change what. Invariants: a private repository does not exist for those without a good token; a bad
token is refused everywhere, also where none would do. Every good token owns every repository: namespaces are not modelled.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from tests.hub_server.exchange import Request, bad_request, refusal, repository_not_found
from tests.hub_server.faults import Faults, Hooks, Point
from tests.hub_server.repository import MAIN, Change, Commit, File, Repository
from tests.hub_server.uploads import Uploads
from tests.hub_server.xet import Cas

GOOD_TOKEN = "hf_good_token"
BAD_CREDENTIALS = "Invalid credentials in Authorization header"

Kind = Literal["dataset", "model"]
Right = Literal["read", "propose", "write"]


class Hub:
    """All of a Hub but HTTP."""

    def __init__(
        self,
        *,
        tokens: Iterable[str] = (GOOD_TOKEN,),
        xet: bool = True,
        xet_grants: bool = True,
        lfs_above_bytes: int = 10 << 20,
        multipart_above_bytes: int = 64 << 20,
        part_bytes: int = 16 << 20,
        page_size: int = 1000,
    ) -> None:
        """An empty Hub. Each argument is an attribute that may be changed while it runs.

        Args:
            tokens: Those that may do everything.
            xet: Whether large files go the Xet way; without, the token route answers 404 as self-hosted Hubs do.
            xet_grants: Whether xorbs go to signed addresses, as hf_xet 1.8 asks first, or straight to the store.
            lfs_above_bytes: Larger files are large files; so are those `.gitattributes` names, and binary ones.
            multipart_above_bytes: LFS objects above it are uploaded in parts.
            part_bytes: How large a part is.
            page_size: Entries per page of the tree, the commits and the discussions.
        """
        self.tokens = set(tokens)
        self.read_only_tokens: set[str] = set()
        """May read all that good ones may; writing is 403."""
        self.pr_only_tokens: set[str] = set()
        """May read, and open pull requests; committing to a branch is 403."""
        self.xet = xet
        self.xet_grants = xet_grants
        self.lfs_above_bytes = lfs_above_bytes
        self.multipart_above_bytes = multipart_above_bytes
        self.part_bytes = part_bytes
        self.page_size = page_size
        self.faults = Faults()
        self.requests: list[Request] = []
        """Everything that came in, oldest first, also what was cut."""
        self.endpoint = ""
        self.uploads = Uploads()
        self.cas = Cas()
        self.hooks = Hooks()
        self.lock = threading.RLock()
        self._repositories: dict[tuple[str, str], Repository] = {}

    @property
    def unknown(self) -> list[Request]:
        """Calls this Hub does not know; a test that ends without any was not fooled by a 404."""
        return [request for request in list(self.requests) if request.step == "unknown"]

    def seen(self, *steps: str) -> list[Request]:
        """The requests of these steps, oldest first."""
        return [request for request in list(self.requests) if request.step in steps]

    def on(
        self, step: str, callback: Callable[[Request], object], at: Point = "before"
    ) -> Callable[[], None]:
        """Call back when a request of this step is whole (`"before"`), was applied (`"after"`), or, for `commit` alone,
        holds the repository's commit lock (`"during"`). In the server's thread, so a callback may kill the client. The
        result takes the hook back.
        """
        return self.hooks.add(step, callback, at)

    def create(
        self,
        repo_id: str,
        kind: Kind = "dataset",
        *,
        private: bool = False,
        gated: Any = False,
        files: Mapping[str, bytes] | None = None,
    ) -> Repository:
        """Make a repository, with a commit of `files` if given (it is not in `Repository.commits`).

        Raises:
            Refusal: it exists.
        """
        with self.lock:
            if (kind, repo_id) in self._repositories:
                raise refusal(409, f"You already created this {kind} repo: {repo_id}")
            made = Repository(repo_id, kind, private=private, gated=gated)
            if files:
                made.apply(
                    MAIN,
                    Change("as it was", added={path: File(data) for path, data in files.items()}),
                    "test",
                )
                made.commits.clear()
            self._repositories[kind, repo_id] = made
            return made

    def commit(
        self, repo_id: str, files: Mapping[str, bytes], kind: Kind = "dataset", *, branch: str = MAIN
    ) -> Commit:
        """Commit as somebody else would, past HTTP, faults and the commit lock."""
        added = {path: File(data) for path, data in files.items()}
        return self.repo(repo_id, kind).apply(
            branch, Change("by somebody else", added=added), "somebody else"
        )

    def delete(self, repo_id: str, kind: Kind = "dataset") -> None:
        """Remove a repository, as its owner may on the website."""
        with self.lock:
            del self._repositories[kind, repo_id]

    def repo(self, repo_id: str, kind: Kind = "dataset") -> Repository:
        """The repository of this name.

        Raises:
            KeyError: there is none.
        """
        with self.lock:
            return self._repositories[kind, repo_id]

    @property
    def repos(self) -> list[str]:
        """Names of all repositories, of datasets and models alike, sorted."""
        with self.lock:
            return sorted(repo_id for _, repo_id in self._repositories)

    def authenticate(self, request: Request) -> str | None:
        """The token, or None if none came.

        Raises:
            Refusal: it is not a good one.
        """
        if not request.authorized:
            return None
        token = request.token
        if token is None or token not in self.tokens | self.read_only_tokens | self.pr_only_tokens:
            raise refusal(401, BAD_CREDENTIALS)
        return token

    def require(self, request: Request, right: Right = "read") -> str:
        """A token with this right.

        Raises:
            Refusal: there is none.
        """
        token = self.authenticate(request)
        if token is None:
            raise refusal(401, "Invalid username or password.")
        may_propose = right == "propose" and token in self.pr_only_tokens
        if right != "read" and token not in self.tokens and not may_propose:
            raise refusal(403, "You need a write token to do this (use a token with the `write` role)")
        return token

    def access(self, request: Request, kind: str, repo_id: str, right: Right = "read") -> Repository:
        """The repository, for a client that may do this to it.

        Raises:
            Refusal: it may not, or must not know.
        """
        token = self.authenticate(request)
        with self.lock:
            found = self._repositories.get((kind, repo_id))
        if found is None or (found.private and token is None):
            raise repository_not_found()
        if right != "read":
            self.require(request, right)
        return found

    def content(self, request: Request, kind: str, repo_id: str) -> Repository:
        """The repository, for a client that may read its files.

        Raises:
            Refusal: as `access`, or it is gated and the client unknown.
        """
        found = self.access(request, kind, repo_id)
        if found.gated and request.token is None:
            raise refusal(
                401, f"Access to {kind} {repo_id} is restricted. You must be authenticated.", "GatedRepo"
            )
        return found


def valid_repo_id(repo_id: str) -> str:
    """The name.

    Raises:
        Refusal: the Hub takes no such name.
    """
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repo_id, re.ASCII) or re.search(
        r"--|\.\.|(^|/)[.-]|[.-](/|$)", repo_id
    ):
        raise bad_request(f"Invalid repo name: {repo_id} - repo name includes an illegal character")
    return repo_id
