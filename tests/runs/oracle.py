"""What becomes of a run, said as plainly as the design says it: lists, whole logs, no state carried along.

Written from the rules, not from `consumer.runs`; slow on purpose. Events are the plain objects that were sent. A record's
bytes, where they matter, are `compact` of its event: whoever makes the log encodes it that way.

Not here: names of files, the results JSON beyond what the verdict says, the statistics of scores.
"""

import hashlib
import json
import math
from collections import Counter
from typing import Any, NamedTuple

from msgspec import Struct, field

EMPTY_DOC = hashlib.sha256(b"null").hexdigest()


class Sent(NamedTuple):
    """One record of the log."""

    topic: str
    offset: int
    timestamp: int
    event: dict[str, Any]


class Topics(NamedTuple):
    """Names of the input topics; they may be one."""

    samples: str = "s"
    aggregates: str = "a"


class Cut(NamedTuple):
    offset: int
    expired: bool


class Task(NamedTuple):
    """What the results JSON must say of one task, and its samples file."""

    lines: list[bytes]
    filters: dict[str, int]
    duplicates: int
    conflicts: int
    superseded: int
    rejected: int
    repaired: int
    scores_dropped: int
    missing: Any
    task_hash: str | None
    scores: dict[tuple[str, str], list[float]]


class Verdict(Struct, frozen=True):
    """All that must be the same whoever reads the log, and however."""

    samples_cut: Cut | None
    aggregates_cut: Cut | None
    refused: dict[tuple[str, int], str]
    status: str | None = None
    why: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    shards: int = 0
    tasks: dict[str, Task] = {}
    results: dict[str, Any] = {}
    aggregates_superseded: int = 0
    aggregates_duplicates: int = 0


def compact(value: Any) -> bytes:
    """JSON as the log of the tests has it; a row's bytes are the same inside its event and alone."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def mended(value: Any) -> Any:
    """`value` with null for what is no number."""
    if isinstance(value, dict):
        return {key: mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mended(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Single samples


def has_doc_id(element: Any) -> bool:
    if not isinstance(element, dict):
        return False
    doc_id = element.get("doc_id")
    return isinstance(doc_id, str) or (type(doc_id) is int and -(2**63) <= doc_id < 2**63)


def is_good(element: Any) -> bool:
    return has_doc_id(element) and isinstance(element.get("row"), dict)


def identity(element: Any) -> tuple[str, Any]:
    """1 and "1" differ; what has no readable doc_id is known by its bytes."""
    if not has_doc_id(element):
        return "bytes", compact(mended(element))
    return type(element["doc_id"]).__name__, element["doc_id"]


def row_bytes(element: Any) -> bytes:
    return compact(mended(element["row"]))


def good_scores(element: Any) -> dict[str, Any]:
    def is_number(value: Any) -> bool:
        return type(value) in {int, float} and math.isfinite(value)

    scores = element.get("scores", {})
    return {
        metric: score
        for metric, score in scores.items()
        if is_number(score) or (isinstance(score, list) and all(map(is_number, score)))
    }


# The run's records


def is_aggregate(record: Sent) -> bool:
    return record.event["type"] == "aggregate"


def is_expiry(record: Sent) -> bool:
    return record.event["type"] == "run_expired"


def shard_of(record: Sent) -> tuple[int, int]:
    return record.event.get("shard", 0), record.event.get("attempt", 0)


def num_shards(records: list[Sent]) -> int:
    return max((record.event.get("num_shards", 1) for record in records), default=1)


def highest_attempts(records: list[Sent]) -> dict[int, int]:
    highest: dict[int, int] = {}
    for record in records:
        shard, attempt = shard_of(record)
        highest[shard] = max(attempt, highest.get(shard, 0))
    return highest


def last_words(records: list[Sent]) -> dict[int, dict[str, Any]]:
    """Shard to the latest end of its highest attempt, of shards that have one."""
    highest = highest_attempts(records)
    return {
        shard_of(record)[0]: record.event
        for record in records
        if record.event["type"] == "run_ended" and shard_of(record)[1] == highest[shard_of(record)[0]]
    }


def distinct(records: list[Sent], shard: int, attempt: int, task: str) -> int:
    return len(
        {
            (record.event.get("filter", "none"), identity(element))
            for record in records
            if record.event["type"] == "samples"
            and shard_of(record) == (shard, attempt)
            and record.event["task"] == task
            for element in record.event["samples"]
        }
    )


def all_done(records: list[Sent]) -> bool:
    """`records`: all of the run's rows and lifecycle up to some offset."""
    ends = last_words(records)
    return all(
        shard in ends
        and ends[shard].get("status", "ok") == "ok"
        and all(
            distinct(records, shard, ends[shard].get("attempt", 0), task) >= count
            for task, count in ends[shard].get("samples", {}).items()
        )
        for shard in range(num_shards(records))
    )


