"""From Kafka to `datasets.load_dataset` by the command line alone, and killed at every step on the way."""

import json
import os
import signal
import subprocess
import sys

import pytest

from consumer.archive.outbox import Outbox
from schemas.events import Aggregate, encode
from tests.acceptance.conftest import ROOT, environment, evalsink, topic_settings
from tests.acceptance.test_real_data import FOLDERS, OPTIONS, originals
from tests.hub_server import GOOD_TOKEN, HubServer
from tests.observing import Sending, commands, produce, pushing, until
from tests.worker.evaluation import Evaluation

pytestmark = [pytest.mark.kafka, pytest.mark.long]

REPO = "org/evals"
SECRET = "hf_onlyforthearchive"

LOADING = """
import json, sys
from datasets import get_dataset_config_names, load_dataset

repo, target = sys.argv[1:]
with open(target, "w") as file:
    for name in get_dataset_config_names(repo):
        splits = {"train": load_dataset(repo, "results")["train"]} if name == "results" else {
            "latest": load_dataset(repo, name, split="latest")}
        for split, rows in splits.items():
            print(json.dumps([name, split, list(rows)]), file=file)
"""


def loaded(hub, folder):
    """What `datasets` reads from the repository: configuration to rows, in a process of its own."""
    target = folder / "loaded.jsonl"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    subprocess.run(
        [sys.executable, "-c", LOADING, REPO, str(target)],
        check=True,
        timeout=200,
        capture_output=True,
        env={
            **kept,
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": GOOD_TOKEN,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
    )
    found = {}
    for line in target.read_text().splitlines():
        name, _, rows = json.loads(line)
        found[name] = rows
    return found


def without_nulls(value):
    """What a table makes of an object: an absent field is a null one."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


@pytest.fixture(scope="module")
def hub():
    with HubServer(xet=False, tokens=(GOOD_TOKEN, SECRET)) as server:
        yield server
        assert [] == server.unknown


@pytest.fixture(scope="module")
def archived(cli_broker, realdata, hub, tmp_path_factory):
    """All real runs, published, consumed and pushed by one worker."""
    folder = tmp_path_factory.mktemp("archived")
    settings = topic_settings(cli_broker.topics())
    for name in FOLDERS:
        evalsink("publish", realdata / name, "--brokers", cli_broker.bootstrap, *OPTIONS, **settings)
    evalsink(
        *("worker", "--brokers", cli_broker.bootstrap, "--group", cli_broker.name("group")),
        *("--exit-when-idle", "1", "--output", folder / "output", "--state", folder / "state"),
        *("--hub-repo", REPO),
        **settings,
        HF_TOKEN=GOOD_TOKEN,
        EVALSINK_HUB_ENDPOINT=hub.endpoint,
        EVALSINK_HUB_XET="false",
        EVALSINK_HUB_LINGER_S="1",
    )
    return folder


@pytest.fixture(scope="module")
def tables(archived, hub):
    return loaded(hub, archived)


def published(folder):
    return {
        path.relative_to(folder / "output").as_posix(): path.read_bytes()
        for path in (folder / "output").rglob("*")
        if path.is_file()
    }


def newest(realdata):
    """Configuration to the original samples file that its split `latest` is of."""
    found = {}
    for one in sorted(originals(realdata), key=lambda one: one.stamp):
        results = json.loads(one.results.read_bytes())
        for task, source in one.samples.items():
            found[f"{results['model_name_sanitized']}__{task}"] = source
    return found


def test_what_is_on_the_hub_is_what_was_published(archived, hub):
    files = published(archived)
    assert 7 == sum(path.endswith(".json") for path in files)
    there = hub.repo(REPO).files()
    assert files == {path: there[path] for path in files}
    assert {*files, "README.md", ".gitattributes"} >= set(there)


def test_the_rows_of_every_task_are_read_back_as_the_originals(tables, realdata):
    sources = newest(realdata)
    assert {*sources, "results"} == set(tables)
    rows = 0
    for name, source in sources.items():
        lines = source.read_bytes().splitlines()
        expected = sorted((json.loads(line) for line in lines), key=lambda row: row["doc_id"])
        assert [without_nulls(row) for row in expected] == [without_nulls(row) for row in tables[name]], name
        rows += len(expected)
    assert rows > 4000


def test_the_figures_of_every_run_are_read_back_as_the_originals(tables, realdata):
    figures = {}
    for row in tables["results"]:
        stamp = row["date"]
        value = row["value"] if row["value_json"] is None else json.loads(row["value_json"])
        figures.setdefault((stamp, row["task"]), {})[f"{row['metric']},{row['filter']}"] = value
        if row["stderr"] is not None:
            figures[stamp, row["task"]][f"{row['metric']}_stderr,{row['filter']}"] = row["stderr"]
    compared = 0
    for one in originals(realdata):
        for task, entries in json.loads(one.results.read_bytes())["results"].items():
            for key, value in entries.items():
                if "," in key and isinstance(value, int | float) and value == value:  # noqa: PLR0124 - NaN
                    if "_stderr_" in key:
                        continue  # columns of their own
                    assert value == figures[one.stamp, task][key], (one.stamp, task, key)
                    compared += 1
                elif "," in key and isinstance(value, dict) and value:
                    assert value == figures[one.stamp, task][key]
                    compared += 1
    assert compared > 50


KILLS = [
    ("create", "after"),
    ("info", "before"),
    ("tree", "after"),
    ("validate", "after"),
    ("preupload", "before"),
    ("lfs-batch", "before"),
    ("lfs-put", "before"),
    ("lfs-put", "after"),
    ("commit", "before"),
    ("commit", "during"),
    ("commit", "after"),
    ("paths-info", "before"),
    ("paths-info", "after"),
]

KILLS_OF_THE_PUSHER = [
    ("preupload", "before"),
    ("lfs-put", "before"),
    ("commit", "before"),
    ("commit", "during"),
    ("commit", "after"),
]
"""Few: each death is followed by a longer rest. And with a worker its pusher dies too."""


@pytest.mark.parametrize(
    ("victim", "durable", "kills"),
    [
        ("worker", "output", KILLS),
        ("worker", "hub", KILLS),
        ("pusher", "output", KILLS_OF_THE_PUSHER),
    ],
)
def test_killed_at_any_step_every_run_is_there_once(cli_broker, tmp_path, victim, durable, kills):
    topics = cli_broker.topics()
    folder = tmp_path
    with HubServer(xet=False, lfs_above_bytes=6000) as hub:
        settings = {
            **topic_settings(topics),
            "HF_TOKEN": GOOD_TOKEN,
            "EVALSINK_HUB_ENDPOINT": hub.endpoint,
            "EVALSINK_HUB_XET": "false",
            "EVALSINK_HUB_LINGER_S": "0",
            "EVALSINK_HUB_REPO": REPO,
            "EVALSINK_HUB_COMMITS_PER_HOUR": "1000",
            "EVALSINK_DURABLE": durable,
            "EVALSINK_SESSION_TIMEOUT_MS": "6000",
            "EVALSINK_CHECKPOINT_INTERVAL_S": "0.1",
            "EVALSINK_GROUP_INSTANCE_ID": "the-only-one",  # so that it need not wait for its former self
        }
        group = cli_broker.name("group")

        command = ["worker", "--brokers", cli_broker.bootstrap, "--group", group]
        command += ["--output", str(folder / "output"), "--state", str(folder / "state")]

        def start(log):
            return subprocess.Popen(
                [sys.executable, "-m", "consumer", *command],
                env=clean_environment(settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        with (folder / "log").open("w") as log:
            worker = start(log)
            try:
                for number, (step, at) in enumerate(kills):
                    met = []

                    def kill(_request, worker=worker, met=met):
                        for pid in [worker.pid] if victim == "worker" else pushing(worker.pid):
                            os.kill(pid, signal.SIGKILL)
                            met.append(pid)

                    remove = hub.on(step, kill, at=at)
                    run = Evaluation(
                        f"r{number}", tasks=[("t", 200)], mark=number
                    )  # no two alike: the Hub would know the bytes
                    produce(
                        cli_broker,
                        [cli_record(topics, event) for event in run.events()],
                    )
                    until(lambda met=met: met, f"a kill {at} {step}")
                    remove()
                    if victim == "worker":
                        assert -signal.SIGKILL == worker.wait(30)
                        worker = start(log)
            finally:
                worker.kill()
                worker.wait()
        done = evalsink(*command, "--exit-when-idle", "1", **settings)
        assert "Traceback" not in done.stderr + (folder / "log").read_text()
        assert len(kills) == len(results_on(hub))
        assert [] == waiting(folder)
        there = hub.repo(REPO).files()
        files = published(folder)
        assert files == {path: there[path] for path in there if path not in {"README.md", ".gitattributes"}}
        assert all(path in there["README.md"].decode() for path in files if path.endswith(".jsonl"))
        assert [] == hub.repo(REPO).empty_commits
        added = [path for commit in hub.repo(REPO).commits for path in commit.added if path != "README.md"]
        assert len(added) == len(set(added))
        until(lambda: not pushing(1, topics.samples), "the last pusher's end")


def cli_record(topics, event):
    topic = topics.aggregates if isinstance(event, Aggregate) else topics.samples
    return Sending(topic, event.run_id.encode(), encode(event))


def clean_environment(settings):
    return {name: value for name, value in environment(**settings).items() if name != "HF_ENDPOINT"}


def results_on(hub):
    if REPO not in hub.repos:
        return []
    return [path for path in hub.repo(REPO).files() if path.endswith("_results.json")]


def waiting(folder):
    outbox = Outbox(folder / "state")
    try:
        return outbox.waiting()
    finally:
        outbox.close()


def test_the_token_is_in_no_line_no_file_and_no_list_of_processes(cli_broker, hub, tmp_path):
    topics = cli_broker.topics()
    produce(cli_broker, [cli_record(topics, event) for event in Evaluation("r").events()])
    token_file = tmp_path / "token"
    token_file.write_text(SECRET)
    seen = []
    remove = hub.on("commit", lambda _request: seen.extend(commands().values()))
    done = evalsink(
        *("worker", "--brokers", cli_broker.bootstrap, "--group", cli_broker.name("group")),
        *("--exit-when-idle", "1", "--output", tmp_path / "output", "--state", tmp_path / "state"),
        *("--hub-repo", "org/secret"),
        **topic_settings(topics),
        EVALSINK_HUB_TOKEN_FILE=token_file,
        EVALSINK_HUB_ENDPOINT=hub.endpoint,
        EVALSINK_HUB_XET="false",
        EVALSINK_HUB_LINGER_S="0",
    )
    remove()
    pushed = evalsink(
        *("push", tmp_path / "output", "--hub-repo", "org/other"),
        EVALSINK_HUB_TOKEN_FILE=token_file,
        EVALSINK_HUB_ENDPOINT=hub.endpoint,
        EVALSINK_HUB_XET="false",
    )
    shown = evalsink("outbox", "--state", tmp_path / "state", "--all", "--json")
    assert "run_archived" in done.stderr
    assert any(b"consumer.pushing" in command for command in seen)
    assert [] == [command for command in seen if SECRET.encode() in command]
    for text in (done.stdout, done.stderr, pushed.stdout, pushed.stderr, shown.stdout, shown.stderr):
        assert SECRET not in text
    token_file.unlink()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert all(SECRET not in repr(content) for content in hub.repo("org/secret").files().values())
