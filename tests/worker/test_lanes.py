"""Rows taken in bulk, by the worker's own loop, against the same records taken one by one."""

import itertools
import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.runs.lanes import LANES_MAX
from consumer.settings import Settings
from consumer.settings import Topics as Names
from consumer.vocabulary import Record
from consumer.worker import Worker
from schemas.events import RunEnded, RunStarted, Sample, Samples, encode
from schemas.state import PartitionState
from tests.runs.logs import APART, TOGETHER, Reader, crowded_logs, homes, interleave, logs, read, record_of


class BulkReader(Reader):
    """A `Reader` whose records go through the worker's loop, a poll at a time."""

    def __init__(self, home, topics=APART, **more):
        super().__init__(home, topics, **more)
        self.letters = []
        names = Names(samples=topics.samples, aggregates=topics.aggregates)
        self.book.partitions[0] = PartitionState(0, positions=dict.fromkeys(names.inputs, 0))
        nobody = SimpleNamespace()
        self.worker = Worker(
            Settings(topics=names),
            source=nobody,
            book=self.book,
            outbound=SimpleNamespace(is_full=False),
            dead_letters=SimpleNamespace(send=lambda *letter: self.letters.append(letter)),
            receipts=SimpleNamespace(find=lambda *_: None),
            closing=nobody,
            expiry=nobody,
            saving=nobody,
            topic_ids={},
            clock=lambda: 0.0,
        )
        self.worker._owned.add(0)

    def poll(self, *records):
        self.worker._take(records)

    def finish(self):
        for record, reason, *_ in self.letters:
            if reason == "late":
                self.refused[record.key.decode(), record.topic, record.offset] = reason
        return super().finish()


@given(
    topics=st.sampled_from([APART, TOGETHER]),
    data=st.data(),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    comes_again=st.booleans(),
)
def test_in_polls_of_any_size_the_same_is_published_and_counted_as_one_by_one(
    topics, data, sizes, comes_again
):
    log = interleave(
        data.draw(logs(topics) | crowded_logs(topics)),
        topics,
        random.Random(data.draw(st.integers(0, 99), label="order")),
    )
    with homes() as home:
        expected = read(log, home(), topics)
        reader = BulkReader(home(), topics)
        records = [record_of(sent) for sent in log]
        size = itertools.cycle(sizes)
        while records:
            poll, records = records[: (count := next(size))], records[count:]
            reader.poll(*poll)
            if comes_again:
                reader.poll(*poll)
        assert expected == reader.finish()
        samples = [sent.event for sent in log if sent.event["type"] == "samples"]
        late = [one for one, reason, *_ in reader.letters if reason == "late" and b'"samples":[' in one.value]
        late_rows = sum(len(json.loads(one.value)["samples"]) for one in late)
        counts = reader.worker.counts
        assert counts.rows + counts.rejected + late_rows == sum(len(event["samples"]) for event in samples)


def rows(*doc_ids, run_id="r", row=b'{"v":1}', **more):
    samples = [Sample(doc_id, row, {"acc": 1.0}) for doc_id in doc_ids]
    event = Samples(run_id, "mme", [], **more)
    return encode(event).replace(
        b'"samples":[]',
        b'"samples":[%b]'
        % b",".join(
            b'{"doc_id":%d,"row":%b,"scores":{"acc":1.0}}' % (one.doc_id, one.row) for one in samples
        ),
    )


class Log:
    """Records of one partition, one after the other."""

    def __init__(self):
        self.offset = 0

    def record(self, value, key=b"r", topic="samples"):
        self.offset += 1
        return Record(topic, 0, self.offset - 1, 1_700_000_000_000 + self.offset, key, value)


@pytest.fixture
def reader(tmp_path):
    return BulkReader(tmp_path)


@pytest.fixture
def log():
    return Log()


def reasons(reader):
    return [(record.offset, reason) for record, reason, *_ in reader.letters]


def live_rows(reader):
    run = reader.book.find(0, "r")
    reader.book.spool.flush()
    return reader.book.spool.task_files(0, run, 0).rows.read_bytes()


@pytest.mark.parametrize(
    ("row", "reason"),
    [(b"[1]", "bad-rows"), (b'{"v":"\xff"}', "bad-rows"), (b"7", "bad-rows")],
    ids=["no object", "no UTF-8", "a number"],
)
def test_a_bad_row_among_rows_taken_in_bulk_is_rejected_alone(reader, log, row, reason):
    reader.poll(log.record(rows(0)), log.record(rows(1)), log.record(rows(2, row=row)), log.record(rows(3)))
    assert [(2, reason)] == reasons(reader)
    assert b'{"v":1}\n' * 3 == live_rows(reader)
    assert (3, 1) == (reader.worker.counts.rows, reader.worker.counts.rejected)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_row_on_several_lines_among_rows_taken_in_bulk_becomes_one_line(reader, log, end):
    row = b'{%b"v":%b2}' % (end, end)
    reader.poll(log.record(rows(0)), log.record(rows(1)), log.record(rows(2, row=row)))
    assert b'{"v":1}\n{"v":1}\n{"v":2}\n' == live_rows(reader)