def judge(run_id: str, log: list[Sent], topics: Topics) -> Verdict | None:
    """The verdict on a run; None if nothing opens it.

    A `run_expired` opens nothing; one of a run without any record is dropped.
    """
    mine = sorted(
        (record for record in log if record.event["run_id"] == run_id),
        key=lambda record: (record.topic, record.offset),
    )
    if all(is_expiry(record) for record in mine):
        return None
    rows = [record for record in mine if not is_aggregate(record) and not is_expiry(record)]
    aggregates = [record for record in mine if is_aggregate(record)]

    samples_cut = _samples_cut(mine, rows, topics)
    late = {
        (one.topic, one.offset): "late" for one in rows if samples_cut and one.offset > samples_cut.offset
    }
    if samples_cut is None:
        return Verdict(None, None, late)
    rows = [record for record in rows if record.offset <= samples_cut.offset]
    ends = last_words(rows)
    aggregates_cut = _aggregates_cut(mine, rows, aggregates, ends, topics)
    if aggregates_cut is None:
        return Verdict(samples_cut, None, late)

    refused = dict(late)
    named = [
        (shard, ends[shard].get("attempt", 0), task)
        for shard in sorted(ends)
        for task in ends[shard].get("aggregates", [])
    ]
    tasks_named = {task for _, _, task in named}
    for record in aggregates:
        if record.offset > aggregates_cut.offset:
            refused[record.topic, record.offset] = "late"
        elif record.event["task"] not in tasks_named:
            refused[record.topic, record.offset] = "unexpected"
    aggregates = [record for record in aggregates if record.offset <= aggregates_cut.offset]
    winners, superseded, duplicates = _choose(named, aggregates)
    why, failed = _why(rows, ends, named, aggregates, expired=samples_cut.expired)
    status = "failed" if failed else "incomplete" if why else "complete"
    return Verdict(
        samples_cut,
        aggregates_cut,
        refused,
        status,
        why,
        num_shards(rows),
        _tasks(rows, ends, winners, complete=status == "complete"),
        {task: record.event["results"] for task, record in winners.items()},
        superseded,
        duplicates,
    )


def _is_effective(expiry: Sent, of_run: list[Sent], mine: list[Sent]) -> bool:
    """`of_run`: what belongs to the run. Its last record before the expiry, in that topic, must be the one it names."""
    before = [one.offset for one in of_run if one.topic == expiry.topic and one.offset < expiry.offset]
    opened = bool(before) or any(one.topic != expiry.topic and not is_expiry(one) for one in mine)
    return opened and expiry.event["last"] == max(before, default=-1)


def _samples_cut(mine: list[Sent], rows: list[Sent], topics: Topics) -> Cut | None:
    for record in mine:
        if record.topic != topics.samples:
            continue
        if is_expiry(record):
            if _is_effective(record, [one for one in mine if not is_expiry(one)], mine):
                return Cut(record.offset, expired=True)
        elif not is_aggregate(record) and all_done([one for one in rows if one.offset <= record.offset]):
            return Cut(record.offset, expired=False)
    return None


def _aggregates_cut(
    mine: list[Sent],
    rows: list[Sent],
    aggregates: list[Sent],
    ends: dict[int, dict[str, Any]],
    topics: Topics,
) -> Cut | None:
    wanted = {
        (shard, end.get("attempt", 0), task)
        for shard, end in ends.items()
        for task in end.get("aggregates", [])
    }
    if not wanted:
        return Cut(-1, expired=False)
    there: set[tuple[int, int, str]] = set()
    for record in sorted(mine, key=lambda record: record.offset):
        if record.topic != topics.aggregates:
            continue
        if is_aggregate(record):
            there.add((*shard_of(record), record.event["task"]))
            if wanted <= there:
                return Cut(record.offset, expired=False)
        elif is_expiry(record) and _is_effective(record, rows + aggregates, mine):
            return Cut(record.offset, expired=True)
    return None


