"""A worker group and all that may happen to it, as a state machine that hypothesis drives.

At the end of every example everybody is started undisturbed and works until nothing is left. Then the published tree, the dead
letters and the receipts must be those of one undisturbed worker that reads the same log from its beginning, with an empty disk;
and what `tests.runs.oracle` says of every run, which was written from the rules alone.
"""

import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from consumer.errors import BrokerError
from consumer.intake.decode import Rejection, decode
from consumer.runs.checkpoint import CHECKPOINT_FILE
from schemas.events import RunExpired
from tests.proof.authors import Author, garbage
from tests.proof.cluster import APART, PARTITIONS, TOGETHER, Cluster
from tests.proof.members import ABANDON_AFTER_S, GRACE_S, LOST_STATE_KEEP_S, Member
from tests.proof.mortality import Killed, Storage, watching
from tests.runs import oracle
from tests.runs.logs import operations, tree
from tests.runs.test_model import check_published

NAMES = ("ann", "bob", "cyd")
RUNS = ("r0", "r1", "r\u00e9/2", "r3")

SOME_ROWS = {
    "type": "samples",
    "task": "mme",
    "filter": "none",
    "samples": [{"doc_id": number, "row": {"doc_id": number}} for number in range(3)],
    "shard": 1,
    "attempt": 0,
    "more_shards": 0,
}

LOSSES = ("expired", "foreign", "half")
"""How the group's commits of a partition are lost: all, overwritten by a tool, or those of one topic."""

whom = st.integers(0, len(NAMES) - 1)
seeds = st.integers(0, 2**16)
few = st.integers(1, 6)

totals: Counter[str] = Counter()
"""What happened in all examples of this process, for the report."""


