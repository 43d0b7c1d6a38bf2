"""Receipts: written to the topic, read into a table that may be lost, damaged or of another life."""

import msgspec
import pytest

from consumer.intake.outbound import Outbound
from consumer.intake.receipts import TABLE_FILE, Receipts, ReceiptTable
from consumer.kafka_client import admin, topic_ids
from schemas.state import Receipt, TopicCut
from tests.conftest import Broker
from tests.observing import Sending, produce, read_all, until


def receipt(run_id, group="mine", status="complete"):
    return Receipt(
        group=group,
        run_id=run_id,
        status=status,
        samples=TopicCut("uuid-s", 41),
        aggregates=TopicCut("uuid-a", -1),
        stem="20260101_000000-01234567",
        results=f"model/{run_id}.json",
        sha256="ab" * 32,
    )


class Reader:
    """`Receipts` with a state folder, and what it took from the topic."""

    def __init__(self, broker, topic, state, group="mine"):
        self.broker, self.topic = broker, topic
        state.mkdir(exist_ok=True)
        connection = broker.connect()
        self.outbound = Outbound(connection)
        topic_id = {} if broker.embedded else topic_ids(connection, [topic])
        self.receipts = Receipts(
            connection,
            self.outbound,
            ReceiptTable(state),
            group=group,
            topic=topic,
            topic_id=topic_id.get(topic, ""),
        )
        self.taken = []
        take = self.receipts._take

        def noting(partition, key, value):
            self.taken.append((partition, key))
            take(partition, key, value)

        self.receipts._take = noting

    def write(self, partition, *receipts):
        """Write receipts as a worker does, acknowledged but not remembered."""
        tickets = [self.receipts.send(partition, one) for one in receipts]
        until(lambda: self.outbound.acknowledged() >= tickets[-1], "receipts acknowledged")

    def found(self, partition, *run_ids):
        return [self.receipts.find(partition, run_id) for run_id in run_ids]

    def close(self):
        if self.outbound is not None:
            self.receipts.close()
            self.outbound.close()
            self.outbound = None


@pytest.fixture
def topic(broker):
    return broker.topics().receipts


@pytest.fixture
def reader(broker, topic, tmp_path):
    """Makes readers on this test's topic, and closes them."""
    readers = []

    def make(folder="state", group="mine"):
        readers.append(Reader(broker, topic, tmp_path / folder, group))
        return readers[-1]

    yield make
    for one in readers:
        one.close()


def test_a_receipt_lies_in_the_partition_it_was_written_to_under_group_and_run(broker, topic, reader):
    reader().write(3, receipt("r/1 ש"))
    [record] = read_all(broker, topic)
    assert (3, "mine/r/1 ש".encode()) == (record.partition, record.key)
    assert receipt("r/1 ש") == msgspec.json.decode(record.value, type=Receipt)


def test_a_new_owner_finds_a_partitions_receipts_and_only_them(reader):
    writer = reader("writer")
    writer.write(1, receipt("a"), receipt("b"), receipt("a", status="incomplete"))
    writer.write(2, receipt("c"))
    assert [None] == writer.found(1, "a")
    owner = reader("owner")
    assert [None] == owner.found(1, "a")
    owner.receipts.catch_up(1)
    assert [receipt("a", status="incomplete"), receipt("b"), None] == owner.found(1, "a", "b", "c")
    assert [None, None] == owner.found(2, "a", "c")
    owner.receipts.catch_up(0)
    owner.receipts.catch_up(2)
    assert [receipt("c")] == owner.found(2, "c")


def test_only_new_receipts_are_read_again_also_after_a_restart(reader):
    first = reader()
    first.write(1, receipt("a"))
    first.receipts.catch_up(1)
    first.write(1, receipt("b"))
    first.receipts.catch_up(1)
    assert [(1, b"mine/a"), (1, b"mine/b")] == first.taken
    first.write(1, receipt("c"))
    first.receipts.remember(1, receipt("c"))
    first.close()
    second = reader()
    assert [receipt("a"), receipt("b"), receipt("c")] == second.found(1, "a", "b", "c")
    second.receipts.catch_up(1)
    assert [(1, b"mine/c")] == second.taken


def test_a_receipt_binds_its_own_group_alone(reader):
    reader("one", group="mine").write(1, receipt("a"))
    other = reader("two", group="min")
    other.write(1, receipt("b", group="min"))
    other.receipts.catch_up(1)
    assert [None, receipt("b", group="min")] == other.found(1, "a", "b")
    other.close()
    # The same folder for another group: what the table holds is none of its business.
    again = reader("two", group="mine")
    again.receipts.catch_up(1)
    assert [receipt("a"), None] == again.found(1, "a", "b")


def test_what_is_no_receipt_is_passed_over(broker, topic, reader):
    produce(
        broker,
        [
            Sending(topic, b"mine/a", b"not JSON", 1),
            Sending(topic, b"mine/b", b'{"group":"mine"}', 1),
            Sending(topic, b"mine/c", None, 1),
            Sending(topic, b"\xff", b"\xff", 1),
            Sending(topic, b"", b"{}", 1),
        ],
    )
    mine = reader()
    mine.write(1, receipt("d"))
    mine.receipts.catch_up(1)
    assert [None, None, None, receipt("d")] == mine.found(1, "a", "b", "c", "d")


@pytest.mark.parametrize("damage", ["torn", "no database", "a page in the middle"])
def test_a_damaged_table_is_read_anew(embedded_broker, tmp_path, damage):
    broker = Broker(embedded_broker.bootstrap, embedded=True)
    topic = broker.topics().receipts
    state = tmp_path / "state"
    expected = [receipt(f"run-{number:04}") for number in range(200)]
    first = Reader(broker, topic, state)
    first.write(1, *expected)
    first.receipts.catch_up(1)
    table = state / TABLE_FILE
    first.close()
    content = table.read_bytes()
    if damage == "torn":
        table.write_bytes(content[: len(content) // 2])
    elif damage == "a page in the middle":
        assert len(content) > 6 * 4096
        table.write_bytes(content[: 4 * 4096] + b"\xff" * 4096 + content[5 * 4096 :])
    else:
        table.write_bytes(b"this is no database" * 1000)
    second = Reader(broker, topic, state)
    second.receipts.catch_up(1)
    assert expected == second.found(1, *(one.run_id for one in expected))
    assert 200 == len(second.taken)
    second.close()


@pytest.mark.kafka
def test_receipts_of_a_topic_made_anew_are_read_anew_and_the_old_ones_forgotten(real, tmp_path):
    topic = real.topics().receipts
    first = Reader(real, topic, tmp_path)
    first.write(1, receipt("a"), receipt("b"))
    first.receipts.catch_up(1)
    first.close()
    with admin(real.connect()) as client:
        client.delete_topics([topic])
        until(lambda: topic not in client.list_topics(), "the topic gone")
        client.create_topics({topic: {"num_partitions": 4}}, wait_for_metadata=True)
    second = Reader(real, topic, tmp_path)
    second.write(1, receipt("x"), receipt("y"), receipt("z"))
    second.receipts.catch_up(1)
    assert [None, None, receipt("x"), receipt("z")] == second.found(1, "a", "b", "x", "z")
    second.close()
