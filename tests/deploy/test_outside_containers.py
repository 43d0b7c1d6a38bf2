"""deploy/compose.yaml run for real, but for the containers: its Kafka, its commands with their variables, its Prometheus.

Every process is started as the file says. What containers would give, folders at fixed places and names of machines, is
put in its place: nothing else is changed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from tests.acceptance.conftest import environment
from tests.deploy import composition as compose
from tests.hand_over.processes import END_TIMEOUT_S
from tests.kafka_harness import RealKafka, free_ports
from tests.monitoring.asking import Pages, Prometheus, get, promtool, tool
from tests.monitoring.test_rules_and_dashboards import alerts
from tests.observing import until

# All of it, also what needs no Prometheus: one Kafka and two workers serve for all.
pytestmark = [pytest.mark.kafka, pytest.mark.system]

COMPOSITION = compose.read()
SERVICES = compose.services(COMPOSITION)


class Machine:
    """What stands for the containers' folders, ports and names."""

    def __init__(self, folder):
        self.folder = folder
        ports = iter(free_ports(3 + len(compose.workers(COMPOSITION))))
        self.internal, self.host, self.controller = next(ports), next(ports), next(ports)
        self.pages = {name: Pages(next(ports)) for name in compose.workers(COMPOSITION)}
        self._kafka = {
            "INTERNAL://:19092": f"INTERNAL://127.0.0.1:{self.internal}",
            "HOST://:9092": f"HOST://127.0.0.1:{self.host}",
            "kafka:19092": f"127.0.0.1:{self.internal}",
            "127.0.0.1:9092": f"127.0.0.1:{self.host}",
            "localhost:9093": f"127.0.0.1:{self.controller}",
        }

    def text(self, service, text):
        """`text` of that service as it is here."""
        for source, target, _ in compose.mounts(SERVICES[service]):
            here = compose.DEPLOY / source if compose.is_bound(source) else self.folder / source
            text = re.sub(rf"(^|=){re.escape(target)}(?=$|[/,])", rf"\g<1>{here}", text)
        if service in self.pages:
            text = text.replace("0.0.0.0:9464", self.pages[service].address)
            text = text.replace("127.0.0.1:9464", self.pages[service].address)
        for there, here in self._kafka.items():
            text = text.replace(there, here)
        return text

    def environment(self, service):
        given = SERVICES[service].get("environment", {})
        return environment(**{name: self.text(service, value) for name, value in given.items()})

    def command(self, service):
        words = SERVICES[service]["command"]
        return [sys.executable, "-m", "consumer", *(self.text(service, word) for word in words)]

    def run(self, service):
        """A one-shot service to its end."""
        done = subprocess.run(
            self.command(service),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
            env=self.environment(service),
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class ComposedKafka(RealKafka):
    """A broker with the properties that the image makes of its variables, and no others."""

    def __init__(self, machine):
        super().__init__(
            machine.folder / "kafka-process", port=machine.internal, controller_port=machine.controller
        )
        self._machine = machine

    def server_properties(self):
        # kafka.docker.KafkaDockerWrapper's rule, for names without double underscores (a rule forbids those).
        properties = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): self._machine.text("kafka", value)
            for name, value in SERVICES["kafka"]["environment"].items()
            if name.startswith("KAFKA_")
        }
        assert properties["log.dirs"] == str(self._machine.folder / "kafka")
        return {**properties, "log.dirs": str(self.folder / "data")}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def kafka(kafka_jars, machine):
    with ComposedKafka(machine) as broker:
        yield broker


@pytest.fixture(scope="module")
def topics(kafka, machine):
    return machine.run("topics")


def test_kafka_knows_every_property_and_has_it_as_it_is_written(kafka):
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        broker = ConfigResource(ConfigResourceType.BROKER, "1")
        told = client.describe_configs([broker], config_filter="all")["broker"]["1"]
    finally:
        client.close()
    # One that it does not know it keeps like a password, and tells no value of it.
    wanted = kafka.server_properties()
    assert wanted == {name: told.get(name, {}).get("value") for name in wanted}


def test_the_topics_are_made_with_enough_partitions_for_more_workers(topics, machine):
    rows = [line.split() for line in topics.splitlines()[1:]]
    assert {row[-1] for row in rows} == {"created"}
    assert {next(word for word in row if word.isdigit()) for row in rows} == {"12"}
    assert "created" not in machine.run("topics"), "again it only checks"


class Lives:
    """Both workers, started as the file says."""

    def __init__(self, machine):
        self.machine = machine
        self.processes = {}

    def start(self, name):
        (self.machine.folder / f"state-{name[-1]}").mkdir(exist_ok=True)
        with (self.machine.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.machine.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.machine.folder,
                env=self.machine.environment(name),
            )

    def said(self, name):
        return (self.machine.folder / f"{name}.log").read_text("utf-8")

    def is_ready(self, name):
        assert self.processes[name].poll() is None, self.said(name)
        return self.machine.pages[name].is_ready()


@pytest.fixture(scope="module")
def lives(topics, machine):
    both = Lives(machine)
    try:
        for name in compose.workers(COMPOSITION):
            both.start(name)
        for name in both.processes:
            until(lambda name=name: both.is_ready(name), f"{name} is ready", every_s=0.1)
        yield both
    finally:
        for process in both.processes.values():
            process.kill()
            process.wait()


def check_health(machine, name):
    """The health check of a worker's container."""
    command = [machine.text(name, word) for word in SERVICES[name]["healthcheck"]["test"][1:]]
    return subprocess.run([sys.executable, *command[1:]], capture_output=True, check=False).returncode


