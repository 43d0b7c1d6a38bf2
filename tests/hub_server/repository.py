"""Repositories in memory: commits, branches, files, pull requests. As much of git as the Hub's API shows.

Owns what a repository holds; knows neither HTTP nor tokens. Invariants: a commit is whole or not there; every commit a
client asked for is in `commits`, also one that changed nothing, so that a test can say there are none such; a snapshot is
never changed once it is made. Thread-safe: writers hold `lock`, readers see snapshots.

Trade-off: each commit holds the whole table of its files (sharing their bytes), not a tree of differences. A test's
repository has hundreds of files, not millions.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from tests.hub_server.exchange import bad_request, entry_not_found, refusal, revision_not_found

MAIN = "main"

LFS_SUFFIXES = ("7z", "arrow", "bin", "bz2", "gz", "npy", "npz", "parquet", "tar", "tgz", "xz", "zip", "zst")
GIT_ATTRIBUTES = "".join(f"*.{one} filter=lfs diff=lfs merge=lfs -text\n" for one in LFS_SUFFIXES).encode()
"""What the first commit of a repository holds, shortened; no JSON kind is in the Hub's list either."""

STALE = "A commit has happened since. Please refresh and try again."
BUSY = "Another commit operation is in progress for this repository. Please try again later."


@dataclass(frozen=True)
class File:
    """A file's content, and whether git holds it or the large file storage."""

    data: bytes = field(repr=False)
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def blob_oid(self) -> str:
        """Git's name of the content; for a large file of its pointer."""
        return git_blob_oid(self.pointer if self.lfs else self.data)

    @property
    def oid(self) -> str:
        """What the client compares its own file with: sha256 of a large one, else git's."""
        return self.sha256 if self.lfs else self.blob_oid


@dataclass(frozen=True)
class Commit:
    """A commit. `added` and `deleted` are what was asked for; `changed` is what became different by it."""

    oid: str
    parent: str | None
    title: str
    description: str
    author: str = field(repr=False)
    """The token that asked for it."""
    branch: str
    added: tuple[str, ...]
    deleted: tuple[str, ...]
    changed: tuple[str, ...]
    at: datetime
    files: Mapping[str, File] = field(repr=False)

    @property
    def empty(self) -> bool:
        """Whether it changed nothing."""
        return not self.changed


@dataclass
class Discussion:
    """A pull request: they are all this Hub has. Tests may set `status`."""

    num: int
    title: str
    description: str
    author: str = field(repr=False)
    at: datetime
    status: Literal["open", "closed", "merged", "draft"] = "open"
    is_pull_request: bool = True

    @property
    def reference(self) -> str:
        """The revision that holds its commits."""
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class Change:
    """What a client wants committed, as the NDJSON says it."""

    title: str
    description: str = ""
    parent: str | None = None
    added: Mapping[str, File] = field(default_factory=dict)
    deleted_files: Sequence[str] = ()
    deleted_folders: Sequence[str] = ()


