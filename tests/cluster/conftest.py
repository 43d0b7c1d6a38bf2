"""What may happen to a cluster under a worker, as tests of this folder do it: on real Kafka, through its admin calls.

Told elsewhere already: topics made anew, and retention, between two starts, unequal counts and an operator's reset
(tests/worker/test_commits.py); aborted transactions and gaps as a consumer sees them (tests/intake/test_source.py); all
cases of resuming by hand (tests/intake/test_resume.py); compacted inputs (tests/broker/test_topics.py); static members
that were replaced (tests/liveness/test_static_membership.py); a broker that goes away (tests/broker/).
"""

import pytest

from consumer.kafka_client import admin
from tests.cluster.guarded import GuardedKafka
from tests.conftest import unavailable
from tests.kafka_harness import HarnessError, RealKafka
from tests.observing import until
from tests.worker.conftest import Stage, real_stage  # noqa: F401 - a fixture, for this folder too


def tick_until(worker, condition, what, **options):
    until(lambda: worker.tick() is not None and condition(), what, every_s=0, **options)


def tick_until_it_ends(worker, kind, *, match, timeout_s=60):
    """Turns of the loop until it raises what it should."""
    with pytest.raises(kind, match=match):
        tick_until(worker, lambda: False, f"the worker ended: {match}", timeout_s=timeout_s)


def hear_of_it(worker):
    """Have the client ask for metadata now, and not in half a minute."""
    worker._source._consumer._cluster.request_update()


def delete(stage, *topics):
    with admin(stage.broker.connect()) as client:
        client.delete_topics(list(topics))
        until(lambda: not {*topics} & {*client.list_topics()}, "the topics gone")


def make(stage, *topics, partitions=4, policy="delete"):
    with admin(stage.broker.connect()) as client:
        client.create_topics(
            {
                topic: {"num_partitions": partitions, "configs": {"cleanup.policy": policy}}
                for topic in topics
            },
            wait_for_metadata=True,
        )


@pytest.fixture
def own_kafka(kafka_jars, tmp_path):
    """A broker of this test alone, whose disk may be harmed."""
    with RealKafka(tmp_path / "kafka") as kafka:
        yield kafka


@pytest.fixture(scope="session")
def guarded_kafka(kafka_jars, tmp_path_factory):
    """A cluster with TLS, users and rights."""
    try:
        kafka = GuardedKafka(tmp_path_factory.mktemp("guarded"))
    except FileNotFoundError:
        unavailable("openssl, which makes the certificates, is not there")
    try:
        with kafka:
            yield kafka
    except HarnessError as error:
        pytest.fail(str(error))


@pytest.fixture
def undisturbed():
    """Maker of the files that one worker of a new group makes of the log as it is."""

    def work(stage: Stage):
        stage.work(group="-alone", state="state-alone", output="alone")
        return stage.tree("alone")

    return work
