"""What a short shard has sent: counted as a set counts it, and not counted anew with every record."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.intake.decode import decode
from consumer.runs import known
from consumer.runs.book import RunBook
from consumer.runs.index import BUCKET_ENTRIES, identity
from consumer.runs.known import KnownSamples
from consumer.runs.lifecycle import TallyKey
from consumer.runs.spool import Spool
from consumer.vocabulary import Record
from schemas.events import Aggregate, encode
from tests.runs.entries import Row, rows, write_files
from tests.runs.logs import homes
from tests.worker.evaluation import Evaluation


def looked_up(row):
    return (row.filter, *identity(row.doc_id))


@given(
    sent=st.lists(rows, max_size=25),
    again=st.lists(st.lists(rows, max_size=6), max_size=5),
    producers=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 2, 7, BUCKET_ENTRIES]),
)
def test_samples_are_counted_as_a_set_counts_them(sent, again, producers, chunk):
    with homes() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "BUCKET_ENTRIES", chunk)
        folder = home()
        samples = KnownSamples(
            write_files(folder, sent).index,
            len(sent),
            [TallyKey(0, *producer) for producer in producers],
            scratch=folder / "known",
        )
        seen = {producer: {one.sample for one in sent if one[3:5] == producer} for producer in producers}
        for batch in again:
            for shard, attempt in itertools.product(range(3), range(3)):
                mine = [one for one in batch if (one.shard, one.attempt) == (shard, attempt)]
                assert samples.covers(shard, attempt) == ((shard, attempt) in producers)
                if samples.covers(shard, attempt):
                    before = len(seen[shard, attempt])
                    seen[shard, attempt] |= {one.sample for one in mine}
                    found = samples.add(shard, attempt, [looked_up(one) for one in mine])
                    assert len(seen[shard, attempt]) - before == found


def test_only_the_entries_that_belong_to_the_state_are_known(tmp_path):
    # What lies behind them in the file was written before a crash, and is written again.
    sent = [Row(number) for number in range(6)]
    files = write_files(tmp_path, sent)
    samples = KnownSamples(files.index, 4, [TallyKey(0, 0, 0)], scratch=tmp_path / "known")
    assert 2 == samples.add(0, 0, [looked_up(one) for one in sent])
    assert 0 == samples.add(0, 0, [looked_up(one) for one in sent])


class Reading:
    """A book that takes one run's events, and how often it counted a whole index."""

    def __init__(self, folder, monkeypatch):
        self.book = RunBook(Spool(folder, open_files_max=8))
        self.counted = 0
        self._offsets = itertools.count()
        count = self.book.spool.count_distinct

        def counting(*arguments):
            self.counted += 1
            return count(*arguments)

        monkeypatch.setattr(self.book.spool, "count_distinct", counting)

    def take(self, events):
        for event in events:
            topic, role = ("a", "aggregates") if isinstance(event, Aggregate) else ("s", "samples")
            record = Record(topic, 0, next(self._offsets), 1000, b"r", encode(event))
            run = self.book.find(0, "r") or self.book.open(record, "r")
            self.book.apply(run, record, decode(record.value, b"r", role), [role])
        return self.book.find(0, "r").samples_cut


@pytest.mark.parametrize("records", [20, 200])
def test_a_shard_sent_again_that_is_short_by_a_row_is_counted_once_and_not_once_a_record(
    tmp_path, monkeypatch, records
):
    # All but one of its rows come, then all but the same one again, and at last that one.
    evaluation = Evaluation("r", tasks=[("t", records)], shards=1, batch=1)
    start, *batches = (event for event in evaluation.body() if not isinstance(event, Aggregate))
    lost, kept = batches[records // 2], batches[: records // 2] + batches[records // 2 + 1 :]
    reading = Reading(tmp_path, monkeypatch)
    assert reading.take([start, *kept, evaluation.ended(0)]) is None
    assert 0 == reading.counted
    assert reading.take([*kept, *kept]) is None
    assert 1 == reading.counted
    assert reading.take([lost]).offset == 3 * len(kept) + 2
    assert reading.counted <= 2
    reading.book.spool.close()


def test_rows_lost_twice_are_found_when_they_come_in_a_run_of_several_tasks_and_shards(tmp_path, monkeypatch):
    evaluation = Evaluation("r", tasks=[("t", 12), ("u", 12)], shards=2, batch=2)
    events = [event for event in evaluation.events() if not isinstance(event, Aggregate)]
    lost = next(evaluation.batches(1))
    kept = [event for event in events if event != lost]
    reading = Reading(tmp_path, monkeypatch)
    assert reading.take([*kept, *kept, *kept]) is None
    assert reading.counted <= 2
    assert reading.take([lost]) is not None
    reading.book.spool.close()
