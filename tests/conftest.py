"""What all tests share: brokers and the real data. One broker of a kind serves the whole session.

A missing service skips the test with the reason; where `CI` is set it fails it. Topics get names of their own in every
test, so nothing has to be cleaned up. A test that stops, kills or pauses a broker starts one of its own (`RealKafka`).
"""

import os
import uuid
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from consumer.broker.embedded import EmbeddedBroker, ensure_topics
from consumer.intake.topics import arrange
from consumer.kafka_client import Connection, connect
from consumer.settings import Topics
from tests.kafka_harness import HarnessError, RealKafka, libs, why_not

ROOT = Path(__file__).parents[1]

# No test asserts a time, and an example on a busy machine may take any.
hypothesis.settings.register_profile("evalsink", deadline=None)
hypothesis.settings.load_profile("evalsink")


class Broker:
    """A running broker of either kind, as contract tests see it."""

    def __init__(self, bootstrap: str, *, embedded: bool) -> None:
        self.bootstrap = bootstrap
        self.embedded = embedded

    def connect(self) -> Connection:
        return connect(self.bootstrap)

    def name(self, stem: str = "topic") -> str:
        """A topic name that no other test uses; the topic does not exist."""
        return f"{stem}-{uuid.uuid4().hex[:12]}"

    def topics(self, partitions: int = 4) -> Topics:
        """Topics of this test alone, made as `evalsink topics` makes them. The embedded broker always has 4 partitions."""
        mark = uuid.uuid4().hex[:12]
        names = Topics(
            samples=f"samples-{mark}",
            aggregates=f"aggregates-{mark}",
            receipts=f"receipts-{mark}",
            dead_letters=f"dead-letters-{mark}",
        )
        if self.embedded:
            ensure_topics(self.bootstrap, [*names.inputs, names.receipts, names.dead_letters])
        else:
            made = arrange(self.connect(), names, partitions=partitions)
            assert not [problem for topic in made for problem in topic.problems]
        return names


def unavailable(reason: str) -> NoReturn:
    """Skip the test; in CI fail it, since nobody reads the skips there."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_jars():
    """The folder with Kafka's jars, for tests that start brokers of their own."""
    if reason := why_not():
        unavailable(reason)
    if not libs().is_dir():
        unavailable(
            "the jars of a real Kafka are not there: make test, or python -m tests.kafka_harness jars"
        )
    return libs()


@pytest.fixture(scope="session")
def real_kafka(kafka_jars, tmp_path_factory):
    """A real Apache Kafka."""
    try:
        kafka = RealKafka(tmp_path_factory.mktemp("kafka")).start()
    except HarnessError as error:
        pytest.fail(str(error))
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def embedded_broker():
    """librdkafka's mock cluster: for smoke tests, never for a promise."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def real(real_kafka):
    """The real Kafka, as contract tests see a broker."""
    return Broker(real_kafka.bootstrap, embedded=False)


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def broker(request):
    """Either kind of broker: for what both must do alike."""
    if request.param == "embedded":
        return Broker(request.getfixturevalue("embedded_broker").bootstrap, embedded=True)
    return request.getfixturevalue("real")


@pytest.fixture(scope="session")
def realdata():
    """Outputs of real evaluations; EVALSINK_REALDATA, else ../shared/realdata beside the checkout."""
    folder = Path(os.environ.get("EVALSINK_REALDATA") or ROOT.parent / "shared" / "realdata")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (EVALSINK_REALDATA)")
    return folder