def test_the_workers_share_the_partitions_and_are_healthy(lives, machine):
    for name in lives.processes:
        assert check_health(machine, name) == 0
    until(
        lambda: (
            sorted(
                sum(series.startswith("evalsink_lag_records{") for series in pages.scrape().text.splitlines())
                for pages in machine.pages.values()
            )
            == [12, 12]
        ),
        "half of the partitions of both input topics each",
        every_s=0.1,
    )


def test_the_demo_becomes_one_run_in_the_output_that_both_share(lives, machine):
    (machine.folder / "demo").mkdir()
    assert "verified" in machine.run("demo-run")
    [run_id] = machine.run("demo").split()
    results = until(
        lambda: list((machine.folder / "output").glob("*/*_results.json")), "the run", every_s=0.1
    )
    assert len(results) == 1
    [sent] = (machine.folder / "demo" / "demo").glob("*/*_results.json")
    assert run_id in results[0].read_text("utf-8")
    for samples in sent.parent.glob("*_samples_*.jsonl"):
        task = samples.name.partition("_samples_")[2]
        [published] = results[0].parent.glob(f"*_samples_{task}")
        assert published.read_bytes() == samples.read_bytes()


class ComposedPrometheus(Prometheus):
    """Started with the file's own options; its answers are asked for as of the other."""

    def __init__(self, machine, config):
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        (machine.folder / "prometheus").mkdir()
        words = [machine.text("prometheus", word) for word in SERVICES["prometheus"]["command"]]
        words = [f"--config.file={config}" if word.startswith("--config.file=") else word for word in words]
        self._log = (machine.folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [tool("prometheus"), *words, f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )


def config_here(machine):
    """prometheus.yml with the places of this machine, and less patience."""
    text = (compose.DEPLOY / "compose" / "prometheus.yml").read_text("utf-8")
    text = text.replace("/etc/prometheus/", f"{compose.DEPLOY / 'prometheus'}/").replace("15s", "1s")
    for name, pages in machine.pages.items():
        text = text.replace(f"{name}:9464", pages.address)
    path = machine.folder / "prometheus.yml"
    path.write_text(text, "utf-8")
    return path


def test_promtool_takes_the_configuration_and_no_typo_in_it(machine):
    path = config_here(machine)
    code, said = promtool("check", "config", path)
    assert (code, "SUCCESS" in said) == (0, True), said
    content = yaml.safe_load(path.read_text("utf-8"))
    keys = [way for way, _ in compose.walk(content) if isinstance(way[-1], str)]
    assert len(keys) > 5
    for way in keys:
        path.write_text(yaml.safe_dump(compose.with_typo(content, way)), "utf-8")
        assert promtool("check", "config", path)[0] != 0, way


def test_prometheus_reaches_both_workers_and_has_all_alerts(lives, machine):
    with ComposedPrometheus(machine, config_here(machine)) as prometheus:
        until(lambda: prometheus.number("sum(up{job='evalsink'})") == 2, "both are up", every_s=0.2)
        active = prometheus.ask("targets")["data"]["activeTargets"]
        assert {one["labels"]["instance"] for one in active} == {
            one.address for one in machine.pages.values()
        }
        groups = prometheus.ask("rules")["data"]["groups"]
        loaded = [rule for group in groups for rule in group["rules"]]
        assert set(alerts()) == {rule["name"] for rule in loaded if rule["type"] == "alerting"}
        until(
            lambda: all(
                rule["health"] == "ok"
                for group in prometheus.ask("rules")["data"]["groups"]
                for rule in group["rules"]
            ),
            "every rule was evaluated",
            every_s=0.2,
        )
        assert get(f"{prometheus.url}/-/healthy")[0] == 200


def test_a_worker_stops_in_order_and_comes_back_under_its_name(lives, machine):
    lives.processes["worker-1"].terminate()
    assert lives.processes["worker-1"].wait(END_TIMEOUT_S) == 0, lives.said("worker-1")
    assert check_health(machine, "worker-1") != 0
    lives.start("worker-1")
    until(lambda: lives.is_ready("worker-1"), "worker-1 is ready again", every_s=0.1)


# -- Compose itself ----------------------------------------------------------------------------------------------------

COMPOSE_GO = "github.com/compose-spec/compose-go/v2/cmd@v2.6.4"
"""The loader that `docker compose` is built on, which builds in a minute where there is a Go."""


def test_compose_itself_takes_the_file(tmp_path):
    def succeeds(*command):
        environ = os.environ | {"GOBIN": str(tmp_path)}
        return (
            shutil.which(command[0])
            and subprocess.run(command, env=environ, capture_output=True, check=False, timeout=400).returncode
            == 0
        )

    if succeeds("docker", "compose", "version"):
        command = ["docker", "compose", "--file", compose.FILE, "--profile", "demo", "config"]
    elif "CI" not in os.environ and succeeds("go", "install", COMPOSE_GO):
        command = [tmp_path / "cmd", compose.FILE.name]
    else:
        # No failure in CI: it is no package of Debian's, and the schema was checked.
        pytest.skip("there is no `docker compose`, nor a `go` that can build its loader")
    done = subprocess.run(
        command, cwd=compose.DEPLOY, env=os.environ, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, shlex.join(map(str, command)) + done.stderr
    taken = yaml.safe_load(done.stdout)
    assert set(taken["services"]) == set(SERVICES)
    for name, service in taken["services"].items():
        assert service["image"] == SERVICES[name]["image"]
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), mount
        if name in compose.ours(COMPOSITION):
            context = Path(service["build"]["context"])
            assert context.resolve() == compose.ROOT
