"""A state folder on a disk without room, when a worker or its pusher starts: a sentence, and nothing is thrown away."""

import json
import subprocess
import sys

import msgspec
import pytest

from consumer.archive.outbox import Outbox
from consumer.archive.process import Order
from consumer.intake.receipts import ReceiptTable
from consumer.settings import Hub
from tests.hand_over.processes import environment
from tests.observing import room_for


@pytest.mark.parametrize("table", [ReceiptTable, Outbox])
def test_a_table_that_cannot_be_made_is_an_error_of_the_disk(tmp_path, table):
    with room_for(0), pytest.raises(OSError, match=r"\.sqlite"):
        table(tmp_path)
    table(tmp_path).close()


def test_a_pusher_whose_state_folder_is_gone_ends_with_a_sentence(tmp_path):
    # As when its worker was killed and the folder removed before it had begun.
    order = msgspec.json.encode(Order(str(tmp_path / "gone"), str(tmp_path), Hub(repo="org/name")))
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.pushing"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as pusher:
        pusher.stdin.write(order + b"\n")
        pusher.stdin.flush()
        # Its standard input stays open: it does not end because nobody wants it any more.
        said = pusher.stderr.read().decode()
        assert 1 == pusher.wait(30)
    [line] = said.splitlines()
    assert {"action": "outbox_failed", "level": "error"}.items() <= json.loads(line).items()