def _choose(named: list[tuple[int, int, str]], aggregates: list[Sent]) -> tuple[dict[str, Sent], int, int]:
    source: dict[str, tuple[int, int]] = {}
    for shard, attempt, task in named:
        source.setdefault(task, (shard, attempt))
    winners: dict[str, Sent] = {}
    for task, place in source.items():
        of_source = [one for one in aggregates if one.event["task"] == task and shard_of(one) == place]
        if of_source:
            winners[task] = of_source[-1]
    superseded = duplicates = 0
    for record in aggregates:
        task = record.event["task"]
        winner = winners.get(task)
        if task not in source or record is winner:
            continue
        if winner and shard_of(record) == source[task] and compact(record.event) == compact(winner.event):
            duplicates += 1
        else:
            superseded += 1
    return winners, superseded, duplicates


def _why(
    rows: list[Sent],
    ends: dict[int, dict[str, Any]],
    named: list[tuple[int, int, str]],
    aggregates: list[Sent],
    *,
    expired: bool,
) -> tuple[Counter[tuple[Any, ...]], bool]:
    why: Counter[tuple[Any, ...]] = Counter()
    failed = False
    if expired:
        for shard in range(num_shards(rows)):
            end = ends.get(shard)
            if end is None:
                why["never ended", shard] += 1
            elif end.get("status", "ok") == "failed":
                why["failed", shard] += 1
                failed = True
            for task, count in (end or {}).get("samples", {}).items():
                got = distinct(rows, shard, end.get("attempt", 0), task)  # type: ignore[union-attr]
                if got < count:
                    why["short", shard, task, got, count] += 1
    for task, count in _rejected_now(rows).items():
        why["rejected", task, count] += 1
    there = {(*shard_of(one), one.event["task"]) for one in aggregates}
    for shard, attempt, task in dict.fromkeys(named):
        if (shard, attempt, task) not in there:
            why["absent", shard, task] += 1
    return why, failed


def _rejected_now(rows: list[Sent]) -> Counter[str]:
    """Task to samples without a good row that a shard's highest attempt sent; those of lower ones do no harm."""
    highest = highest_attempts(rows)
    return Counter(
        task
        for task, samples in _by_identity(rows).items()
        for entries in samples.values()
        if not any(is_good(one["element"]) for one in entries)
        and any(one["attempt"] == highest[one["shard"]] for one in entries)
    )


def _by_identity(rows: list[Sent]) -> dict[str, dict[tuple[str, Any], list[dict[str, Any]]]]:
    """Task to (filter, identity) to everything that was sent for it, in the log's order."""
    tasks: dict[str, dict[Any, list[dict[str, Any]]]] = {}
    for record in rows:
        if record.event["type"] != "samples":
            continue
        samples = tasks.setdefault(record.event["task"], {})
        shard, attempt = shard_of(record)
        for index, element in enumerate(record.event["samples"]):
            key = (record.event.get("filter", "none"), identity(element))
            samples.setdefault(key, []).append(
                {
                    "element": element,
                    "shard": shard,
                    "attempt": attempt,
                    "place": (attempt, record.offset, index),
                }
            )
    return tasks


def _filter_order(filters: set[str], results: dict[str, Any]) -> list[str]:
    order: list[str] = []
    for key in results:
        if "," in key:
            name = key.split(",", 1)[1]
            if name in filters and name not in order:
                order.append(name)
    return order + sorted(filters - set(order), key=str.encode)


def _canonical(key: tuple[str, Any], filters: list[str]) -> tuple[Any, ...]:
    name, (kind, doc_id) = key
    is_text = kind == "str"
    return filters.index(name), is_text, doc_id.encode() if is_text else doc_id


