"""``evalsink broker`` as a process, and ``evalsink topics`` on it."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from consumer.cli import cli
from consumer.errors import BrokerError
from consumer.kafka_client import connect, partition_counts


@pytest.fixture
def broker_process():
    command = [sys.executable, "-m", "consumer", "broker"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_first_line_says_where_it_listens_and_a_signal_ends_it_in_order(broker_process, ending):
    name, _, bootstrap = broker_process.stdout.readline().rstrip("\n").partition("=")
    assert name == "bootstrap"
    assert connect(bootstrap).embedded
    broker_process.send_signal(ending)
    assert broker_process.wait(timeout=30) == 0
    assert broker_process.stdout.read() == ""
    with pytest.raises(BrokerError):
        connect(bootstrap, timeout_s=0.5)


def test_topics_on_the_embedded_broker_appear_and_the_command_says_what_it_cannot_do(embedded_broker):
    arguments = ["topics", "--brokers", embedded_broker.bootstrap, "--partitions", "6"]
    for _ in range(2):
        shown = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert shown.exit_code == 0
        assert "4 partitions" in shown.stderr
        assert "--partitions 6 has no effect" in shown.stderr
    names = [line.split()[0] for line in shown.stdout.splitlines()[1:]]
    assert names == ["eval.samples", "eval.aggregates", "eval.receipts", "eval.dead-letters"]
    assert {line.split()[-1] for line in shown.stdout.splitlines()[1:]} == {"present"}
    assert partition_counts(connect(embedded_broker.bootstrap), names) == dict.fromkeys(names, 4)


def test_checking_topics_on_the_embedded_broker_makes_none_and_what_it_cannot_do_is_said(
    embedded_broker, tmp_path
):
    (tmp_path / "settings.toml").write_text('[topics]\nsamples = "never-made"\n')
    arguments = [
        "topics",
        "--brokers",
        embedded_broker.bootstrap,
        "--config",
        str(tmp_path / "settings.toml"),
    ]
    arguments += ["--check", "--json", "--retention-days", "14", "--min-insync-replicas", "2"]
    shown = CliRunner().invoke(cli, arguments)
    assert isinstance(shown.exception, BrokerError)
    assert "never-made" in str(shown.exception)
    assert "--min-insync-replicas 2, --retention-days 14 have no effect" in shown.stderr
    found = {one["name"]: one for one in map(json.loads, shown.stdout.splitlines())}
    assert found["never-made"]["state"] == "missing"
    assert found["never-made"]["partitions"] is None
    assert partition_counts(connect(embedded_broker.bootstrap), ["never-made"]) == {"never-made": None}
