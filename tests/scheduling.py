"""Which tests run in one process, where a session has several (`-n`).

Each test by itself goes to whoever is free, but for what shares something dear: the tests of a file with a fixture of
module scope, those that pause a broker, and those on the cluster with users and rights. The order is that of collection,
not xdist's own by number.

The controlling process knows tests by name alone, so a file is recognised by its text. (xdist's marks of groups do not reach
it with pytest 9.)
"""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


@cache
def shared_by(file: str) -> str:
    """What all tests of a file share, by a name; empty if there is nothing."""
    text = (ROOT / file).read_text("utf-8")
    for fixture in ("pausable_kafka", "guarded_kafka"):
        if re.search(rf"\b{fixture}\b", text):
            return fixture
    return file if 'scope="module"' in text else ""


class Scheduling(LoadScopeScheduling):
    """Of tests that share something, all go to one process."""

    def __init__(self, config, log):
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid):
        return shared_by(nodeid.partition("::")[0]) or nodeid