class Repository:
    """One dataset or model repository."""

    def __init__(
        self, repo_id: str, kind: Literal["dataset", "model"], *, private: bool = False, gated: Any = False
    ) -> None:
        self.id = repo_id
        self.kind = kind
        self.private = private
        self.gated: Literal["auto", "manual", False] = gated
        self.created_at = datetime.now(UTC)
        self.commits: list[Commit] = []
        """Every commit asked for, on any branch, oldest first; without the Hub's own first one."""
        self.discussions: list[Discussion] = []
        self.lfs: dict[str, bytes] = {}
        """Large files that were uploaded, by sha256; a commit refers to them."""
        self.lock = threading.RLock()
        self.committing = threading.Lock()
        """Held while a commit goes on: the Hub takes one at a time."""
        self._all: dict[str, Commit] = {}
        self._branches: dict[str, str] = {}
        self._record(
            MAIN, None, Change("initial commit", added={".gitattributes": File(GIT_ATTRIBUTES)}), "system"
        )

    @property
    def path(self) -> str:
        """Below the endpoint, for people: `datasets/org/name`, of a model the bare id."""
        return f"datasets/{self.id}" if self.kind == "dataset" else self.id

    @property
    def head(self) -> str:
        """The newest commit of `main`."""
        return self._branches[MAIN]

    @property
    def branches(self) -> dict[str, str]:
        """Name to newest commit, pull requests (`refs/pr/1`) among them."""
        with self.lock:
            return dict(self._branches)

    @property
    def empty_commits(self) -> list[Commit]:
        """Commits that changed nothing."""
        return [commit for commit in self.commits if commit.empty]

    def files(self, revision: str = MAIN) -> dict[str, bytes]:
        """Path to content, large files resolved. Without `.gitattributes`, which the Hub puts there itself."""
        found = self.commit(revision).files
        return {path: file.data for path, file in found.items() if path != ".gitattributes"}

    def commit(self, revision: str = MAIN) -> Commit:
        """The commit a branch, pull request or oid stands for.

        Raises:
            Refusal: there is none.
        """
        with self.lock:
            found = self._all.get(self._branches.get(revision, revision))
        if found is None:
            raise revision_not_found(revision)
        return found

    def history(self, revision: str = MAIN) -> list[Commit]:
        """Newest first, down to the Hub's own first commit."""
        found = [self.commit(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self._all[parent])
        return found

    def create_branch(self, name: str, start: str = MAIN) -> None:
        """Make a branch.

        Raises:
            Refusal: the name is taken or not for clients, or there is nothing to start from.
        """
        if name.startswith("refs/"):
            raise bad_request(f"Invalid reference for a branch: {name}")
        with self.lock:
            if name in self._branches:
                raise refusal(409, f"Reference already exists: {name}")
            self._branches[name] = self.commit(start).oid

    def delete_branch(self, name: str) -> None:
        """Remove a branch; its commits stay.

        Raises:
            Refusal: there is none, or it is `main`.
        """
        with self.lock:
            if name == MAIN:
                raise refusal(403, "Cannot delete the default branch")
            if self._branches.pop(name, None) is None:
                raise revision_not_found(name)

    def apply(self, branch: str, change: Change, author: str) -> Commit:
        """Commit to a branch.

        Raises:
            Refusal: no such branch, its head is not the parent asked for, or a file to delete is not there.
        """
        with self.lock:
            if branch not in self._branches:
                raise revision_not_found(branch)
            commit = self._record(branch, self.commit(branch), change, author)
            self.commits.append(commit)
            return commit

    def propose(self, change: Change, author: str) -> tuple[Discussion, Commit]:
        """Commit to a new pull request, started from the parent asked for or else from `main`.

        Raises:
            Refusal: as `apply`.
        """
        with self.lock:
            start = self.commit(change.parent or MAIN)
            number = len(self.discussions) + 1
            discussion = Discussion(number, change.title, change.description, author, datetime.now(UTC))
            commit = self._record(discussion.reference, start, change, author)
            self.discussions.append(discussion)
            self.commits.append(commit)
            return discussion, commit

    def _record(self, branch: str, before: Commit | None, change: Change, author: str) -> Commit:
        old = dict(before.files) if before else {}
        if change.parent is not None and before is not None and change.parent != before.oid:
            raise refusal(412, STALE)
        new, deleted = dict(old), list(change.deleted_files)
        for path in change.deleted_files:
            if new.pop(path, None) is None:
                raise entry_not_found(f"A file with this name doesn't exist: {path}")
        for folder in change.deleted_folders:
            inside = [path for path in new if path.startswith(folder.rstrip("/") + "/")]
            if not inside:
                raise entry_not_found(f"A folder with this name doesn't exist: {folder}")
            deleted += inside
            for path in inside:
                del new[path]
        new.update(change.added)
        differing = (path for path in {*old, *new} if old.get(path) != new.get(path))
        parent = before.oid if before else None
        commit = Commit(
            oid=_commit_oid(self.kind, self.id, len(self._all), parent, change.title, branch),
            parent=parent,
            title=change.title,
            description=change.description,
            author=author,
            branch=branch,
            added=tuple(change.added),
            deleted=tuple(deleted),
            changed=tuple(sorted(differing)),
            at=datetime.now(UTC),
            files=new,
        )
        self._all[commit.oid] = commit
        self._branches[branch] = commit.oid
        return commit


def git_blob_oid(content: bytes) -> str:
    """What git calls this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _commit_oid(*parts: object) -> str:
    """Forty hex digits that no other commit has: the number of commits so far is among the parts."""
    return hashlib.sha1("\0".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()
