"""Random logs of runs, and a worker reduced to what the runs stage needs: decode, find or open, apply, close out."""

import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from consumer.filesystem import Disk
from consumer.intake.decode import Rejection, decode
from consumer.report import metrics
from consumer.runs import checkpoint, lifecycle
from consumer.runs.aggregates import refused
from consumer.runs.book import RunBook
from consumer.runs.closeout import ClosedRun, Tools, close_out
from consumer.runs.publication import STAGING_FOLDER
from consumer.runs.spool import Spool
from consumer.vocabulary import Record
from schemas.events import RunExpired
from tests.runs.oracle import Sent, Topics, compact, identity

APART = Topics("samples", "aggregates")
TOGETHER = Topics("events", "events")

GROUP = "evalsink"
TASKS = ["mme", "gsm8k", "caf\u00e9/vqa"]
FILTERS = ["none", "strict", "a,b"]
DOC_IDS = [0, 1, 2, 3, 5, -1, -7, 2**63 - 1, -(2**63), "1", "", "é", "z" * 40]


# Elements of batches

_payloads = st.sampled_from(
    [{"v": 0}, {"v": 1.5, "doc_hash": "h"}, {"v": "日本\u2028", "doc_hash": ""}, {"v": [None, {"k": True}]}]
)
_scores = st.sampled_from(
    [{}, {"acc": 1}, {"acc": 0.25, "f1": 0.5}, {"acc": [1, 0, 1]}, {"acc": "x", "f1": 1}, {"acc": []}]
)


@st.composite
def _good(draw: st.DrawFn) -> dict[str, Any]:
    doc_id = draw(st.sampled_from(DOC_IDS))
    element = {"doc_id": doc_id, "row": {"doc_id": doc_id, **draw(_payloads)}}
    scores = draw(_scores)
    return {**element, "scores": scores} if scores else element


@st.composite
def _odd(draw: st.DrawFn) -> Any:
    doc_id = draw(st.sampled_from(DOC_IDS))
    return draw(
        st.sampled_from(
            [
                {"doc_id": doc_id},
                {"doc_id": doc_id, "row": [1]},
                {"doc_id": doc_id, "row": {"doc_id": doc_id, "acc": float("nan")}},
                {"doc_id": 1.5, "row": {"doc_id": 1.5}},
                {"doc_id": 2**63, "row": {}},
                {"row": {"acc": float("inf")}},
                7,
            ]
        )
    )


elements = st.integers(0, 9).flatmap(lambda die: _odd() if die == 0 else _good())

# Operations: events of a run without the numbers that depend on the rest of the log

_shards = st.sampled_from([0, 0, 0, 1, 1, 2, 3])
_attempts = st.sampled_from([0, 0, 0, 0, 1, 2])
_tasks = st.sampled_from(TASKS)
_results = st.sampled_from(
    [
        {"alias": "x", "acc,none": 0.5},
        {"alias": "x", "acc,strict": 1, "acc_stderr,strict": "N/A", "acc,none": 0},
        {"acc,a,b": 1e999, "acc,strict": 0.25},
        {},
    ]
)
_places = {"shard": _shards, "attempt": _attempts, "more_shards": st.sampled_from([0, 0, 0, 0, 0, 1])}

