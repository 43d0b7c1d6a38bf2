"""Xet's content store: tokens, xorbs, shards; a file is whole again as soon as its shard is there.

Owns what was uploaded. Invariant: a shard is taken only if each of its files can be put together from xorbs that are there
and has the sha256 the shard claims; then the file is a large file of the repository its token was for.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass
from typing import NamedTuple

from tests.hub_server.exchange import bad_request, refusal
from tests.hub_server.repository import Repository
from tests.hub_server.xet_formats import FormatError, ShardFile, read_shard, read_xorb


class Pass(NamedTuple):
    """What a token of the store is good for."""

    repository: Repository
    write: bool


@dataclass
class Grant:
    """Leave to upload one xorb to an address of its own."""

    xorb: str
    length: int
    content: bytes | None = None


class Cas:
    """The store. Global, as the real one: a xorb may serve files of many repositories."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes: dict[str, Pass] = {}
        self._grants: dict[str, Grant] = {}
        self.xorbs: dict[str, list[bytes]] = {}
        """The chunks of each xorb, by the xorb's hash."""
        self.files: dict[str, bytes] = {}
        """Every file that arrived, by its sha256."""

    def issue(self, repository: Repository, *, write: bool) -> str:
        """A token for this repository."""
        token = f"xet_{secrets.token_hex(12)}"
        with self._lock:
            self._passes[token] = Pass(repository, write)
        return token

    def admit(self, token: str | None, *, write: bool) -> Repository:
        """The repository of a token.

        Raises:
            Refusal: no such token, or it is for reading only.
        """
        with self._lock:
            found = self._passes.get(token or "")
        if found is None:
            raise refusal(401, "Unauthorized")
        if write and not found.write:
            raise refusal(403, "Forbidden")
        return found.repository

    def grant(self, name: str, length: int) -> str:
        """Leave to upload a xorb; its key."""
        key = secrets.token_hex(8)
        with self._lock:
            self._grants[key] = Grant(name, length)
        return key

    def fill(self, key: str, content: bytes) -> None:
        """What came to the address of a grant.

        Raises:
            Refusal: no such grant, or it was for another length.
        """
        with self._lock:
            found = self._grants.get(key)
            if found is None or found.length != len(content):
                raise refusal(
                    403, "Request has expired" if found is None else "The length is not the signed one"
                )
            found.content = content

    def uploaded(self, key: str) -> bytes:
        """What was uploaded with a grant.

        Raises:
            Refusal: nothing was.
        """
        with self._lock:
            found = self._grants.get(key)
        if found is None or found.content is None:
            raise refusal(404, "Not Found")
        return found.content

    def lose_uploads(self) -> None:
        """Forget what came to grants and was not committed; a test's accident."""
        with self._lock:
            for one in self._grants.values():
                one.content = None

    def add_xorb(self, name: str, content: bytes) -> bool:
        """Take a xorb; whether it is new.

        Raises:
            Refusal: it cannot be read.
        """
        try:
            chunks = read_xorb(content)
        except FormatError as error:
            raise bad_request(f"xorb {name}: {error}") from error
        with self._lock:
            new = name not in self.xorbs
            self.xorbs[name] = chunks
        return new

    def add_shard(self, repository: Repository, content: bytes) -> list[ShardFile]:
        """Take a shard: its files are there from now on.

        Raises:
            Refusal: it cannot be read, or a file cannot be put together.
        """
        try:
            described = read_shard(content)
        except FormatError as error:
            raise bad_request(f"shard: {error}") from error
        whole = [self._put_together(one) for one in described]
        with self._lock:
            for name, data in whole:
                self.files[name] = data
                repository.lfs[name] = data
        return described

    def _put_together(self, file: ShardFile) -> tuple[str, bytes]:
        parts = []
        for term in file.terms:
            with self._lock:
                chunks = self.xorbs.get(term.xorb)
            if chunks is None or term.end > len(chunks):
                raise bad_request(
                    f"file {file.hash}: xorb {term.xorb} or its chunk {term.end - 1} is not there"
                )
            part = b"".join(chunks[term.first : term.end])
            if len(part) != term.size:
                raise bad_request(f"file {file.hash}: a term has {len(part)} bytes, not {term.size}")
            parts.append(part)
        data = b"".join(parts)
        name = hashlib.sha256(data).hexdigest()
        if file.sha256 != name:
            raise bad_request(f"file {file.hash}: the sha256 is {name}, the shard says {file.sha256}")
        return name, data