def _tasks(
    rows: list[Sent], ends: dict[int, dict[str, Any]], winners: dict[str, Sent], *, complete: bool
) -> dict[str, Task]:
    starts = sorted(
        (one for one in rows if one.event["type"] == "run_started"),
        key=lambda one: (shard_of(one)[0], -shard_of(one)[1], -one.offset),
    )
    expected: dict[str, int] = {}
    for start in starts:
        for task, count in start.event.get("tasks", {}).items():
            expected.setdefault(task, count)
    stated: Counter[str] = Counter()
    for end in ends.values():
        stated.update(end.get("samples", {}))
        stated.update(dict.fromkeys(end.get("aggregates", []), 0))
    sent = _by_identity(rows)
    return {
        task: _task(
            sent.get(task, {}),
            winners[task].event["results"] if task in winners else {},
            stated[task],
            expected.get(task),
            complete=complete,
        )
        for task in {*sent, *stated, *expected}
    }


def _task(
    sent: dict[Any, list[dict[str, Any]]],
    results: dict[str, Any],
    stated: int,
    expected: int | None,
    *,
    complete: bool,
) -> Task:
    published: dict[Any, dict[str, Any]] = {}
    fates: Counter[str] = Counter()
    for key, entries in sent.items():
        good = [one for one in entries if is_good(one["element"])]
        if good:
            winner = published[key] = max(good, key=lambda one: one["place"])
            fates.update(_fate(one, winner) for one in good if one is not winner)
        else:
            fates["rejected"] += 1
    filters = _filter_order({name for name, _ in sent}, results)
    keys = sorted(published, key=lambda key: _canonical(key, filters))
    elements = [published[key]["element"] for key in keys]
    counts = Counter(name for name, _ in keys)
    return Task(
        lines=[row_bytes(element) for element in elements],
        filters={name: counts[name] for name in filters if counts[name]},
        duplicates=fates["duplicates"],
        conflicts=fates["conflicts"],
        superseded=fates["superseded"],
        rejected=fates["rejected"],
        repaired=sum(mended(one["row"]) != one["row"] for one in elements),
        scores_dropped=sum(len(good_scores(one)) < len(one.get("scores", {})) for one in elements),
        missing=None if complete else _missing(keys, counts, stated, expected),
        task_hash=_lmms_hash(elements) if elements else None,
        scores=_scores(keys, elements),
    )


def _fate(loser: dict[str, Any], winner: dict[str, Any]) -> str:
    if loser["shard"] == winner["shard"] and loser["attempt"] < winner["attempt"]:
        return "superseded"
    return "duplicates" if row_bytes(loser["element"]) == row_bytes(winner["element"]) else "conflicts"


def _scores(keys: list[Any], elements: list[Any]) -> dict[tuple[str, str], list[float]]:
    scores: dict[tuple[str, str], list[float]] = {}
    for (name, _), element in zip(keys, elements, strict=True):
        for metric, score in good_scores(element).items():
            repeats = score if isinstance(score, list) else [score]
            if repeats:
                scores.setdefault((name, metric), []).append(sum(repeats) / len(repeats))
    return scores


def _lmms_hash(elements: list[Any]) -> str:
    parts = (f"sample_{i}{one['row'].get('doc_hash', EMPTY_DOC)}" for i, one in enumerate(elements))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _missing(keys: list[Any], counts: Counter[str], stated: int, expected: int | None) -> Any:
    """Ranges of documents that lack a row under some filter, or the number where ids are not all integers."""
    documents = max(counts.values(), default=0)
    number = max(stated - len(keys), (expected or 0) - documents)
    if number <= 0:
        return None
    if not keys or any(kind == "str" for _, (kind, _) in keys):
        return number
    end = expected if expected is not None else max(doc_id for _, (_, doc_id) in keys) + 1
    absent: list[tuple[int, int]] = []
    for name in counts:
        edge = 0
        for doc_id in sorted(doc_id for other, (_, doc_id) in keys if other == name and 0 <= doc_id < end):
            if doc_id > edge:
                absent.append((edge, doc_id - 1))
            edge = doc_id + 1
        if edge < end:
            absent.append((edge, end - 1))
    ranges: list[list[int]] = []
    for first, last in sorted(absent):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], last)
        else:
            ranges.append([first, last])
    return ranges or number
