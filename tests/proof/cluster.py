"""A Kafka in memory: input topics, receipts, dead letters and committed offsets, all deterministic.

`Source` is the seam that the worker reads through. What it writes, and how it reads receipts, goes through stand-ins for the
client's own classes (`KafkaProducer`, `KafkaConsumer`), so that `Outbound` and `Receipts` are the real ones.

Asserted at every commit: no offset and no watermark falls, and no watermark passes a record that is not accounted for. At
every receipt: what it says is published, durably.
"""

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from consumer.errors import BrokerAwayError, BrokerError
from consumer.intake.decode import Rejection, decode
from consumer.intake.resume import Committed, TopicEnds, parse_metadata
from consumer.intake.source import Assigned, Assignment, CommitRefused, Lost
from consumer.runs.book import role_of
from consumer.settings import Topics
from consumer.vocabulary import Record, TopicPartition
from schemas.events import RunExpired
from schemas.state import Receipt
from tests.proof.mortality import Process

PARTITIONS = (0, 1)
TOGETHER = Topics(samples="events", aggregates="events", receipts="receipts", dead_letters="letters")
APART = Topics(samples="samples", aggregates="aggregates", receipts="receipts", dead_letters="letters")


class Cluster:
    """The log and the group's commits."""

    def __init__(self, topics: Topics, storage: Any) -> None:
        self.topics = topics
        self.ids = {topic: f"id-of-{topic}" for topic in topics.inputs}
        self.storage = storage
        self.now_s = 1_800_000_000.0
        self.log: dict[TopicPartition, list[Record]] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.generation = 0
        self.owners: dict[int, str] = {}
        self.committed: dict[TopicPartition, Committed] = {}
        self.receipts: dict[str, Receipt] = {}
        self.letters: dict[bytes, Record] = {}
        self.commits = 0
        self._checked: dict[TopicPartition, int] = {}

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> int:
        place = TopicPartition(topic, partition)
        offset = self.ends.get(place, 0)
        record = Record(topic, partition, offset, int(self.now_s * 1000), key, value, tuple(headers))
        self.log.setdefault(place, []).append(record)
        self.ends[place] = offset + 1
        if topic == self.topics.receipts:
            self._note_receipt(record)
        elif topic == self.topics.dead_letters:
            assert key is not None
            first = self.letters.setdefault(key, record)
            assert (first.value, first.headers) == (record.value, record.headers), "two letters of one record"
        return offset

    def skip(self, topic: str, partition: int, number: int) -> None:
        """Offsets without a record, as transactions leave them."""
        place = TopicPartition(topic, partition)
        self.ends[place] = self.ends.get(place, 0) + number

    def end(self, place: TopicPartition) -> int:
        return self.ends.get(place, 0)

    def inputs(self) -> list[Record]:
        return [
            record for place, records in self.log.items() if place.topic in self.ids for record in records
        ]

    def compact(self, topic: str) -> None:
        """Of each key the last record stays; offsets do."""
        for place, records in self.log.items():
            if place.topic == topic:
                last = {record.key: record.offset for record in records}
                records[:] = [record for record in records if last[record.key] == record.offset]

    def copy_inputs(self, storage: Any) -> "Cluster":
        """The same input topics, read by nobody yet."""
        other = Cluster(self.topics, storage)
        other.now_s = self.now_s
        for place, records in self.log.items():
            if place.topic in self.ids:
                other.log[place] = list(records)
        other.ends = {place: end for place, end in self.ends.items() if place.topic in self.ids}
        return other

    def forget_commits(self, partition: int, how: str) -> None:
        """Expired, overwritten by a tool, or set back by an operator."""
        for topic in self.topics.inputs:
            place = TopicPartition(topic, partition)
            found = self.committed.pop(place, None)
            self._checked.pop(place, None)
            if how == "foreign" and found is not None:
                self.committed[place] = Committed(found.offset, "a tool was here")
            elif how == "half" and found is not None and topic == self.topics.samples:
                self.committed[place] = found

    def roles(self, topic: str) -> Any:
        both = self.topics.samples == self.topics.aggregates
        return "both" if both else "samples" if topic == self.topics.samples else "aggregates"

    def letter_key(self, record: Record) -> bytes:
        return f"{self.ids[record.topic]}/{record.partition}/{record.offset}".encode()

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        self.commits += 1
        for place, one in offsets.items():
            metadata = parse_metadata(one, self.ids[place.topic])
            assert metadata is not None
            before = [self.committed.get(TopicPartition(topic, place.partition)) for topic in self.ids]
            ours = [
                one and parse_metadata(one, topic_id)
                for one, topic_id in zip(before, self.ids.values(), strict=True)
            ]
            if all(ours):
                former = self.committed[place]
                former_metadata = parse_metadata(former, self.ids[place.topic])
                assert former_metadata is not None
                assert former.offset <= one.offset, ("the offset falls", place, former, one)
                assert former_metadata.watermark <= metadata.watermark, ("the watermark falls", place)
            assert metadata.watermark <= one.offset
            self._check_watermark(place, metadata.watermark)
        self.committed.update(offsets)

    def _check_watermark(self, place: TopicPartition, watermark: int) -> None:
        checked = self._checked.get(place, 0)
        for record in self.log.get(place, []):
            if checked <= record.offset < watermark:
                assert self.is_accounted_for(record), ("the watermark passes", place, watermark, record)
        self._checked[place] = max(checked, watermark)

    def is_accounted_for(self, record: Record) -> bool:
        """It stands in a run that has its receipt, or in a dead letter, or is a question of a worker."""
        event = decode(record.value, record.key, self.roles(record.topic))
        if isinstance(event, Rejection):
            return self.letter_key(record) in self.letters
        if isinstance(event, RunExpired):
            return True
        receipt = self.receipts.get(event.run_id)
        if receipt is None:
            # Above a cut that is decided: it is late whether the run has been closed by now or not.
            letter = self.letters.get(self.letter_key(record))
            return letter is not None and ("reason", b"late") in letter.headers
        cut = receipt.samples if role_of(event) == "samples" else receipt.aggregates
        if record.offset > cut.offset or getattr(event, "rejected", ()):
            return self.letter_key(record) in self.letters
        return True

    def _note_receipt(self, record: Record) -> None:
        receipt = msgspec.json.decode(record.value or b"", type=Receipt)
        assert record.key == f"{receipt.group}/{receipt.run_id}".encode()
        first = self.receipts.setdefault(receipt.run_id, receipt)
        assert first == receipt, ("a run has two receipts", first, receipt)
        path = self.storage.output / receipt.results
        assert self.storage.is_durable(path), f"a receipt before {path} was durable"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == receipt.sha256


