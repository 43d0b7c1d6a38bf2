"""deploy/compose.yaml and what it mounts, judged as files: no typo in them passes. It runs in test_outside_containers.py."""

import os
import shutil
import subprocess
import sys
from typing import Literal

import msgspec
import pytest
import yaml
from msgspec import Struct

from tests.deploy import composition as compose
from tests.docs.pages import ROOT

COMPOSITION = compose.read()
PROVISIONING = compose.DEPLOY / "compose" / "grafana"


@pytest.mark.parametrize("rule", compose.RULES, ids=lambda rule: rule.__name__)
def test_the_composition(rule):
    rule(COMPOSITION)


def test_no_typo_in_a_key_passes():
    keys = [path for path, _ in compose.walk(COMPOSITION) if isinstance(path[-1], str)]
    # Fragments stand again where they are used; a broker is asked of Kafka's variables (test_outside_containers.py).
    looked_at = [
        path
        for path in keys
        if path[0] not in {"x-evalsink", "x-worker"} and path[:3] != ("services", "kafka", "environment")
    ]
    assert len(looked_at) > 100
    passed = [path for path in looked_at if not compose.breaks_a_rule(compose.with_typo(COMPOSITION, path))]
    assert [] == passed


@pytest.mark.parametrize(
    ("service", "word"),
    [
        ("topics", "--partition"),
        ("topics", "--replication=0"),
        ("demo", "--shard"),
        ("worker-1", "--outputs"),
    ],
)
def test_a_typo_in_a_command_breaks_a_rule(service, word):
    command = COMPOSITION["services"][service]["command"]
    with pytest.raises(AssertionError, match=rf"evalsink {command[0]}: "):
        compose.parse([*command, word])


@pytest.mark.parametrize(
    "arguments",
    [
        ("check_jsonschema", "--builtin-schema", "vendor.compose-spec", compose.FILE),
        (
            "yamllint",
            "--strict",
            "--config-data",
            "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}",
        ),
    ],
    ids=["check-jsonschema", "yamllint"],
)
def test_the_tools_have_nothing_to_say(arguments):
    files = [compose.FILE, compose.DEPLOY / "compose"] if arguments[0] == "yamllint" else []
    done = subprocess.run(
        [sys.executable, "-m", *map(str, (*arguments, *files))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- Grafana's own files, by its pages on provisioning -----------------------------------------------------------------


class JsonData(Struct, rename="camel", forbid_unknown_fields=True):
    time_interval: str


class Datasource(Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    uid: str
    type: Literal["prometheus"]
    access: Literal["proxy"]
    url: str
    is_default: Literal[True]
    editable: Literal[False]
    json_data: JsonData


class Datasources(Struct, rename="camel", forbid_unknown_fields=True):
    api_version: Literal[1]
    datasources: list[Datasource]


class Options(Struct, rename="camel", forbid_unknown_fields=True):
    path: str


class Provider(Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    folder: str
    type: Literal["file"]
    disable_deletion: bool
    allow_ui_updates: bool
    options: Options


class Dashboards(Struct, rename="camel", forbid_unknown_fields=True):
    api_version: Literal[1]
    providers: list[Provider]


def provisioned(name, shape):
    return msgspec.convert(yaml.safe_load((PROVISIONING / name).read_text("utf-8")), shape)


def test_grafana_begins_with_the_prometheus_of_the_composition():
    [source] = provisioned("datasources.yaml", Datasources).datasources
    # The dashboards name no source: their variable begins with the default one of its type.
    for path in sorted((compose.DEPLOY / "grafana").glob("*.json")):
        board = msgspec.json.decode(path.read_bytes())
        [variable] = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
        assert (variable["query"], variable["current"]) == (source.type, {})
    name, port = source.url.removeprefix("http://").split(":")
    assert COMPOSITION["services"][name]["ports"][0].endswith(f":{port}")
    assert source.json_data.time_interval == compose.prometheus_config()["global"]["scrape_interval"]


def test_grafana_is_given_the_dashboards_and_nobody_changes_them_there():
    [provider] = provisioned("dashboards.yaml", Dashboards).providers
    assert (provider.disable_deletion, provider.allow_ui_updates) == (True, False)


def test_prometheus_asks_every_worker_and_only_them():
    [job] = compose.prometheus_config()["scrape_configs"]
    [group] = job["static_configs"]
    port = compose.port_of_pages(COMPOSITION)
    assert group["targets"] == [f"{name}:{port}" for name in compose.workers(COMPOSITION)]


# -- make -------------------------------------------------------------------------------------------------------------


def make(target, folder, docker=None):
    """`make TARGET` where `docker` is this script, or where there is none; exit code, and what it said."""
    folder.mkdir(exist_ok=True)
    for name in ("sh", "bash", "make", "env", "cat", "echo", "grep", "awk", "sed", "python3"):
        if (path := shutil.which(name)) and not (folder / name).exists():
            (folder / name).symlink_to(path)
    if docker is not None:
        (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n", "utf-8")
        (folder / "docker").chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env={"PATH": str(folder), "HOME": os.environ.get("HOME", "/")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("target", ["up", "down"])
@pytest.mark.parametrize(
    "docker",
    [
        None,
        'echo "docker: unknown command: docker compose" >&2; exit 1',
        '[ "$1" = compose ] && exit 0; echo "Cannot connect to the Docker daemon" >&2; exit 1',
    ],
    ids=["no docker", "no compose", "no engine"],
)
def test_without_an_engine_make_says_what_is_missing_and_what_does_without(target, docker, tmp_path):
    code, said = make(target, tmp_path / "bin", docker)
    assert code != 0
    assert "needs a container engine that runs, with Compose" in said
    assert "make kafka" in said


def test_make_up_builds_and_starts_all_and_says_where_it_is_and_make_down_ends_it(tmp_path):
    calls = tmp_path / "calls"
    docker = f'echo "$@" KAFKA_PORT=$KAFKA_PORT >> {calls}'
    code, said = make("up", tmp_path / "bin", docker)
    assert code == 0, said
    assert calls.read_text().splitlines()[-1] == (
        "compose --file deploy/compose.yaml up --build --detach KAFKA_PORT=9092"
    )
    for port in ("9092", "9090", "3000"):
        assert f"127.0.0.1:{port}" in said
    code, said = make("down", tmp_path / "bin", docker)
    assert code == 0, said
    assert (
        calls.read_text()
        .splitlines()[-1]
        .startswith("compose --file deploy/compose.yaml --profile demo down ")
    )
