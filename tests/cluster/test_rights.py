"""deploy/kafka/acls.sh: what it gives a role is what the role needs, no more and no less, on a real broker that asks."""

import json
import shutil
import subprocess
from contextlib import closing, contextmanager

import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ACLOperation, OffsetSpec, ResourceType
from kafka.errors import KafkaError

from consumer import assembly
from consumer.cli import cli
from consumer.errors import BrokerError
from consumer.kafka_client import admin
from tests.cluster.guarded import ACLS, USERS
from tests.conftest import unavailable
from tests.observing import Sending, produce, until
from tests.worker.evaluation import Evaluation

READ, WRITE = ACLOperation.READ, ACLOperation.WRITE
CREATE, DESCRIBE, CONFIGS = ACLOperation.CREATE, ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS

MATRIX = {
    # role: (samples and aggregates, receipts, dead letters, group)
    "producer": ({WRITE}, set(), set(), set()),
    "worker": ({READ, WRITE, CONFIGS}, {READ, WRITE, CONFIGS}, {WRITE, CONFIGS}, {READ}),
    "topics": ({CREATE, DESCRIBE, CONFIGS},) * 3 + (set(),),
    "operator": ({READ, WRITE}, set(), {READ, WRITE}, set()),
    "monitor": ({DESCRIBE}, set(), set(), {DESCRIBE}),
}


def as_matrix(rights):
    topics = ("eval.samples", "eval.aggregates", "eval.receipts", "eval.dead-letters")
    samples, aggregates, receipts, dead_letters = (
        {operation for *resource, operation in rights if resource == [ResourceType.TOPIC, name]}
        for name in topics
    )
    assert samples == aggregates
    group = {operation for *resource, operation in rights if resource == [ResourceType.GROUP, "evalsink"]}
    assert len(rights) == 2 * len(samples) + len(receipts) + len(dead_letters) + len(group)
    return samples, receipts, dead_letters, group


def run(*arguments, **variables):
    return subprocess.run(
        [ACLS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **variables},
    )