class WorkerGroup(RuleBasedStateMachine):
    """Three workers without a shared disk, one output folder, two partitions, four runs."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")  # noqa: S108 - SQLite's syncs cost nothing there
        self.home = Path(tempfile.mkdtemp(prefix="proof-", dir=shm if shm.is_dir() else None))
        self.output = self.home / "output"
        self.output.mkdir()
        self.storage = Storage(self.output)
        self.members: dict[str, Member] = {}
        self.damaged: set[str] = set()
        self.has_failed = False
        # Tens of thousands of lines that nobody reads.
        logging.getLogger("consumer").setLevel(logging.CRITICAL)
        self._watch = watching()
        self._watch.__enter__()

    @initialize(
        together=st.sampled_from([False, False, True]),
        workers=st.integers(0, 3),
        dice=seeds,
        whole=st.lists(st.sampled_from(RUNS), max_size=3),
    )
    def begin(self, together: bool, workers: int, dice: int, whole: Sequence[str] = ()) -> None:
        self.cluster = Cluster(TOGETHER if together else APART, self.storage)
        self.author = Author(self.cluster, RUNS)
        totals["examples"] += 1
        for run in whole:
            self.author.finish(run, [SOME_ROWS, SOME_ROWS], random.Random(dice), shuffled=False)
        for name in NAMES[:workers]:
            self.enter(name)
        deal(self.cluster, self.members.values(), random.Random(dice))

    # What is sent

    @rule(run=st.sampled_from(RUNS), body=st.lists(operations, min_size=1, max_size=6), dice=seeds)
    def send(self, run: str, body: list[Any], dice: int) -> None:
        self.author.write(run, body, random.Random(dice))

    @rule(
        run=st.sampled_from(RUNS), body=st.lists(operations, max_size=4), dice=seeds, shuffled=st.booleans()
    )
    def send_to_its_end(self, run: str, body: list[Any], dice: int, shuffled: bool) -> None:
        self.author.finish(run, body, random.Random(dice), shuffled=shuffled)

    @rule(run=st.sampled_from(RUNS), dice=seeds)
    def send_again(self, run: str, dice: int) -> None:
        self.author.repeat(run, random.Random(dice))

    # What workers do

    @precondition(lambda self: len(self.members) < len(NAMES))
    @rule(who=whom, disk=st.sampled_from(["as it is"] * 4 + ["empty", "damaged"]), dice=seeds)
    def start(self, who: int, disk: str, dice: int) -> None:
        absent = [name for name in NAMES if name not in self.members]
        name = absent[who % len(absent)]
        folder = self.home / name
        if disk == "empty":
            shutil.rmtree(folder, ignore_errors=True)
            self.damaged.discard(name)
        elif disk == "damaged":
            damage(folder / "state", random.Random(dice))
        totals[f"starts, disk {disk}"] += 1
        if disk == "damaged":
            self.damaged.add(name)
        self.enter(name)
        self.rebalance(dice=dice, asleep="")

    @precondition(lambda self: self.members)
    @rule(
        who=whom, turns=few, records_max=st.integers(1, 12), dice=seeds, seconds=st.sampled_from([0, 0.4, 1])
    )
    def work(self, who: int, turns: int, records_max: int, dice: int, seconds: float) -> None:
        """Turns of the loop, its jobs done and its records delivered now and then."""
        die = random.Random(dice)
        name = self.name_of(who)
        for _ in range(turns):
            self.act(name, lambda member: member.tick(records_max, die))
            if die.random() < 0.5:
                self.act(name, lambda member: member.scribe.work())
            if die.random() < 0.3:
                self.act(name, lambda member: member.hands.work())
            if die.random() < 0.5:
                self.act(name, lambda member: member.producer.deliver(die))
            self.cluster.now_s += seconds

    @precondition(lambda self: self.members)
    @rule(dice=seeds, turns=few)
    def work_together(self, dice: int, turns: int) -> None:
        """All do their work, in turns."""
        for turn in range(turns):
            for who, _ in enumerate(list(self.members)):
                self.work(who=who, turns=1, records_max=8, dice=dice + turn, seconds=0.4)

    @precondition(lambda self: self.members)
    @rule(who=whom, records_max=st.integers(1, 4), dice=seeds)
    def read(self, who: int, records_max: int, dice: int) -> None:
        """One turn, and nothing else."""
        self.act(who, lambda member: member.tick(records_max, random.Random(dice)))

    @precondition(lambda self: self.members)
    @rule(who=whom, operations=st.integers(0, 30), first=st.integers(0, 3), scribe=st.booleans())
    def work_a_bit_on_a_job(self, who: int, operations: int, first: int, scribe: bool) -> None:
        self.act(
            who,
            lambda member: (member.scribe if scribe else member.hands).work(operations, first=first),
        )

    @precondition(lambda self: self.members)
    @rule(who=whom, number=st.integers(1, 4), thank=st.booleans(), dice=seeds)
    def deliver(self, who: int, number: int, thank: bool, dice: int) -> None:
        self.act(who, lambda member: member.producer.deliver(random.Random(dice), number, thank=thank))

    @precondition(lambda self: self.members)
    @rule(who=whom)
    def stop(self, who: int) -> None:
        name = self.name_of(who)
        totals["orderly stops"] += 1
        self.act(name, lambda member: member.stop())
        if (member := self.members.pop(name, None)) is not None:
            member.let_go()

    @rule(seconds=st.sampled_from([1.0, 6.0, 61.0, GRACE_S + 1, ABANDON_AFTER_S + 1]))
    def wait(self, seconds: float) -> None:
        self.cluster.now_s += seconds

    # What happens to them

    @precondition(lambda self: self.members)
    @rule(who=whom, operations=st.integers(0, 60), power=st.booleans())
    def doom(self, who: int, operations: int, power: bool) -> None:
        """It will be killed so many durable operations from now."""
        member = self.members[self.name_of(who)]
        member.process.lives, member.loses_power = operations, power

    @precondition(lambda self: self.members)
    @rule(
        who=whom,
        how=st.sampled_from(["disk", "disk", "kill", "power cut", "black-out"]),
        dice=seeds,
        number=st.integers(1, 12),
    )
    def harm(self, who: int, how: str, dice: int, number: int) -> None:
        die = random.Random(dice)
        name = self.name_of(who)
        if how == "disk":
            self.members[name].process.no_room = number
            self.members[name].process.short_writes = number % 4
            totals["full disks"] += 1
        elif how == "black-out":
            totals["black-outs"] += 1
            for one in list(self.members):
                self.members[one].loses_power = True
                self.bury(one, die)
            self.storage.lose_power(self.output, die)
        else:
            self.members[name].loses_power = how == "power cut"
            self.bury(name, die)

    @rule(dice=seeds, asleep=st.sampled_from(["", "", *NAMES]))
    def rebalance(self, dice: int, asleep: str) -> None:
        """Partitions are dealt out anew. Who is asleep goes on with what it had."""
        die = random.Random(dice)
        if len(self.members) > 1 and asleep:
            name = asleep if asleep in self.members else min(self.members)
            self.members[name].source.asleep = die.choice(["stopped", "replaced"])
            totals["zombies"] += 1
        deal(self.cluster, self.members.values(), die)
        totals["rebalances"] += 1

    @rule(
        what=st.sampled_from(["garbage", "gap", "wake", "refused", "away", "compaction", *LOSSES]),
        who=whom,
        number=st.integers(0, len(garbage) - 1),
        aggregates=st.booleans(),
    )
    def trouble_with_kafka(self, what: str, who: int, number: int, aggregates: bool) -> None:
        """Of one kind or another; `number` and `aggregates` say where, and how much."""
        cluster, partition = self.cluster, who % len(PARTITIONS)
        topic = cluster.topics.aggregates if aggregates else cluster.topics.samples
        if what == "garbage":
            cluster.append(topic, partition, *garbage[number])
        elif what == "gap":
            cluster.skip(topic, partition, number)
        elif what == "compaction":
            cluster.compact(cluster.topics.receipts)
            cluster.compact(cluster.topics.dead_letters)
        elif what in LOSSES:
            cluster.forget_commits(partition, what)
            totals["lost commits"] += 1
        elif self.members:
            source = self.members[self.name_of(who)].source
            if what == "wake":
                source.asleep = ""
            elif what == "refused":
                source.refusals = number
            else:
                source.away = number

    # How it is done

    def enter(self, name: str) -> None:
        member = self.members[name] = Member(self.cluster, self.home / name, self.output, name)
        with member.process:
            member.start(keeps_all=name not in self.damaged)

    def name_of(self, who: int) -> str:
        """Of those who are there, the one of that number."""
        return sorted(self.members)[who % len(self.members)]

    def act(self, who: int | str, call: Any) -> None:
        """Have a member do something; it may die of it."""
        if not self.members:
            return
        name = self.name_of(who) if isinstance(who, int) else who
        member = self.members.get(name)
        if member is None:
            return
        try:
            with member.process:
                call(member)
        except Killed:
            self.bury(name, random.Random(member.process.operations))
        except BrokerError:
            totals["ended by Kafka"] += 1
            self.bury(name, random.Random(member.process.operations))
        except BaseException:
            self.has_failed = True
            raise

    def bury(self, name: str, die: random.Random) -> None:
        """It is gone; some of what it had handed over to the network is written all the same."""
        totals["kills"] += 1
        member = self.members.pop(name)
        if member.producer is not None:
            member.producer.deliver(die, die.randint(0, 5))
        member.let_go()
        if member.loses_power:
            totals["power cuts"] += 1
            self.storage.lose_power(member.folder, die)

    def teardown(self) -> None:
        try:
            if not self.has_failed and hasattr(self, "cluster"):
                self.check()
        finally:
            for member in self.members.values():
                member.let_go()
            self._watch.__exit__(None, None, None)
            logging.getLogger("consumer").setLevel(logging.NOTSET)
            shutil.rmtree(self.home, ignore_errors=True)

    def check(self) -> None:
        """Everybody is left alone; then all must be as if everybody always had been."""
        for member in self.members.values():
            member.undisturb()
        for name in NAMES:
            if name not in self.members:
                self.enter(name)
        deal(self.cluster, self.members.values(), random.Random(0))
        work_to_the_end(self.members.values(), self.cluster)
        self.cluster.now_s += LOST_STATE_KEEP_S  # what others have had for long is forgotten
        work_to_the_end(self.members.values(), self.cluster)
        group = list(self.members.values())
        assert not [run for member in group for run in member.worker.violations]
        for member in group:
            with member.process:
                member.stop()
            member.let_go()
        self.members.clear()
        for place, end in self.cluster.ends.items():
            if place.topic in self.cluster.ids:
                assert self.cluster.committed[place].offset == end
                metadata = msgspec.json.decode(self.cluster.committed[place].metadata)
                assert metadata["w"] == end, "a watermark stays behind"
        assert not list(self.home.glob("*/state/runs/*/*")), "a folder of a closed run is left"
        self.compare(*self.undisturbed())
        totals["operations"] += sum(member.process.operations for member in group)
        totals["records"] += len(self.cluster.inputs())
        totals["runs closed"] += len(self.cluster.receipts)

    def undisturbed(self) -> tuple[Cluster, Path]:
        """One worker, to which nothing happens, reads the same log."""
        home = self.home / "undisturbed"
        output = home / "output"
        output.mkdir(parents=True)
        cluster = self.cluster.copy_inputs(Storage(output))
        inputs = len(cluster.inputs())
        member = Member(cluster, home, output, "undisturbed")
        try:
            with member.process:
                member.start()
            deal(cluster, [member], random.Random(1))
            work_to_the_end([member], cluster)
            assert not member.worker.violations
        finally:
            member.let_go()
        assert len(cluster.inputs()) == inputs, "the undisturbed worker had to ask for something"
        return cluster, output

    def compare(self, other: Cluster, output: Path) -> None:
        mine, alone = tree(self.output), tree(output)
        published = {path: content for path, content in mine.items() if not path.startswith("partial/")}
        assert published == alone
        assert self.cluster.receipts == other.receipts
        letters = [
            {key: (one.value, one.headers) for key, one in cluster.letters.items()}
            for cluster in (self.cluster, other)
        ]
        assert letters[0] == letters[1]
        self.compare_with_oracle(published)

    def compare_with_oracle(self, published: dict[str, bytes]) -> None:
        cluster = self.cluster
        topics = oracle.Topics(cluster.topics.samples, cluster.topics.aggregates)
        log = []
        buried = set()
        with_bad_rows = set()
        for record in cluster.inputs():
            event = decode(record.value, record.key, cluster.roles(record.topic))
            place = (record.partition, record.topic, record.offset)
            if isinstance(event, Rejection):
                buried.add((*place, event.reason))
                continue
            if getattr(event, "rejected", ()):
                with_bad_rows.add(place)
            sent = self.author.sent.get(place)
            if sent is None:
                assert isinstance(event, RunExpired)
                sent = {"type": "run_expired", "run_id": event.run_id, "last": event.last}
            log.append((record.partition, oracle.Sent(record.topic, record.offset, record.timestamp, sent)))
        files: set[str] = set()
        for number, run_id in enumerate(RUNS):
            partition = number % len(PARTITIONS)
            verdict = oracle.judge(run_id, [one for place, one in log if place == partition], topics)
            receipt = cluster.receipts.get(run_id)
            if verdict is None or verdict.status is None:
                assert receipt is None
                continue
            assert receipt is not None
            buried |= {(partition, *place, reason) for place, reason in verdict.refused.items()}
            files |= check_published(run_id, verdict, _Outcome({run_id: receipt}, published))
            totals[verdict.status] += 1
        late = {place[:3] for place in buried}
        buried |= {(*place, "bad-rows") for place in with_bad_rows - late}
        assert files == published.keys()
        assert buried == {
            (
                int(headers["partition"]),
                headers["topic"].decode(),
                int(headers["offset"]),
                headers["reason"].decode(),
            )
            for headers in (dict(one.headers) for one in cluster.letters.values())
        }


class _Outcome:
    """What `check_published` asks for."""

    def __init__(self, closed: dict[str, Any], tree: dict[str, bytes]) -> None:
        self.closed, self.tree = closed, tree


def deal(cluster: Cluster, members: Any, die: random.Random) -> None:
    """Every partition to one of those who are awake."""
    cluster.generation += 1
    awake = [member for member in members if not member.source.asleep]
    owned: dict[str, set[int]] = {member.name: set() for member in awake}
    for partition in PARTITIONS if awake else ():
        owned[die.choice(awake).name].add(partition)
    for member in members:
        member.source.pending.append((cluster.generation, frozenset(owned.get(member.name, ()))))


def work_to_the_end(members: Any, cluster: Cluster) -> None:
    """Work undisturbed until all is read and every run is closed."""
    die = random.Random(0)
    quiet = 0
    for turn in range(2000):
        moved = False
        for member in members:
            with member.process:
                moved |= member.tick(50, die)
                member.hands.work()
                member.scribe.work()
                member.producer.deliver(die)
        cluster.now_s += 0.6
        at_rest = not moved and all(member.is_at_rest() for member in members)
        quiet = quiet + 1 if at_rest else 0
        if quiet >= 6:
            if not any(member.open_runs() for member in members):
                return
            if turn % 5 == 0:
                cluster.now_s += ABANDON_AFTER_S
    raise AssertionError("the group does not come to rest")


def damage(state: Path, die: random.Random) -> None:
    """One file of a worker's disk is not what it was."""
    files = [path for path in state.rglob("*") if path.is_file() and path.name not in {"lock", "worker-id"}]
    if not files:
        return
    path = die.choice(sorted(files))
    content = path.read_bytes()
    if path.suffix == ".jsonl" and content and die.random() < 0.5:
        place = die.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif path.name == CHECKPOINT_FILE or path.name.startswith("receipts"):
        path.write_bytes(die.choice([b"", b"{}", content[: len(content) // 2], b"\xff" * 200]))
    elif die.random() < 0.5:
        path.unlink()
    else:
        path.write_bytes(content[: die.randint(0, len(content))])
