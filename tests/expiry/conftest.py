"""The stage of the tests of workers, and one log with a watch over it whose time stands still."""

import json
from concurrent.futures import Executor, Future

import msgspec
import pytest

from consumer.expiry import LOOK_EVERY_S, Expiry
from consumer.intake.decode import decode
from consumer.report import metrics
from consumer.runs.book import RunBook
from consumer.runs.closeout import Tools, close_out
from consumer.runs.spool import Spool
from consumer.settings import Settings, Topics
from consumer.vocabulary import Record
from schemas.events import Aggregate, RunExpired, encode
from schemas.state import PartitionState
from tests.runs.logs import QuickDisk, again, tree
from tests.worker.conftest import real_stage

__all__ = ["real_stage"]

GRACE_S, ABANDON_AFTER_S = 10.0, 100.0


class SameThread(Executor):
    """Runs a job when it is submitted, or when `run` is called while it is `holding`."""

    def __init__(self):
        self.jobs = []
        self.submitted = 0
        self.holding = False

    def submit(self, job, /, *arguments, **named):
        self.submitted += 1
        future = Future()
        self.jobs.append((future, job, arguments, named))
        if not self.holding:
            self.run()
        return future

    def run(self):
        for future, job, arguments, named in self.jobs:
            try:
                future.set_result(job(*arguments, **named))
            except Exception as error:  # noqa: BLE001 - it belongs to whom asks for the result
                future.set_exception(error)
        self.jobs = []


class Recorder:
    """An `Outbound` that only notes."""

    def __init__(self):
        self.sent = []

    def send(self, topic, *, key, value, partition):
        event = msgspec.json.decode(value, type=RunExpired)
        assert key == event.run_id.encode()
        self.sent.append((topic, partition, event.run_id, event.last))
        return len(self.sent)


class Watched:
    """Partition 0 of two topics, read by a book, and an `Expiry` that looks at it. Starts at second 1000."""

    def __init__(self, folder, topics=None):
        self.topics = topics or Topics(samples="s", aggregates="a")
        self.settings = Settings(grace_s=GRACE_S, abandon_after_s=ABANDON_AFTER_S, topics=self.topics)
        self.output = folder / "output"
        self.output.mkdir()
        positions = dict.fromkeys(self.topics.inputs, 0)
        self.book = RunBook(
            Spool(folder / "state", open_files_max=8), {0: PartitionState(0, dict(positions))}
        )
        self.offsets = positions
        self.now_s = 1000.0
        self.outbound, self.executor = Recorder(), SameThread()
        self.asked_for_ends = 0
        self.ready = {0}
        self.tools = Tools(
            decode=again,
            render_table=lambda results: f"{len(results['results'])} tasks\n",
            render_metrics=metrics.render,
            disk=QuickDisk(),
            output=self.output,
            worker="w",
        )
        self.start()

    def start(self):
        """The watch begins anew, as after a restart."""
        self.expiry = Expiry(
            self.settings,
            self.book,
            self.tools,
            self.outbound,
            executor=self.executor,
            clock=lambda: self.now_s,
            now_ms=lambda: int(self.now_s * 1000),
        )

    def take(self, *events):
        """The events come, now."""
        for event in events:
            self.take_into(
                self.topics.aggregates if isinstance(event, Aggregate) else self.topics.samples, event
            )

    def take_into(self, topic, event):
        roles = [role for role in ("samples", "aggregates") if getattr(self.topics, role) == topic]
        record = Record(
            topic, 0, self.offsets[topic], int(self.now_s * 1000), event.run_id.encode(), encode(event)
        )
        self.offsets[topic] += 1
        decoded = decode(record.value, record.key, roles[0] if len(roles) == 1 else "both")
        run = self.book.find(0, event.run_id) or self.book.open(record, event.run_id)
        return self.book.apply(run, record, decoded, roles)

    def read_back(self):
        """The last `run_expired` sent comes back from the log; what became of it."""
        topic, _, run_id, last = self.outbound.sent[-1]
        return self.take_into(topic, RunExpired(run_id, last=last))

    def wait(self, seconds, *, owned=(0,)):
        """Time passes, then the watch looks; twice, since what it starts it takes note of at its next look."""
        self.now_s += seconds
        self.look(owned=owned)
        self.now_s += LOOK_EVERY_S
        self.look(owned=owned)

    def look(self, *, owned=(0,)):
        self.book.spool.flush()

        def at_end():
            self.asked_for_ends += 1
            return self.ready

        self.expiry.look(at_end, set(owned))

    def close(self, run_id):
        """The run, settled, is closed as the worker does it."""
        run = self.book.find(0, run_id)
        close_out(self.book.spooled(0, run), self.tools)
        self.book.drop_run(0, run)

    @property
    def files(self):
        return set(tree(self.output))

    @property
    def shown(self):
        """Own part of the results JSON below ``partial/`` by run_id."""
        found = [json.loads(path.read_bytes()) for path in self.output.glob("partial/**/*_results.json")]
        return {one["evalsink"]["run_id"]: one["evalsink"] for one in found}


@pytest.fixture
def watched(tmp_path):
    one = Watched(tmp_path)
    yield one
    one.book.spool.close()
