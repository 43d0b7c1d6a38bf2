"""The Hub as the archive uses it: few calls, each bounded in time, each failure one of `faults`.

Owns: the client (huggingface_hub is imported in this folder only) and the token.
Invariants: no call of this module waits longer than its time-outs, but for uploads of large files by Xet,
which the pusher's deadline ends; the token is read anew for each attempt, and is in no text that leaves.

Facts about huggingface_hub 2.4 that shape this module: its client has no time-out by default, and some calls
take away the one that it was given (hence the request hook); `create_commit` never tries its last step again,
but sleeps for as long as a 429 in an earlier step says (hence the response hook); an all-unchanged commit is
not sent; files that the repository's .gitignore names are left out without a word (hence `verify`).
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, get_token, set_client_factory
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from msgspec import Struct

from consumer.archive.answers import raise_throttled, translate
from consumer.archive.faults import Away, HubFault, Refused
from consumer.archive.parcels import Source
from consumer.settings import Hub as HubSettings

_CONNECT_TIMEOUT_S = 15.0
_PATHS_PER_CALL = 200
_BLOCK_BYTES = 1 << 20


class RemoteFile(Struct, frozen=True):
    """A file in a repository.

    Attributes:
        size: Bytes.
        oid: Its git hash: of the content, or of the pointer to it.
        sha256: Of the content, where it is a large file.
    """

    size: int
    oid: str
    sha256: str | None


class Snapshot(Struct, frozen=True):
    """A repository at one commit: its hash (None: nothing was ever committed) and all its files by path."""

    head: str | None
    files: Mapping[str, RemoteFile]


class Hub:
    """One Hub, with one token at a time. Not to be shared by threads."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self._ready: set[str] = set()
        self._token: str | None = None
        set_client_factory(self._client)

    def read_token(self) -> str | None:
        """The token as it is now; None: there is none.

        Raises:
            Away: the token file cannot be read; it may be about to change.
        """
        if not self._settings.token_file:
            return get_token()
        try:
            return Path(self._settings.token_file).read_text("ascii").strip() or None
        except (OSError, ValueError) as error:
            raise Away(f"hub.token_file {self._settings.token_file} cannot be read: {error}") from error

    def prepare(self, repo: str) -> None:
        """Make the repository and its branch ready to be written to.

        Raises:
            HubFault: as the module says; `Refused` also if it is public, and nobody said it may be.
        """
        if repo in self._ready:
            return
        wanted = self._settings
        with self._faults(repo):
            api = self._api()
            if not self._exists(api, repo):
                api.create_repo(repo, repo_type="dataset", private=not wanted.public, exist_ok=True)
            info = api.dataset_info(repo)
            if not info.private and not wanted.public:
                raise Refused(
                    f"{repo} is public, and --hub-public (hub.public) was not given: private is the default",
                    whole_repo=True,
                )
            if wanted.gated and info.gated != wanted.gated:
                api.update_repo_settings(repo, repo_type="dataset", gated=wanted.gated)
            if wanted.branch != "main":
                api.create_branch(repo, repo_type="dataset", branch=wanted.branch, exist_ok=True)
        self._ready.add(repo)

    def snapshot(self, repo: str) -> Snapshot:
        """The repository as it is now.

        Raises:
            HubFault: as the module says.
        """
        with self._faults(repo):
            api = self._api()
            head = api.dataset_info(repo, revision=self._settings.branch).sha
            if head is None:
                return Snapshot(None, {})
            # By its hash: the listing is of that commit, whatever comes meanwhile.
            tree = api.list_repo_tree(repo, repo_type="dataset", revision=head, recursive=True)
            return Snapshot(head, {one.path: _remote(one) for one in tree if isinstance(one, RepoFile)})

    def read(self, repo: str, path: str, snapshot: Snapshot) -> bytes:
        """A file of the repository as it is in `snapshot`.

        Raises:
            HubFault: as the module says.
        """
        with self.fetch(repo, path, snapshot) as local:
            return local.read_bytes()

    @contextlib.contextmanager
    def fetch(self, repo: str, path: str, snapshot: Snapshot) -> Iterator[Path]:
        """The same, as a file that goes when it is left.

        Raises:
            HubFault: as the module says.
        """
        with tempfile.TemporaryDirectory(prefix="evalsink-hub-") as folder:
            with self._faults(repo):
                local = Path(
                    self._api().hf_hub_download(
                        repo, path, repo_type="dataset", revision=snapshot.head, cache_dir=folder
                    )
                )
            yield local

    def commit(self, repo: str, additions: Mapping[str, Source], *, parent: str | None, title: str) -> str:
        """Put files into the repository in one commit, or none where they are all there already.

        Args:
            repo: The repository.
            additions: Path to content.
            parent: The commit that the additions were made for.
            title: First line of the message.

        Returns:
            The hash of the commit in which they are.

        Raises:
            HubFault: as the module says. After `Away` they may be there.
        """
        with self._faults(repo):
            done = self._api().create_commit(
                repo,
                # Made anew each time: the client changes them, and uses none twice.
                [CommitOperationAdd(path, source) for path, source in additions.items()],
                commit_message=title,
                repo_type="dataset",
                revision=self._settings.branch,
                parent_commit=parent,
            )
            return str(done.oid)

    def verify(
        self, repo: str, additions: Mapping[str, Source], head: str, hashes: Mapping[str, str]
    ) -> None:
        """Make sure that files are in a commit as they are here.

        Raises:
            Refused: one is not: the repository's .gitignore names it, or somebody removed it.
            HubFault: as the module says.
        """
        found: dict[str, RemoteFile] = {}
        paths = list(additions)
        with self._faults(repo):
            for start in range(0, len(paths), _PATHS_PER_CALL):
                asked = paths[start : start + _PATHS_PER_CALL]
                infos = self._api().get_paths_info(repo, asked, repo_type="dataset", revision=head)
                found |= {one.path: _remote(one) for one in infos if isinstance(one, RepoFile)}
        for path, source in additions.items():
            remote = found.get(path)
            if remote is None or not is_same(source, remote, hashes.get(path, "")):
                raise Refused(
                    f"{path} is not in commit {head} of {repo} as it was sent: does its .gitignore name it?",
                    whole_repo=False,
                )

    def propose(
        self,
        repo: str,
        changes: Mapping[str, Callable[[bytes | None], bytes]],
        *,
        title: str,
        description: str,
    ) -> str | None:
        """Open a pull request to a model's repository.

        Args:
            repo: The model's repository.
            changes: Path to what becomes of the file there (None: there is none).
            title: Names the request: there is never a second one of this title, open or closed.
            description: For people, Markdown.

        Returns:
            Its address; None if there is one already, or nothing would change.

        Raises:
            HubFault: as the module says.
        """
        with self._faults(repo):
            api = self._api()
            requests = api.get_repo_discussions(repo, discussion_type="pull_request")
            if any(known.title == title for known in requests):
                return None
            additions: dict[str, bytes] = {}
            for path, change in changes.items():
                before = None
                if api.file_exists(repo, path):
                    with tempfile.TemporaryDirectory(prefix="evalsink-hub-") as folder:
                        before = Path(api.hf_hub_download(repo, path, cache_dir=folder)).read_bytes()
                after = change(before)
                if after != before:
                    additions[path] = after
            if not additions:
                return None
            done = api.create_commit(
                repo,
                [CommitOperationAdd(path, content) for path, content in additions.items()],
                commit_message=title,
                commit_description=description,
                create_pr=True,
            )
            return done.pr_url

    def forget(self, repo: str) -> None:
        """Look at the repository again before the next commit: it may be gone."""
        self._ready.discard(repo)

    def _exists(self, api: HfApi, repo: str) -> bool:
        """Asked before making one: that call fails otherwise where it exists, or may only be written to."""
        try:
            api.dataset_info(repo)
        except RepositoryNotFoundError:
            # To somebody without a token all that is private, or nowhere, is the same.
            if self._token is None:
                raise
            return False
        else:
            return True

    def _api(self) -> HfApi:
        self._token = self.read_token()
        # False: never the token that the client would find by itself.
        return HfApi(endpoint=self._settings.endpoint or None, token=self._token or False)

    def _client(self) -> httpx2.Client:
        timeout = httpx2.Timeout(self._settings.timeout_s, connect=_CONNECT_TIMEOUT_S)

        def bound(request: httpx2.Request) -> None:
            # Calls that pass `timeout=None` on, as `dataset_info` does, would take the client's away.
            given = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {
                name: given.get(name) or bound for name, bound in timeout.as_dict().items()
            }

        return httpx2.Client(
            event_hooks={"request": [bound, _refuse_offline], "response": [raise_throttled]},
            follow_redirects=True,
            timeout=timeout,
        )

    @contextlib.contextmanager
    def _faults(self, repo: str) -> Iterator[None]:
        try:
            yield
        except HubFault:
            raise
        except Exception as error:  # noqa: BLE001 - five unrelated families, and whatever the next version brings
            fault = translate(error, self._token)
            if isinstance(fault, Refused) and fault.whole_repo:
                self.forget(repo)
            raise fault from None  # the original's text may hold what ours does not


def is_same(source: Source, remote: RemoteFile, sha256: str = "") -> bool:
    """Whether a file here and one there hold the same bytes.

    Args:
        source: Here.
        remote: There.
        sha256: Of `source`, hex, where it is known: saves reading a large file.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size != remote.size:
        return False
    if remote.sha256 is not None:
        return (sha256 or _digest(source)) == remote.sha256
    content = source.read_bytes() if isinstance(source, Path) else source
    return blob_oid(content) == remote.oid


def blob_oid(content: bytes) -> str:
    """Git's hash of a file, hex: sha1 of ``blob {size}``, NUL and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _refuse_offline(request: httpx2.Request) -> None:
    """What the client's own hook does, which is private: offline mode, and an id for the Hub's own logs."""
    from huggingface_hub.utils._http import hf_request_event_hook  # noqa: PLC0415 - private

    hf_request_event_hook(request)


def _remote(file: RepoFile) -> RemoteFile:
    return RemoteFile(file.size, file.blob_id, file.lfs.sha256 if file.lfs is not None else None)


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        digest.update(source)
        return digest.hexdigest()
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
