"""One run closed again from the log, beside whatever workers do.

The log is read from its beginning to its present end, the run's records are fed to a book of their own, and
the run is closed as a worker closes it. Nothing goes to Kafka: no group, no commits, no receipts, no dead
letters.

Invariants: spool and files are made below the output folder's staging and are gone afterwards; a published
file is replaced only if that was asked for, whole or not at all; while one is replaced there is no results
JSON, so that none ever counts what is not there; it comes back last.

Refused: a run of which the log holds no record, or not enough to close it (`EvalsinkError`); files that are
there with other bytes, unless they are to be replaced (`DeterminismError`); and to replace them by a run
whose beginning the log no longer holds: what is published may be whole, what is rebuilt cannot be known to
be.
"""

import filecmp
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from consumer.errors import DeterminismError, EvalsinkError
from consumer.filesystem import Disk
from consumer.intake.decode import Rejection, decode
from consumer.intake.replay import Advance, Replay
from consumer.runs.book import RunBook
from consumer.runs.closeout import ClosedRun, Tools, close_out
from consumer.runs.fields import collect
from consumer.runs.lifecycle import is_settled
from consumer.runs.progress import progress
from consumer.runs.publication import remove_provisional, staging_folder, sweep_staging
from consumer.runs.spool import Spool, read_record
from consumer.settings import Settings, Topics
from consumer.vocabulary import Role
from schemas.events import RunExpired
from schemas.state import PartitionState, RunState

Verdict = Literal["new", "identical", "differs"]
"""A rebuilt file against what is published under its name."""


class Rebuilt(Struct, frozen=True):
    """A run closed again.

    Attributes:
        closed: What was closed.
        files: Path relative to the output folder to what was there, the results JSON last.
        tainted: The log no longer holds its own beginning: the run is marked incomplete.
        strays: Partitions that hold records of the run, but not enough for a run of their own.
    """

    closed: ClosedRun
    files: dict[str, Verdict]
    tainted: bool
    strays: list[int]


def rebuild(
    run_id: str, replay: Replay, settings: Settings, tools: Tools, *, in_place: bool, advance: Advance
) -> Rebuilt:
    """Close `run_id` again into `tools.output`.

    Args:
        run_id: The run.
        replay: The input topics.
        settings: Names of the topics, open files.
        tools: For close-out; `tools.worker` must be this call's own.
        in_place: Replace published files that differ.
        advance: Told of every offset passed.

    Raises:
        EvalsinkError: the log does not hold the run, or not enough of it.
        DeterminismError: files with other bytes are published. Nothing was changed.
        BrokerError: the log cannot be read to its end.
        OSError: the disk; with `in_place` the results JSON may be gone. Call again.
    """
    scratch = staging_folder(tools.output, tools.worker)
    spool = Spool(scratch / "state", open_files_max=settings.open_files_max)
    try:
        book = RunBook(spool, _partitions(replay))
        _feed(book, run_id, replay, settings, advance)
        number, strays = _settled(book, run_id, replay, tools)
        run = book.partitions[number].runs[run_id]
        made = scratch / "output"
        closed = close_out(book.spooled(number, run), replace(tools, output=made))
        files = _compare(made, tools.output, last=closed.results)
        _check(files, tools.output, in_place=in_place, tainted=run.tainted)
        _place(files, made, tools.output, tools.disk)
        remove_provisional(tools.output, run_id)
    finally:
        spool.close()
        sweep_staging(tools.output, tools.worker, disk=tools.disk, now_s=time.time())
    return Rebuilt(closed, files, tainted=run.tainted, strays=strays)


def _partitions(replay: Replay) -> dict[int, PartitionState]:
    """Partitions as a worker without any state starts them: where the log begins late, runs are tainted."""
    partitions: dict[int, PartitionState] = {}
    for place, ends in replay.ends.items():
        state = partitions.setdefault(place.partition, PartitionState(place.partition))
        if ends.beginning > 0:
            state.tainted_below[place.topic] = ends.end
    return partitions


def _feed(book: RunBook, run_id: str, replay: Replay, settings: Settings, advance: Advance) -> None:
    """Apply the run's records, as a worker does that reads the topics one after the other."""
    key = run_id.encode("utf-8", "surrogateescape")
    for topic, roles in _roles(settings.topics).items():
        for record in replay.records(topic, key, advance):
            event = decode(record.value, record.key, roles[0] if len(roles) == 1 else "both")
            if isinstance(event, Rejection):
                continue
            run = book.find(record.partition, run_id)
            if run is None:
                if isinstance(event, RunExpired):
                    book.note_early(record, event, roles)
                    continue
                run = book.open(record, run_id)
            book.apply(run, record, event, roles)
            if book.spool.is_full:
                book.spool.flush()