class Future:
    """What a producer returns."""

    def __init__(self, producer: "Producer", record: tuple[Any, ...]) -> None:
        self._producer, self.record = producer, record
        self.is_written = self.is_done = False
        self.exception = None

    def failed(self) -> bool:
        return False

    def get(self, timeout: float) -> None:
        self._producer.deliver(random.Random(0))
        assert self.is_done


class Producer:
    """Stands for `KafkaProducer`: what was handed over is written, and thanked for, when it is told to."""

    def __init__(self, *, cluster: Cluster, process: Process, **_: Any) -> None:
        self._cluster, self._process = cluster, process
        self.waiting: list[Future] = []

    def send(self, topic: str, *, key: Any, value: Any, headers: Any, partition: int | None) -> Future:
        self._process.point()
        self.waiting.append(Future(self, (topic, partition or 0, key, value, headers)))
        return self.waiting[-1]

    def deliver(self, dice: random.Random, number: int | None = None, *, thank: bool = True) -> None:
        """Write so many (None: all), each partition's in order, and thank for what is written."""
        unwritten = [one for one in self.waiting if not one.is_written]
        for _ in range(len(unwritten) if number is None else min(number, len(unwritten))):
            places = list(dict.fromkeys(one.record[:2] for one in unwritten))
            place = dice.choice(places)
            future = next(one for one in unwritten if one.record[:2] == place)
            unwritten.remove(future)
            self._cluster.append(*future.record)
            future.is_written = True
        if thank:
            for future in self.waiting:
                future.is_done = future.is_written
            self.waiting = [one for one in self.waiting if not one.is_done]

    def close(self, timeout: float) -> None:
        self.deliver(random.Random(0))


class _Read(NamedTuple):
    key: bytes
    value: bytes


