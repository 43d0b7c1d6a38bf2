"""LFS uploads under way: signed addresses as keys, parts as they arrive.

Invariants: an object is in its repository once its bytes are there and their sha256 is its name, never before; a key needs no
token, as S3's signed addresses do not, and stays good, so that a client may send a part again.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass, field

from tests.hub_server.exchange import bad_request, refusal
from tests.hub_server.repository import Repository


@dataclass
class Upload:
    """One object that was announced."""

    repository: Repository
    oid: str
    size: int
    parts: dict[int, bytes] = field(default_factory=dict, repr=False)

    def finish(self, data: bytes) -> None:
        """Put the object into the repository.

        Raises:
            Refusal: these are other bytes than were announced.
        """
        if len(data) != self.size or hashlib.sha256(data).hexdigest() != self.oid:
            raise bad_request(
                f"the content of {self.oid} does not have that sha256, or not {self.size} bytes"
            )
        self.repository.lfs[self.oid] = data


class Uploads:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    def open(self, repository: Repository, oid: str, size: int) -> str:
        """Announce one; its key."""
        key = secrets.token_hex(8)
        with self._lock:
            self._uploads[key] = Upload(repository, oid, size)
        return key

    def find(self, key: str) -> Upload:
        """The upload of this key.

        Raises:
            Refusal: there is none; as S3 says it of an address that ran out.
        """
        with self._lock:
            found = self._uploads.get(key)
        if found is None:
            raise refusal(403, "Request has expired")
        return found