def test_a_record_under_another_key_is_a_dead_letter_although_its_run_has_a_lane(reader, log):
    reader.poll(log.record(rows(0)), log.record(rows(1), key=b"s"), log.record(rows(2), key=None))
    assert [(1, "key-mismatch"), (2, "key-mismatch")] == reasons(reader)


def test_a_record_that_comes_again_is_taken_once(reader, log):
    first, second, third = (log.record(rows(number)) for number in range(3))
    reader.poll(first, second, second, third, first)
    reader.poll(second, third)
    assert b'{"v":1}\n' * 3 == live_rows(reader)
    assert 3 == reader.book.partitions[0].positions["samples"]


def test_the_row_that_completes_a_run_decides_its_cut_and_the_next_is_late(reader, log):
    reader.poll(
        log.record(rows(0)),
        log.record(rows(1)),
        log.record(encode(RunEnded("r", samples={"mme": 4}))),
        log.record(rows(2)),
        log.record(rows(3)),
        log.record(rows(4)),
    )
    assert 4 == reader.book.find(0, "r").samples_cut.offset
    assert [(5, "late")] == reasons(reader)


def test_a_row_that_ends_a_shards_shortness_leaves_no_lane_to_another_shard_that_is_found_short(reader, log):
    def row(doc_id, shard):
        return log.record(rows(doc_id, shard=shard, num_shards=2))

    def end(shard, count):
        return log.record(encode(RunEnded("r", shard=shard, num_shards=2, samples={"mme": count})))

    reader.poll(row(0, 0), end(0, 2), row(0, 0), end(1, 1))
    reader.poll(row(0, 0))  # twice the same: as many rows as stated, one sample too few
    reader.poll(row(5, 1))  # both may be done now: the first is counted, and found short
    assert reader.book.find(0, "r").samples_cut is None
    reader.poll(row(1, 0))
    assert 6 == reader.book.find(0, "r").samples_cut.offset


def two_shards(log):
    """Shard 0 ended short of a row; of shard 1's three rows one came twice and one not yet, and more are on their way."""

    def of(shard):
        return {"shard": shard, "num_shards": 2}

    yield log.record(rows(0, **of(0)))
    yield log.record(encode(RunEnded("r", samples={"mme": 2}, **of(0))))
    for doc_id in (10, 11, 11):
        yield log.record(rows(doc_id, **of(1)))
    yield log.record(encode(RunEnded("r", samples={"mme": 3}, **of(1))))
    yield log.record(rows(10, **of(1)))


def test_a_row_taken_in_bulk_counts_for_the_cut_that_a_row_of_another_shard_decides(reader, log):
    before = list(two_shards(log))
    missing = log.record(rows(12, shard=1, num_shards=2))
    last = log.record(rows(1, shard=0, num_shards=2))
    reader.poll(*before, missing, last, log.record(rows(2, shard=0, num_shards=2)))
    assert last.offset == reader.book.find(0, "r").samples_cut.offset
    assert [(last.offset + 1, "late")] == reasons(reader)


def test_rows_of_a_lower_attempt_do_not_count_once_a_higher_one_began(reader, log):
    reader.poll(
        log.record(rows(0)),
        log.record(rows(1)),
        log.record(encode(RunStarted("r", attempt=1))),
        log.record(rows(2)),
        log.record(rows(0, attempt=1)),
        log.record(rows(3)),
        log.record(encode(RunEnded("r", attempt=1, samples={"mme": 2}))),
        log.record(rows(4)),
        log.record(rows(1, attempt=1)),
    )
    assert 8 == reader.book.find(0, "r").samples_cut.offset


def test_a_higher_attempt_that_begins_with_rows_leaves_the_lanes_of_the_lower(reader, log):
    reader.poll(
        log.record(rows(0, num_shards=2)),
        log.record(rows(1, num_shards=2)),
        log.record(rows(0, num_shards=2, attempt=1)),
        log.record(rows(1, num_shards=2)),
        log.record(rows(1, num_shards=2, attempt=1)),
    )
    [shard] = reader.book.find(0, "r").shards.values()
    assert (1, 2) == (shard.attempt, shard.tallies[0].received)


def test_the_runs_last_record_and_highest_time_are_known_after_every_poll(reader, log):
    reader.poll(*(log.record(rows(number)) for number in range(5)))
    run = reader.book.find(0, "r")
    assert ({"samples": 4}, 1_700_000_000_005) == (run.last, run.seen_ms)


def test_good_rows_end_a_row_of_dead_letters(reader, log):
    reader.poll(log.record(rows(0)), log.record(b"garbage"), log.record(rows(1)), log.record(b"more of it"))
    assert 1 == reader.book.partitions[0].buried_in_a_row


def test_lanes_do_not_grow_without_bound(reader, log):
    reader.poll(log.record(rows(0)))
    run, [lane] = reader.book.find(0, "r"), list(reader.book.lanes.by_key.values())
    for number in range(LANES_MAX):
        reader.book.lanes.by_key[0, "r", f"task {number}", "none", 0, 0, 1] = lane
    reader.poll(log.record(rows(1)))
    assert {} == reader.book.lanes.by_key
    reader.poll(log.record(rows(2)), log.record(encode(RunEnded("r", samples={"mme": 3}))))
    assert 3 == run.samples_cut.offset