def call(*arguments):
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_it_would_do_is_shown_without_a_kafka_and_names_come_from_the_settings_variables():
    done = run(
        "print",
        "worker",
        "User:CN=evalsink,O=a b",
        EVALSINK_BROKERS="kafka:9093",
        EVALSINK_GROUP="another",
        EVALSINK_TOPICS_DEAD_LETTERS="dead",
        COMMAND_CONFIG="admin.properties",
    )
    assert (done.returncode, done.stderr) == (0, "")
    reading, writing = done.stdout.splitlines()
    begin = "kafka-acls.sh --bootstrap-server kafka:9093 --command-config admin.properties --add --allow-principal"
    assert reading.startswith(begin)
    assert writing.startswith(begin)
    assert "User:CN=evalsink\\,O=a\\ b" in reading
    assert "--topic eval.receipts --group another" in reading
    assert "--topic dead" in writing
    assert "--topic dead" not in reading


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("add", "worker"),
        ("grant", "worker", "User:a"),
        ("add", "admin", "User:a"),
        ("add", "worker", "a"),
    ],
)
def test_a_wrong_call_is_refused_with_the_usage_and_nothing_is_called(arguments):
    done = run(*arguments, KAFKA_ACLS="/nowhere/kafka-acls.sh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: acls.sh add|remove|print ROLE PRINCIPAL" in done.stderr
    assert "set -euo" not in done.stderr


@pytest.mark.system
def test_shellcheck_finds_nothing_in_it():
    if shutil.which("shellcheck") is None:
        unavailable("shellcheck is not there")
    done = subprocess.run(["shellcheck", ACLS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.kafka
def test_each_role_is_given_this_and_nothing_else(guarded_kafka):
    assert {role: as_matrix(rights) for role, rights in guarded_kafka.given.items()} == MATRIX


@pytest.mark.kafka
def test_giving_again_changes_nothing_and_removing_takes_all_of_it_from_that_user_alone(guarded_kafka):
    def everyone():
        return {user: guarded_kafka.rights(f"User:{user}") for user in USERS.values()}

    def acls(verb):
        said, _ = (running := guarded_kafka.start_acls(verb, "monitor", f"User:{monitor}")).communicate(
            timeout=120
        )
        assert 0 == running.returncode, said

    monitor, before = USERS["monitor"], everyone()
    acls("add")
    assert before == everyone()
    acls("remove")
    until(
        lambda: before[monitor] - everyone()[monitor] == guarded_kafka.given["monitor"], "what it had is gone"
    )
    assert before | {monitor: before[monitor] - guarded_kafka.given["monitor"]} == everyone()
    guarded_kafka.give(f"User:{monitor}", guarded_kafka.given["monitor"])


GARBAGE = b"no event at all"


def events(stage, mark):
    """A run that completes, one that is given up through the log in both topics, and a record for the dead letters."""
    complete, failed = Evaluation(f"complete-{mark}"), Evaluation(f"failed-{mark}", shards=1)
    sent = [*complete.events(), *failed.batches(0), failed.ended(0, status="failed")]
    return [*map(stage.record, sent), Sending(stage.topics.samples, f"bad-{mark}".encode(), GARBAGE)]


def finished(stage, marks):
    """The worker has done all of it: receipts, dead letters, and the commit behind the last record."""
    closed = {receipt.run_id: receipt.status for _, receipt in stage.receipts()}
    return closed == {
        f"{status}-{mark}": "complete" if status == "complete" else "failed"
        for mark in marks
        for status in ("complete", "failed")
    } and len(stage.letters()) == len(marks)


@contextmanager
def worker(guarded_kafka, stage, **changes):
    settings = guarded_kafka.user(
        "worker",
        stage,
        **{
            "grace_s": 0.3,
            "checkpoint_interval_s": 0.1,
            "session_timeout_ms": 6000,
            "group_instance_id": "",
            **changes,
        },
    ).settings
    with assembly.worker(settings) as running:
        yield running


def work(running, condition, what):
    until(lambda: running.tick() is not None and condition(), what, every_s=0)


@pytest.mark.kafka
def test_with_its_rights_each_role_does_all_of_its_work(guarded_kafka, tmp_path):
    stage = guarded_kafka.stage(tmp_path, make=False)
    call(
        "topics",
        "--config",
        guarded_kafka.settings_file("topics", stage),
        "--partitions",
        2,
        "--retention-days",
        14,
    )
    call("topics", "--config", guarded_kafka.settings_file("topics", stage), "--check")
    produce(guarded_kafka.user("producer", stage), events(stage, 0))
    with worker(guarded_kafka, stage) as running:
        work(running, lambda: finished(stage, [0]), "all of the worker's work")
        # What lmms-eval wrote goes the same way; ours stands for it.
        output = stage.folder / "output"
        call("publish", output, "--config", guarded_kafka.settings_file("producer", stage), "--shards", 2)
        work(running, lambda: len(stage.receipts()) == 4, "what was published is closed")
        running.run(exit_when_idle_s=0.2)  # it saves and leaves
    with admin(guarded_kafka.user("monitor", stage).connect()) as client:
        offsets = client.list_group_offsets([stage.group])[stage.group]
        ends = client.list_partition_offsets(dict.fromkeys(offsets, OffsetSpec.LATEST))
    assert {place: one.offset for place, one in ends.items()} == {
        place: one.offset for place, one in offsets.items()
    }
    operator = guarded_kafka.settings_file("operator", stage)
    [letter] = map(json.loads, call("dead-letters", "list", "--json", "--config", operator).splitlines())
    assert call("dead-letters", "show", letter["id"], "--raw", "--config", operator).encode() == GARBAGE
    call("dead-letters", "redrive", "--all", "--yes", "--config", operator)
    assert "" == call("dead-letters", "list", "--json", "--config", operator)
    assert "identical" in call("rebuild", "complete-0", "--config", operator, "--output", output)


class Doing:
    """What a role's user may try."""

    def __init__(self, guarded_kafka, stage, role):
        self._guarded, self._stage = guarded_kafka, stage
        self.user = guarded_kafka.user(role, stage)

    def read(self, topic):
        with self._consumer() as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            until(lambda: consumer.poll(100), f"records of {topic}", timeout_s=20)

    def join(self, group):
        with self._consumer(group_id=group) as consumer:
            consumer.subscribe([self._stage.topics.samples])
            until(lambda: consumer.poll(100), f"records for {group}", timeout_s=20)

    def write(self, topic):
        produce(self.user, [Sending(topic, b"k", b"v", partition=0)], max_block_ms=5000)

    def delete(self, topic):
        with admin(self.user.connect()) as client:
            client.delete_topics([topic])

    def grow(self, topic):
        with admin(self.user.connect()) as client:
            client.create_partitions({topic: 2})

    def _consumer(self, **options):
        settings = self.user.connect().settings
        return closing(
            KafkaConsumer(**settings, **options, auto_offset_reset="earliest", enable_auto_commit=False)
        )


@pytest.mark.kafka
def test_what_is_not_a_roles_work_is_refused_by_the_broker(guarded_kafka, tmp_path):
    stage = guarded_kafka.stage(tmp_path, partitions=1)
    samples, receipts, dead_letters = stage.topics.samples, stage.topics.receipts, stage.topics.dead_letters
    produce(
        guarded_kafka.outside, [Sending(topic, b"k", b"v") for topic in (samples, receipts, dead_letters)]
    )
    producer, worker, topics, operator, monitor = (Doing(guarded_kafka, stage, role) for role in USERS)
    # First where it may be done: so that what is refused is not for another reason.
    worker.read(samples)
    operator.read(dead_letters)
    producer.write(samples)
    worker.join(stage.group)
    for action, about, refused in (
        (producer.read, samples, "Topic"),
        (producer.write, receipts, "Topic"),
        (producer.join, stage.group, "Group"),
        (worker.read, dead_letters, "Topic"),
        (worker.delete, samples, "Topic"),
        (worker.grow, samples, "Topic"),
        (worker.join, "another-group", "Group"),
        (topics.write, samples, "Cluster"),  # who may write nowhere gets not even a producer's id
        (topics.delete, samples, "Topic"),
        (operator.write, receipts, "Topic"),
        (monitor.read, samples, "Topic"),
        (monitor.join, stage.group, "Group"),
    ):
        with pytest.raises(KafkaError, match=f"{refused}AuthorizationFailed"):
            action(about)


@pytest.mark.kafka
def test_each_right_of_the_worker_is_needed_and_when_it_is_back_nothing_was_lost(
    guarded_kafka, tmp_path, caplog
):
    stage = guarded_kafka.stage(tmp_path, partitions=1)
    user = f"User:{USERS['worker']}"
    # The one without which it works, but cannot tell whether the topic will do: it says so at each start.
    warned = (ResourceType.TOPIC, stage.topics.dead_letters, CONFIGS)
    rights = sorted(guarded_kafka.rights_of("worker", stage) - {warned}, key=str)
    assert len(rights) == 11
    marks = range(1 + len(rights))
    produce(guarded_kafka.outside, events(stage, marks[0]))
    with worker(guarded_kafka, stage) as running:
        work(running, lambda: finished(stage, marks[:1]), "all of the worker's work")
    for mark, right in zip(marks[1:], rights, strict=True):
        guarded_kafka.take(user, {right})
        produce(guarded_kafka.outside, events(stage, mark))
        with pytest.raises(BrokerError) as refusal, worker(guarded_kafka, stage) as running:
            work(running, lambda: False, f"the worker's end for want of {right}")
        assert right[1] in str(refusal.value), "it says where"
        guarded_kafka.give(user, {right})
    assert not [record for record in caplog.records if record.message == "topic_unfit"]
    guarded_kafka.take(user, {warned})
    with worker(guarded_kafka, stage) as running:
        work(running, lambda: finished(stage, marks), "all of the worker's work")
    [line] = [record.fields for record in caplog.records if record.message == "topic_unfit"]
    assert "DescribeConfigs" in line["reason"]
