"""The commands: their help teaches, their exit codes and messages tell what to do, no traceback ever."""

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from consumer.cli import COMMANDS
from tests.acceptance.conftest import actions, evalsink, topic_settings
from tests.kafka_harness import free_ports
from tests.observing import Sending, produce


def test_the_help_lists_every_command_with_a_sentence():
    shown = evalsink("--help").stdout
    for name, sentence in COMMANDS.items():
        assert f"{name} " in shown
        assert sentence in shown
    assert shown == evalsink("-h").stdout
    assert evalsink("--version").stdout.startswith("evalsink")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_explains_its_options(command):
    shown = evalsink(command, "--help").stdout
    assert f"Usage: evalsink {command}" in shown
    assert len(shown.splitlines()) > 5


def test_the_demo_shows_what_it_did_and_its_output_verifies_until_a_byte_is_changed(tmp_path):
    output = tmp_path / "out"
    shown = evalsink("demo", "--output", output, cwd=tmp_path).stdout
    for part in (
        "demo_arithmetic",
        "rows published",
        "dead letters",
        "verified: every hash",
        "_results.json",
    ):
        assert part in shown
    assert [output] == list(tmp_path.iterdir())
    assert "verified: 1 run" in evalsink("verify", output).stdout
    [results] = output.rglob("*_results.json")
    assert "demo_video" in evalsink("table", results, "--version-column").stdout
    # Nothing but what is published: no staging, no spool.
    assert 8 == len([path for path in output.rglob("*") if path.is_file() and ".evalsink" not in path.parts])
    [samples] = output.rglob("*_samples_demo_signs.jsonl")
    content = samples.read_bytes()
    samples.write_bytes(content[:-3] + b"?" + content[-2:])
    assert samples.name in evalsink("verify", output, code=1).stderr


@pytest.mark.kafka
def test_topics_are_made_once_and_then_found(real):
    settings = topic_settings(
        type(
            "Names", (), {name: real.name() for name in ("samples", "aggregates", "receipts", "dead_letters")}
        )
    )
    first = evalsink("topics", "--brokers", real.bootstrap, "--partitions", "3", **settings)
    again = [evalsink("topics", "--brokers", real.bootstrap, **settings) for _ in range(2)]
    assert first.stdout.replace("created", "present").split() == again[0].stdout.split()
    assert again[0].stdout == again[1].stdout
    for name in settings.values():
        assert name in first.stdout
    other = evalsink("topics", "--brokers", real.bootstrap, "--partitions", "4", code=3, **settings)
    assert "3 partitions, not 4" in other.stderr


@pytest.mark.kafka
def test_a_worker_without_topics_says_which_command_makes_them(real, tmp_path):
    settings = topic_settings(real.topics()) | {"EVALSINK_TOPICS_SAMPLES": real.name("absent")}
    refused = evalsink(
        *("worker", "--brokers", real.bootstrap, "--state", tmp_path / "s", "--output", tmp_path / "o"),
        code=3,
        **settings,
    )
    assert "absent-" in refused.stderr
    assert f"evalsink topics --brokers {real.bootstrap}" in refused.stderr


@pytest.mark.kafka
def test_a_worker_is_told_by_the_environment_and_leaves_when_idle_though_a_run_is_open(
    real, realdata, tmp_path
):
    settings = {
        **topic_settings(real.topics()),
        "EVALSINK_BROKERS": real.bootstrap,
        "EVALSINK_OUTPUT": tmp_path / "o",
        "EVALSINK_STATE": tmp_path / "s",
        "EVALSINK_GROUP": real.name("group"),
    }
    opened = json.dumps({"type": "run_started", "run_id": "open"}).encode()
    produce(real, [Sending(settings["EVALSINK_TOPICS_SAMPLES"], b"open", opened)])
    folder = realdata / "lmms-eval" / "mme-newest-format"
    run_id = evalsink("publish", folder, **settings).stdout.strip()
    said = actions(evalsink("worker", "--exit-when-idle", "0.5", **settings).stderr)
    assert [run_id] == [line["run_id"] for line in said if line["action"] == "run_closed"]
    assert ["open"] == [path.name.partition("-")[0] for path in (tmp_path / "s" / "runs").glob("*/open-*")]


WRONG_CALLS = {
    "no such command": (["picnic"], "picnic"),
    "no such option": (["worker", "--picnic"], "--picnic"),
    "no address": (["worker", "--brokers", "no address"], "--brokers"),
    "idle below nothing": (["worker", "--exit-when-idle", "-1"], "--exit-when-idle"),
    "no such folder": (["publish", "no-such-folder"], "no-such-folder"),
    "a folder without runs": (["publish", "."], "."),
    "more than all": (["publish", ".", "--duplicate", "2"], "--duplicate"),
    "no shards": (["publish", ".", "--shards", "0"], "--shards"),
    "nothing to verify": (["verify", "."], "nothing was verified"),
    "no table": (["table", "absent.json"], "absent.json"),
    "no settings file": (["worker", "--config", "absent.toml"], "absent.toml"),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call_is_refused_with_2_and_the_culprit_named(arguments, named, tmp_path):
    refused = evalsink(*arguments, code=2, cwd=tmp_path)
    assert named in refused.stderr
    assert "" == refused.stdout
    assert not (tmp_path / "output").exists()


def test_a_wrong_setting_is_refused_with_2_by_its_name(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("poll_records_maximum = 5\n")
    assert "poll_records_maximum" in evalsink("worker", "--config", config, code=2, cwd=tmp_path).stderr
    refused = evalsink("worker", code=2, cwd=tmp_path, EVALSINK_CHECKPOINT_INTERVAL_S="soon")
    assert "checkpoint_interval_s" in refused.stderr


def test_several_runs_cannot_have_one_run_id(realdata):
    refused = evalsink("publish", realdata / "lm-eval", "--run-id", "one", code=2)
    assert "--run-id" in refused.stderr
    assert "" == refused.stdout


def test_without_a_broker_there_it_ends_with_3_and_says_where_it_looked(realdata, tmp_path):
    [port] = free_ports(1)
    brokers = ("--brokers", f"127.0.0.1:{port}")
    run = realdata / "lmms-eval" / "mme-newest-format"
    with ThreadPoolExecutor() as pool:  # each of them looks for a while
        calls = [
            pool.submit(evalsink, *arguments, *brokers, code=3, cwd=tmp_path)
            for arguments in (("worker",), ("topics",), ("publish", run))
        ]
    for call in calls:
        refused = call.result()
        assert f"127.0.0.1:{port}" in refused.stderr
        assert "--brokers" in refused.stderr
        assert "" == refused.stdout


def test_a_state_folder_in_use_ends_it_with_4_and_names_it(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = evalsink("worker", "--state", state, code=4, cwd=tmp_path)
    assert str(state) in refused.stderr
    assert "--state" in refused.stderr
