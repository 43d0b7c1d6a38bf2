"""Three static members over SASL_SSL, restarted one after the other while runs come in: nobody else notices."""

import random
import re
import signal
from collections import Counter
from contextlib import ExitStack

import pytest

from consumer.kafka_client import admin
from tests.hand_over.processes import published, workers
from tests.observing import produce, until
from tests.worker.evaluation import Evaluation

pytestmark = [pytest.mark.kafka, pytest.mark.long]

SEED = 5
WORKERS = 3
RUNS = 100
STEPS_OF_A_RESTART = 4
PORTIONS = 1 + WORKERS * STEPS_OF_A_RESTART


def portions(stage, dice):
    """The records of all runs: each begins and ends somewhere on the way, so that at any time many are open."""
    records = []
    for number in range(RUNS):
        tasks = [(task, dice.randint(5, 30)) for task in dice.sample(["mme", "gsm8k", "a/b", "é"], 2)]
        run = Evaluation(f"run/{number}", tasks=tasks, shards=dice.randint(1, 4), batch=dice.randint(1, 4))
        events, begin = list(run.events()), dice.uniform(0, 0.7)
        moments = sorted(begin + dice.uniform(0, 0.3) for _ in events)  # in order: nothing of it is late
        records += [(moment, stage.record(event)) for moment, event in zip(moments, events, strict=True)]
    records.sort(key=lambda one: one[0])
    size = len(records) // PORTIONS + 1
    return [[record for _, record in records[at : at + size]] for at in range(0, len(records), size)]


class Group:
    """What Kafka's coordinator says of a group: in its answers, and, of rebalances, in its log alone."""

    def __init__(self, guarded_kafka, name):
        self._guarded, self._name = guarded_kafka, name

    def rebalances(self):
        """The reason of each so far."""
        return self._said(rf"Preparing to rebalance group {re.escape(self._name)} .*\(reason: (.*)\)")

    def replaced(self):
        """The static members of which a new process came while the group was stable."""
        return self._said(
            rf"groupInstanceId=(\S+) and unknown member id joins group {re.escape(self._name)} in Stable state. "
            "Replacing"
        )

    def shares(self):
        """The partitions of each member, by its group_instance_id; None while the group is not stable."""
        with admin(self._guarded.outside.connect()) as client:
            group = client.describe_groups([self._name])[self._name]
        if group["group_state"] != "Stable":
            return None
        return {
            member["group_instance_id"]: sorted(
                (part["topic"], tuple(part["partitions"]))
                for part in member["member_assignment"]["assigned_partitions"]
            )
            for member in group["members"]
        }

    def _said(self, pattern):
        return re.findall(pattern, self._guarded.kafka.log.read_text("utf-8"))


class Member:
    """One of the workers, over all its lives."""

    def __init__(self, start, state):
        self._start, self._state = start, state
        self._first = self.life = start(state)

    def begin(self):
        self.life = self._start(self._state)

    def assigned(self):
        """The partitions of each assignment of this life."""
        return [line["partitions"] for line in self.life.lines("partitions_assigned")]

    def has_its_share(self):
        return [len(partitions) for partitions in self.assigned()[-1:]] == [2]

    def closed(self):
        """The runs it closed, in all lives: they write one log, which is read from where the first began."""
        return [line["run_id"] for line in self._first.lines("run_closed")]


def test_a_rolling_restart_of_static_members_while_runs_come_in_moves_no_partition_and_loses_nothing(
    guarded_kafka, tmp_path
):
    stage = guarded_kafka.stage(tmp_path, partitions=2 * WORKERS)
    group = Group(guarded_kafka, stage.group)
    left = portions(stage, random.Random(SEED))
    assert len(left) == PORTIONS
    evaluators = guarded_kafka.user("producer", stage)
    output = tmp_path / "output"

    def send():
        produce(evaluators, left.pop(0))

    with ExitStack() as stack:
        members = []
        for number in range(WORKERS):
            config = guarded_kafka.settings_file(
                "worker",
                stage,
                name=f"worker-{number}",
                group_instance_id=f"evalsink-{number}",
                checkpoint_interval_s=0.2,
                poll_records_max=50,
                http="",
            )
            start = stack.enter_context(workers(config, output))
            members.append(Member(start, tmp_path / f"worker-{number}"))
        for member in members:
            member.life.until(member.has_its_share, "a third of the partitions")
        shares = until(group.shares, "the group is stable")
        before, assigned = group.rebalances(), [member.assigned() for member in members]
        assert [2] * WORKERS == [len(one[-1]) for one in assigned]
        send()
        for number, member in enumerate(members):
            member.life.signal(signal.SIGTERM)
            send()
            assert 0 == member.life.exit_code()
            send()
            member.begin()
            send()
            member.life.until(member.assigned, "its partitions again")
            assert [assigned[number][-1]] == member.assigned()
            assigned[number] = member.assigned()
            send()
        assert [] == left
        until(lambda: published(output) == RUNS, "every run published")
        # Files come before their receipt; one who is stopped in between leaves the run to the next start.
        until(lambda: len(stage.receipts()) >= RUNS, "every run's receipt")
        assert before == group.rebalances()
        assert [f"evalsink-{number}" for number in range(WORKERS)] == group.replaced()
        assert shares == group.shares()
        assert assigned == [member.assigned() for member in members]
        assert [0] * WORKERS == [member.life.terminate() for member in members]
    everything = {f"run/{number}": 1 for number in range(RUNS)}
    assert everything == Counter(receipt.run_id for _, receipt in stage.receipts())
    assert everything == Counter(run_id for member in members for run_id in member.closed())
    assert [] == stage.letters()
    stage.work(group="-alone", state="alone", output="undisturbed")
    assert stage.tree() == stage.tree("undisturbed")
    assert {"complete"} == {results["evalsink"]["status"] for results in stage.results().values()}