_rows = st.fixed_dictionaries(
    {
        "type": st.just("samples"),
        "task": _tasks,
        "filter": st.sampled_from(FILTERS),
        "samples": st.lists(elements, max_size=5),
        **_places,
    }
)
_start = st.fixed_dictionaries(
    {
        "type": st.just("run_started"),
        "tasks": st.dictionaries(_tasks, st.sampled_from([0, 2, 6]), max_size=2),
        **_places,
    }
)
_end = st.fixed_dictionaries(
    {
        "type": st.just("run_ended"),
        "status": st.sampled_from(["ok", "ok", "ok", "failed"]),
        "aggregates": st.lists(_tasks, max_size=2),
        "counts": st.sampled_from(["all", "all", "all", "fewer", "more", "none", "phantom"]),
        **_places,
    }
)
_aggregate = st.fixed_dictionaries(
    {
        "type": st.just("aggregate"),
        "task": _tasks,
        "results": _results,
        "shard": _shards,
        "attempt": _attempts,
    }
)
_expiry = st.fixed_dictionaries(
    {
        "type": st.just("run_expired"),
        "role": st.sampled_from(["samples", "aggregates"]),
        "last": st.sampled_from(["right", "right", "earlier", "none"]),
    }
)
operations = st.integers(0, 19).flatmap(
    lambda die: (
        _rows
        if die < 10
        else _end
        if die < 13
        else _aggregate
        if die < 17
        else _start
        if die < 19
        else _expiry
    )
)


@st.composite
def logs(draw: st.DrawFn, topics: Topics) -> list[Sent]:
    """Both topics' records of one or two runs, each topic in the order of its offsets."""
    drawn = [
        (draw(st.sampled_from(["r1", "r1", "r1", "r\u00e9/2"])), draw(operations))
        for _ in range(draw(st.integers(1, 12)))
    ]
    whole: list[tuple[str, dict[str, Any]]] = []
    for run_id in sorted({run_id for run_id, _ in drawn}):
        mine = [operation for name, operation in drawn if name == run_id]
        if draw(st.integers(0, 9)):
            whole += [(run_id, operation) for operation in _finale(draw, mine)]
    body = drawn + whole
    if draw(st.integers(0, 2)) == 0:
        random.Random(draw(st.integers(0, 2**32))).shuffle(body)
    for run_id in sorted({run_id for run_id, _ in drawn}):
        body += [(run_id, draw(operations)) for _ in range(draw(st.integers(0, 3)))]
        if draw(st.integers(0, 2)):
            for role in ("samples", "aggregates"):
                body.append((run_id, {"type": "run_expired", "role": role, "last": "right"}))
            body += [(run_id, draw(operations)) for _ in range(draw(st.integers(0, 2)))]
    return assemble(body, topics, gap=draw(st.integers(1, 3)), jitter=draw(st.integers(0, 2**32)))


@st.composite
def crowded_logs(draw: st.DrawFn, topics: Topics) -> list[Sent]:
    """Records of one run whose shards send few samples again and again, some only after their end.

    So shards have as many rows as they stated, but too few samples, and are found short; often several.
    """
    shards = draw(st.integers(1, 3))
    body: list[tuple[str, dict[str, Any]]] = []
    for shard in range(shards):
        place = {"shard": shard, "attempt": 0, "more_shards": 0}
        body += [
            (
                "r1",
                {
                    "type": "samples",
                    "task": TASKS[0],
                    "filter": "none",
                    "samples": [{"doc_id": doc_id, "row": {"doc_id": doc_id}}],
                    **place,
                },
            )
            for doc_id in draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
        ]
        body.append(("r1", {"type": "run_ended", "status": "ok", "aggregates": [], "counts": "all", **place}))
    random.Random(draw(st.integers(0, 2**32))).shuffle(body)
    return assemble(body, topics)


