"""Reading from a broker's socket in large pieces: the same bytes, and the same words where there are none."""

import contextlib
import socket
from types import SimpleNamespace

import pytest
from kafka.net import manager
from kafka.net.transport import KafkaTCPTransport

from consumer.kafka_client import connect
from consumer.kafka_receiving import PIECE_BYTES, larger


@pytest.fixture
def ends():
    """A transport that reads, of the kind asked for, and who writes to it."""
    with contextlib.ExitStack() as stack:

        def make(kind):
            ours, theirs = socket.socketpair()
            for one in (ours, theirs):
                stack.callback(one.close)
            ours.setblocking(False)
            nobody = SimpleNamespace(call_soon=lambda *_: None, register_event=lambda *_: None)
            return kind(nobody, ours), theirs

        yield make


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_large_answer_comes_whole(ends, size):
    transport, theirs = ends(larger(KafkaTCPTransport))
    sent = bytes(number % 251 for number in range(size))
    theirs.sendall(sent)
    assert (sent, None) == transport._sock_recv()


@pytest.mark.parametrize("end", ["nothing came", "closed", "broken", "gone"])
def test_where_there_is_no_data_it_says_what_kafka_python_says(ends, end):
    told = []
    for kind in (KafkaTCPTransport, larger(KafkaTCPTransport)):
        transport, theirs = ends(kind)
        if end == "closed":
            theirs.close()
        elif end == "broken":
            transport._sock.close()
        elif end == "gone":
            transport._sock = None
        content, error = transport._sock_recv()
        told.append((content, type(error), str(error)))
    assert told[0] == told[1]
    assert told[0][0] == b""
    assert (told[0][1] is type(None)) == (end == "nothing came")


def test_it_stands_in_front_once_and_leaves_an_unknown_client_as_it_is():
    once = larger(KafkaTCPTransport)
    assert issubclass(once, KafkaTCPTransport)
    assert larger(once) is once
    unknown = type("Transport", (), {})
    assert larger(unknown) is unknown


def test_every_connection_has_it(broker):
    connect(broker.bootstrap)
    assert manager.KafkaTCPTransport is larger(manager.KafkaTCPTransport)