def _roles(topics: Topics) -> dict[str, list[Role]]:
    """What each input topic carries."""
    roles: dict[str, list[Role]] = {topics.samples: ["samples"]}
    roles.setdefault(topics.aggregates, []).append("aggregates")
    return roles


def _settled(book: RunBook, run_id: str, replay: Replay, tools: Tools) -> tuple[int, list[int]]:
    """The partition in which the run is settled, and others that hold records of it.

    Raises:
        EvalsinkError: there is none, or more than one.
    """
    runs = {number: state.runs[run_id] for number, state in book.partitions.items() if run_id in state.runs}
    settled = [number for number, run in runs.items() if is_settled(run)]
    if len(settled) == 1:
        return settled[0], [number for number in runs if number != settled[0]]
    if settled:
        raise EvalsinkError(
            f"run {run_id!r} is whole in partitions {', '.join(map(str, settled))}: somebody sent it again "
            "with another partitioner. For a worker these are several runs of one name; nothing was written"
        )
    late = [
        f"\n  {place.topic} partition {place.partition} begins at {ends.beginning}: what was before is gone"
        for place, ends in replay.ends.items()
        if ends.beginning > 0 and (not runs or place.partition in runs)
    ]
    if not runs:
        topics = ", ".join(dict.fromkeys(place.topic for place in replay.ends))
        raise EvalsinkError(f"no record of run {run_id!r} in {topics}" + "".join(late))
    waiting = [line for number, run in runs.items() for line in _waiting(book, number, run, tools)]
    raise EvalsinkError(
        f"run {run_id!r} cannot be closed from what the log holds" + "".join(waiting) + "".join(late)
    )


def _waiting(book: RunBook, number: int, run: RunState, tools: Tools) -> list[str]:
    """What an unsettled run waits for, as lines of a message."""
    book.spool.flush()
    read = partial(read_record, book.spool.log_path(number, run))
    now = progress(run, collect(run, read, tools.decode).tasks)
    expected = "an unknown number of" if now.expected is None else f"{now.expected:,}"
    rows = f"{now.rows:,} of {expected} rows, {now.ended} of {now.shards} shards ended"
    return [f"\n  partition {number}: {rows}", *(f"\n    {sentence}" for sentence in now.missing)]


def _compare(made: Path, output: Path, *, last: str) -> dict[str, Verdict]:
    names = [str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()]
    verdicts: dict[str, Verdict] = {}
    for name in sorted(names, key=lambda name: (name == last, name)):
        if not (output / name).exists():
            verdicts[name] = "new"
        else:
            verdicts[name] = "identical" if _is_equal(made / name, output / name) else "differs"
    return verdicts


def _check(files: Mapping[str, Verdict], output: Path, *, in_place: bool, tainted: bool) -> None:
    others = "".join(f"\n  {output / name}" for name, verdict in files.items() if verdict == "differs")
    if others and not in_place:
        raise DeterminismError(
            f"published with other bytes than the log gives, and left as they are:{others}\n"
            "--in-place replaces them; an empty --output lets you compare"
        )
    if others and tainted:
        raise DeterminismError(
            "the log no longer holds its own beginning, so the rebuilt run counts as incomplete (tainted) "
            f"and does not replace what is published with other bytes:{others}\n"
            "an empty --output lets you compare"
        )


def _place(files: Mapping[str, Verdict], made: Path, output: Path, disk: Disk) -> None:
    """Publish what is new and put what differs in place of what was there; the results JSON is the last."""
    *_, results = files
    if "differs" in files.values():
        (output / results).unlink(missing_ok=True)
        if (output / results).parent.is_dir():
            disk.sync_path((output / results).parent)
    for name, verdict in files.items():
        if verdict == "identical" and name != results:
            continue
        target = output / name
        disk.make_folder(target.parent)
        if verdict == "differs":
            (made / name).replace(target)
            disk.sync_path(target.parent)
        elif not disk.link_file(made / name, target) and not _is_equal(made / name, target):
            raise DeterminismError(f"{target} appeared meanwhile, with other bytes than the log gives")


def _is_equal(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)