class Reader:
    """Stands for `KafkaConsumer` where receipts are read."""

    def __init__(self, *, cluster: Cluster, process: Process, **_: Any) -> None:
        self._cluster = cluster
        self._position = 0

    def beginning_offsets(self, places: Any) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: Any) -> dict[Any, int]:
        return {place: self._cluster.end(TopicPartition(place.topic, place.partition)) for place in places}

    def assign(self, places: Any) -> None:
        [self._place] = places

    def seek(self, place: Any, position: int) -> None:
        self._position = position

    def poll(self, timeout_ms: int) -> dict[Any, list[_Read]]:
        place = TopicPartition(self._place.topic, self._place.partition)
        found = [one for one in self._cluster.log.get(place, []) if one.offset >= self._position][:2]
        self._position = found[-1].offset + 1 if found else self._cluster.end(place)
        return {self._place: [_Read(one.key or b"", one.value or b"") for one in found]}

    def position(self, place: Any, timeout_ms: int) -> int:
        return self._position

    def close(self) -> None:
        pass


class Source:
    """A member of the group. It hears of rebalances when it polls, unless it is asleep."""

    def __init__(self, cluster: Cluster, process: Process, name: str) -> None:
        self._cluster, self._process, self.name = cluster, process, name
        self.generation = -1
        self.asleep = ""
        self.records_max = 5
        self.dice = random.Random(0)
        self.refusals = 0
        self.away = 0
        self.pending: list[tuple[int, frozenset[int]]] = []
        self._noted: list[Assignment] = []
        self._owned: frozenset[int] = frozenset()
        self._flowing: dict[TopicPartition, int] = {}

    def poll(self) -> Sequence[Record]:
        self._hear()
        records: list[Record] = []
        taken = 0
        places = list(self._flowing)
        while places and taken < self.records_max:
            place = self.dice.choice(places)
            number = self.dice.randint(1, self.records_max - taken)
            log = self._cluster.log.get(place, [])
            found = [one for one in log if one.offset >= self._flowing[place]][:number]
            if found and self.dice.random() < 0.1:
                records += [one for one in log if one.offset < self._flowing[place]][
                    -1:
                ]  # again, for nothing
            records += found
            taken += len(found)
            if len(found) < number:
                places.remove(place)
                self._flowing[place] = max(self._flowing[place], self._cluster.end(place))
            else:
                self._flowing[place] = found[-1].offset + 1
        return records

    def hold(self) -> None:
        self._hear()

    def assignments(self) -> Sequence[Assignment]:
        noted, self._noted = self._noted, []
        return noted

    def committed(self, partition: int) -> Mapping[str, Committed | None]:
        self._answer()
        return {
            topic: self._cluster.committed.get(TopicPartition(topic, partition))
            for topic in self._cluster.ids
        }

    def ends(self, partitions: Collection[int]) -> Mapping[TopicPartition, TopicEnds]:
        self._answer()
        places = [TopicPartition(topic, one) for topic in self._cluster.ids for one in partitions]
        return {place: TopicEnds(0, self._cluster.end(place)) for place in places}

    def end_as_heard(self, place: TopicPartition) -> int | None:
        return None

    def start(self, partition: int, offsets: Mapping[str, int]) -> None:
        self._flowing |= {TopicPartition(topic, partition): offset for topic, offset in offsets.items()}

    def position(self, partition: int) -> Mapping[str, int]:
        self._answer()
        return {topic: self._flowing[TopicPartition(topic, partition)] for topic in self._cluster.ids}

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        self._process.point()
        if self.refusals:
            self.refusals -= 1
            raise CommitRefused("a rebalance is on")
        if self.generation != self._cluster.generation:
            if self.asleep == "replaced":
                raise BrokerError("another worker has this worker's group_instance_id")
            self.asleep = ""
            raise CommitRefused("not a member of this generation")
        if offsets:
            self._cluster.commit(offsets)
        self._process.point()

    def close(self) -> None:
        self._flowing = {}

    def _hear(self) -> None:
        if self.asleep:
            return
        for generation, partitions in self.pending:
            self._noted += [Lost(self._owned), Assigned(partitions)]
            self._owned, self.generation = partitions, generation
            self._flowing = {}
        self.pending = []

    def _answer(self) -> None:
        if self.away:
            self.away -= 1
            raise BrokerAwayError("Kafka did not answer")