def _finale(draw: st.DrawFn, mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an orderly evaluation sends at the end: every shard's end, and the aggregates it names."""
    sharded = [one for one in mine if "more_shards" in one]
    count = max((one["shard"] + 1 + one["more_shards"] for one in sharded), default=1)
    finale = []
    for shard in range(count):
        attempt = max((one["attempt"] for one in sharded if one["shard"] == shard), default=0)
        named = draw(st.lists(_tasks, max_size=2)) if draw(st.booleans()) else []
        place = {"shard": shard, "attempt": attempt}
        finale.append(
            {
                "type": "run_ended",
                "status": "ok",
                "aggregates": named,
                "counts": "all",
                "more_shards": 0,
                **place,
            }
        )
        finale += [{"type": "aggregate", "task": task, "results": draw(_results), **place} for task in named]
    return finale


def assemble(
    body: list[tuple[str, dict[str, Any]]], topics: Topics, *, gap: int = 1, jitter: int = 0
) -> list[Sent]:
    """Operations into records: counts of the ends, offsets, times, and what each `run_expired` names.

    A `run_expired` before anything else of its run is left out: no worker can have written it.
    """
    dice = random.Random(jitter)
    offsets = dict.fromkeys(topics, 0)
    totals = _totals(body)
    last: dict[tuple[str, str], int] = {}
    opened: set[str] = set()
    log = []
    for run_id, operation in body:
        event = {"run_id": run_id, **operation}
        kind = event["type"]
        if kind != "run_expired":
            opened.add(run_id)
        elif run_id not in opened:
            continue
        role = event.pop("role", "aggregates" if kind == "aggregate" else "samples")
        topic = topics.aggregates if role == "aggregates" else topics.samples
        if "more_shards" in event:
            event["num_shards"] = event["shard"] + 1 + event.pop("more_shards")
        if kind == "run_ended":
            counts = totals.get((run_id, event["shard"], event["attempt"]), {})
            event["samples"] = _stated(event.pop("counts"), counts)
        if kind == "run_expired":
            right = last.get((run_id, topic), -1)
            event["last"] = {"right": right, "earlier": right - 1 if right > 0 else 0, "none": -1}[
                event["last"]
            ]
        offsets[topic] += dice.randint(1, gap)
        if kind != "run_expired":
            last[run_id, topic] = offsets[topic]
        log.append(Sent(topic, offsets[topic], 1_767_225_600_000 + dice.randint(0, 9_000), event))
    return log


def _totals(body: list[tuple[str, dict[str, Any]]]) -> dict[tuple[str, int, int], dict[str, int]]:
    """Distinct samples by (run, shard, attempt) and task, over the whole log: ends may stand before their rows."""
    seen: dict[tuple[str, int, int], dict[str, set[Any]]] = {}
    for run_id, one in body:
        if one["type"] == "samples":
            tasks = seen.setdefault((run_id, one["shard"], one["attempt"]), {})
            tasks.setdefault(one["task"], set()).update((one["filter"], identity(e)) for e in one["samples"])
    return {key: {task: len(found) for task, found in tasks.items()} for key, tasks in seen.items()}


def _stated(how: str, counts: dict[str, int]) -> dict[str, int]:
    if how == "phantom":
        return {**counts, "nobody": 2}
    if how == "none":
        return {}
    change = {"all": 0, "fewer": -1, "more": 1}[how]
    return {task: max(0, count + change) for task, count in counts.items()}


def interleave(log: list[Sent], topics: Topics, dice: random.Random) -> list[Sent]:
    """The records in an order in which one worker could read them: each topic's own order is kept.

    A `run_expired` comes after the record that opens its run: see the last test in `test_expiry`.
    """
    queues = [[one for one in log if one.topic == topic] for topic in dict.fromkeys(topics)]
    opened: set[str] = set()
    order = []
    while any(queues):
        able = [
            queue
            for queue in queues
            if queue and (queue[0].event["type"] != "run_expired" or queue[0].event["run_id"] in opened)
        ]
        record = dice.choice(able).pop(0)
        opened.add(record.event["run_id"])
        order.append(record)
    return order


# A worker, reduced


class QuickDisk(Disk):
    """The real disk without waiting for it."""

    def sync_tree(self, root: Path) -> None:
        pass

    def sync_path(self, path: Path) -> None:
        pass


class Outcome(NamedTuple):
    """What a reader of a log ended with."""

    runs: dict[str, tuple[Any, Any]]
    refused: dict[tuple[str, str, int], str]
    closed: dict[str, ClosedRun]
    tree: dict[str, bytes]


def record_of(sent: Sent, partition: int = 0) -> Record:
    return Record(
        sent.topic,
        partition,
        sent.offset,
        sent.timestamp,
        sent.event["run_id"].encode(),
        compact(sent.event),
    )


def again(record: Record) -> Any:
    event = decode(record.value, record.key, "both")
    assert not isinstance(event, Rejection), event
    return event


class Reader:
    """Applies records to a book over a state folder, and closes what is settled."""

    def __init__(self, home: Path, topics: Topics = APART, *, open_files_max: int = 3) -> None:
        self.state, self.output = home / "state", home / "output"
        self.disk = QuickDisk()
        self._topics = topics
        self._open_files_max = open_files_max
        self.refused: dict[tuple[str, str, int], str] = {}
        self.state.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Begin with what the checkpoint holds, as a process does that starts."""
        partitions = checkpoint.load(self.state, group=GROUP, topic_ids={}, disk=self.disk)
        self.book = RunBook(Spool(self.state, open_files_max=self._open_files_max), partitions)

    def roles(self, topic: str) -> tuple[str, ...]:
        return tuple(role for role, name in self._topics._asdict().items() if name == topic)

    def take(self, sent: Sent) -> str | None:
        record = record_of(sent)
        roles = self.roles(sent.topic)
        event = decode(record.value, record.key, roles[0] if len(roles) == 1 else "both")  # type: ignore[arg-type]
        assert not isinstance(event, Rejection), event
        run = self.book.find(0, event.run_id)
        if run is None:
            if isinstance(event, RunExpired):
                self.book.note_early(record, event, roles)  # type: ignore[arg-type]
                return None
            run = self.book.open(record, event.run_id)
        outcome = self.book.apply(run, record, event, roles)  # type: ignore[arg-type]
        if outcome == "late":
            self.refused[event.run_id, sent.topic, sent.offset] = "late"
        return outcome

    def save(self) -> None:
        self.book.spool.flush()
        checkpoint.write(self.state, checkpoint.capture(GROUP, {}, self.book.partitions), self.disk)

    def crash(self) -> None:
        """Lose what only memory held."""
        self.book.spool.close()

    def tools(self) -> Tools:
        return Tools(
            decode=again,
            render_table=lambda results: f"{len(results['results'])} tasks\n",
            render_metrics=metrics.render,
            disk=self.disk,
            output=self.output,
            worker="w",
        )

    def finish(self) -> Outcome:
        """Close out every settled run."""
        closed = {}
        for run in self.book.settled(0):
            for aggregate, reason in refused(run):
                source = self.book.spool.read_record(0, run, aggregate.span)
                self.refused[run.run_id, source.topic, source.offset] = reason
            closed[run.run_id] = close_out(self.book.spooled(0, run), self.tools())
        runs = {
            run_id: (lifecycle.cut_of(run, "samples"), lifecycle.cut_of(run, "aggregates"))
            for run_id, run in (self.book.partitions[0].runs if 0 in self.book.partitions else {}).items()
        }
        self.book.spool.close()
        return Outcome(runs, self.refused, closed, tree(self.output))


def read(log: list[Sent], home: Path, topics: Topics = APART) -> Outcome:
    """All of `log`, in the order given, read by one undisturbed worker."""
    reader = Reader(home, topics)
    for sent in log:
        reader.take(sent)
    return reader.finish()


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path to content of every published file."""
    paths = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else iter(())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] != STAGING_FOLDER
    }


@contextmanager
def homes():
    """A maker of folders that are gone afterwards; hypothesis runs a test many times in one `tmp_path`."""
    with tempfile.TemporaryDirectory() as root:
        yield lambda: Path(tempfile.mkdtemp(dir=root))


def spoil(home: Path, content: bytes) -> None:
    """Put `content` behind the end of every spool file, as an interrupted write may."""
    for path in (home / "state" / "runs").rglob("*"):
        if path.is_file():
            with path.open("ab") as file:
                file.write(content)


def copy_state(home: Path, target: Path) -> None:
    shutil.copytree(home / "state", target / "state", dirs_exist_ok=True)
