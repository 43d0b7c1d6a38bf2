"""What all tests share: brokers and the real data. One real Kafka serves the whole session, all its processes.

A missing service skips the test with the reason; where `CI` is set it fails it. Topics get names of their own in every
test, so nothing has to be cleaned up. A test that stops or kills a broker starts one of its own (`RealKafka`), one that
pauses it takes `pausable_kafka`.
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
from tests.kafka_harness import HarnessError, Keeper, RealKafka, ask, libs, why_not

ROOT = Path(__file__).parents[1]

KEEPER = pytest.StashKey[Keeper]()

# How long an example takes says how busy the machine is, not whether it is right.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell each process of a session (`-n`) who keeps the real Kafka for all of them."""
    if KEEPER not in node.config.stash:
        node.config.stash[KEEPER] = Keeper()
    node.workerinput["kafka_keeper"] = node.config.stash[KEEPER].address


def pytest_unconfigure(config):
    """No process needs it any more."""
    if KEEPER in config.stash:
        config.stash[KEEPER].close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Say which tests run in one process, unless the call does (`--dist`)."""
    from tests.scheduling import Scheduling

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that at the end no process waits for another."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


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
def real_kafka(kafka_jars, tmp_path_factory, request):
    """The address of a real Apache Kafka. Other tests use it at the same time: leave it as it is."""
    keeper = getattr(request.config, "workerinput", {}).get("kafka_keeper")
    try:
        if keeper is not None:
            yield ask(keeper, tmp_path_factory.getbasetemp().parent / "kafka")
        else:
            with RealKafka(tmp_path_factory.mktemp("kafka")) as kafka:
                yield kafka.bootstrap
    except HarnessError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def pausable_kafka(kafka_jars, tmp_path_factory):
    """A broker that may be paused: those who use it run one after the other, and nobody else does."""
    with RealKafka(tmp_path_factory.mktemp("pausable-kafka")) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def embedded_broker():
    """librdkafka's mock cluster: for smoke tests, never for a promise."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def real(real_kafka):
    """The real Kafka, as contract tests see a broker."""
    return Broker(real_kafka, embedded=False)


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
