"""The image, really built and really run: user 10001, a root file system that cannot be written, no capability."""

import importlib.metadata
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from consumer.report.verify import find_results, read_run, verify_run
from tests.acceptance.conftest import evalsink, topic_settings
from tests.conftest import ROOT
from tests.deploy.containers import Engine
from tests.kafka_harness.broker import free_ports
from tests.monitoring.asking import Pages

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

USER = 10001
TAG = "localhost/evalsink:tested"
# What asks the container's own Python, and prints JSON.
ASK = ("--entrypoint=python",)


@pytest.fixture(scope="module")
def engine():
    engine = Engine()
    engine.make_base()
    return engine


@pytest.fixture(scope="module")
def image(engine):
    """The image of this checkout."""
    ended = engine.build(TAG)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return TAG


@pytest.fixture
def folders(tmp_path):
    """Output and state as an operator gives them to the user of the image; and the options that mount them."""
    output, state = tmp_path / "output", tmp_path / "state"
    for folder in (output, state):
        folder.mkdir()
        os.chown(folder, USER, USER)
    # pytest's own folders are closed to others.
    return output, state, (f"--volume={output}:/data", f"--volume={state}:/var/lib/evalsink")


def environment(settings):
    return [f"--env={name}={value}" for name, value in settings.items()]


def asked(engine, image, code, *options):
    """What the container's Python makes of `code`."""
    ended = engine.run(image, "-c", code, options=(*ASK, *options))
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


# -- building ---------------------------------------------------------------------------------------------------------


def copy_of_the_context(folder):
    """A checkout with what the build takes, to spoil."""
    for name in ("consumer", "deploy/image", "requirements", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dockerignore", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_a_slip_in_the_dockerfile_builds_nothing(engine, tmp_path):
    copy = copy_of_the_context(tmp_path)
    dockerfile = copy / "deploy" / "image" / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text("utf-8").replace("run.lock requirements/", "rnu.lock requirements/"), "utf-8"
    )
    ended = engine.build("localhost/evalsink:slip", copy)
    assert ended.returncode != 0
    assert "rnu.lock" in ended.stderr
    assert "Built" not in ended.stdout


def test_a_package_of_other_bytes_than_locked_builds_nothing(engine, tmp_path):
    copy = copy_of_the_context(tmp_path)
    lock = copy / "requirements" / "build.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:01234567", lock.read_text("utf-8")), "utf-8")
    ended = engine.build("localhost/evalsink:other", copy)
    assert ended.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in ended.stdout + ended.stderr


# -- what it is -------------------------------------------------------------------------------------------------------


def test_the_image_says_how_it_is_to_be_run(engine, image):
    config = engine.inspect(image)
    version = importlib.metadata.version("evalsink")
    assert f"{USER}:{USER}" == config["User"]
    assert (["evalsink"], ["worker"]) == (config["Entrypoint"], config["Cmd"])
    assert {"/data", "/var/lib/evalsink"} == set(config["Volumes"])
    assert {"9464/tcp"} == set(config["ExposedPorts"])
    assert "SIGTERM" == config["StopSignal"]
    assert "CMD" == config["Healthcheck"]["Test"][0]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert ("evalsink", "Apache-2.0", version) == (labels["title"], labels["licenses"], labels["version"])
    assert re.fullmatch(r"[0-9a-f]{40}(-modified)?|unknown", labels["revision"])


def test_just_what_the_lock_names_is_installed(engine, image):
    code = (
        "import importlib.metadata as m, json, platform, sys;"
        "print(json.dumps([sys.version_info[:2], {d.name: d.version for d in m.distributions()}]))"
    )
    (major, minor), installed = asked(engine, image, code)
    here = {"python_version": f"{major}.{minor}", "python_full_version": f"{major}.{minor}.0"}
    lines = re.findall(
        r"^([a-z].*?) \\$", (ROOT / "requirements" / "run.lock").read_text("utf-8"), re.MULTILINE
    )
    locked = {}
    for one in map(Requirement, lines):
        if one.marker is None or one.marker.evaluate(here):
            [pin] = one.specifier
            locked[name_of(one.name)] = pin.version
    assert len(locked) > 30
    assert {**locked, "evalsink": importlib.metadata.version("evalsink")} == {
        name_of(name): version for name, version in installed.items()
    }


def name_of(package):
    return re.sub(r"[-_.]+", "-", package).lower()


def test_only_its_own_folders_can_be_written_and_by_nobody_but_user_10001(engine, image):
    code = """
import json, os, pathlib
refused = {}
for place in ("/", "/etc", "/opt/evalsink", "/opt/evalsink/lib", "/usr/local", "/root", "/run", "/var/tmp", "/home"):
    try:
        pathlib.Path(place, "x").write_text("x")
    except OSError as error:
        refused[place] = error.strerror
    else:
        refused[place] = "written"
for place in ("/data", "/var/lib/evalsink", "/tmp"):
    pathlib.Path(place, "x").write_text("x")
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
owners = [os.stat(place).st_uid for place in ("/data", "/var/lib/evalsink")]
names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
ids = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
print(json.dumps([ids, owners, {name: int(status[name], 16) for name in names}, os.getpid(), refused]))
"""
    ids, owners, status, pid, refused = asked(engine, image, code)
    assert {USER} == {*ids, *owners}
    assert {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1} == status
    assert 1 == pid
    assert {"/", "/etc", "/usr/local", "/opt/evalsink"} < set(refused)
    assert {"Read-only file system", "Permission denied"} >= set(refused.values()), refused
    assert "Read-only file system" == refused["/"] == refused["/run"]


# -- what it does -----------------------------------------------------------------------------------------------------


def test_the_image_runs_the_demo(engine, image):
    ended = engine.run(image, "demo")
    assert ended.returncode == 0, ended.stderr
    assert "status complete" in ended.stdout
    assert "verified: every hash, count and identity" in ended.stdout


def test_the_image_runs_the_demo_into_a_folder_of_its_users(engine, image, folders):
    output, _, mounted = folders
    ended = engine.run(image, "demo", "--output", "/data/demo", options=mounted)
    assert ended.returncode == 0, ended.stderr
    [path] = find_results([output])
    verify_run(read_run(path))
    assert {(USER, USER)} == {(entry.stat().st_uid, entry.stat().st_gid) for entry in output.rglob("*")}


@pytest.mark.kafka
def test_a_worker_in_the_image_publishes_from_a_real_kafka_and_ends_in_order(
    engine, image, real, folders, tmp_path
):
    output, state, mounted = folders
    topics = topic_settings(real.topics())
    pages = Pages()
    evalsink("demo", "--output", tmp_path / "demo")
    evalsink("publish", tmp_path / "demo", "--brokers", real.bootstrap, "--shards", 4, **topics)

    config = tmp_path / "settings.toml"
    config.write_text('output = "/elsewhere"\nstate = "/elsewhere"\n', "utf-8")  # the image's variables win
    options = (
        *mounted,
        f"--volume={config}:/etc/evalsink/settings.toml:ro",
        *environment(
            {**topics, "EVALSINK_BROKERS": real.bootstrap, "EVALSINK_HTTP": f"0.0.0.0:{pages.port}"}
        ),
    )
    with engine.running(
        image, "worker", "--config", "/etc/evalsink/settings.toml", options=options
    ) as worker:
        [path] = worker.until(lambda: [*output.glob("*/*_results.json")], "a published run")
        worker.until(pages.is_ready, "readiness")
        assert worker.is_healthy()
        shown = worker.run("evalsink", "verify", "/data")
        assert (0, True) == (shown.returncode, "verified" in shown.stdout), shown.stderr
        assert worker.run("touch", "/opt/evalsink/x").returncode != 0
        assert 0 == worker.terminate()
        assert 1 == len(worker.lines("worker_stopped"))

    run = read_run(path)
    verify_run(run)
    assert "complete" == json.loads(path.read_bytes())["evalsink"]["status"]
    for folder in (output, state):
        assert {(USER, USER)} == {(entry.stat().st_uid, entry.stat().st_gid) for entry in folder.rglob("*")}
    assert [*state.iterdir()]


@pytest.fixture
def mute_server():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield "127.0.0.1:{1}".format(*server.getsockname())


def test_a_worker_that_waits_for_kafka_ends_when_it_is_told_to(engine, image, mute_server):
    """It is process 1 then, and has set up nothing yet: the kernel would keep the signal from it."""
    [port] = free_ports(1)
    options = environment({"EVALSINK_BROKERS": mute_server, "EVALSINK_HTTP": f"127.0.0.1:{port}"})
    with engine.running(image, options=options) as worker:
        worker.until(lambda: worker.lines("http_listening"), "its first line")
        assert worker.is_healthy()
        assert 143 == worker.terminate()
        assert "Traceback" not in worker.said()


@pytest.mark.kafka
def test_a_worker_in_the_image_reaps_the_process_that_pushes(engine, image, real, folders):
    """There is no init beside it that would."""
    _, _, mounted = folders
    [port] = free_ports(1)
    settings = {
        **topic_settings(real.topics()),
        "EVALSINK_BROKERS": real.bootstrap,
        "EVALSINK_HTTP": f"127.0.0.1:{port}",
        "EVALSINK_HUB_REPO": "nobody/nothing",
        "EVALSINK_HUB_ENDPOINT": "http://127.0.0.1:9",
    }
    with engine.running(image, options=(*mounted, *environment(settings))) as worker:
        [first] = worker.until(worker.children, "a process that pushes")
        os.kill(first, 9)
        worker.until(lambda: worker.lines("pusher_ended"), "it was seen to end")
        later = worker.until(
            lambda: [number for number in worker.children() if number != first], "another one"
        )
        assert "Z" not in worker.children().values()
        assert 0 == worker.terminate()
        assert not [number for number in (first, *later) if Path(f"/proc/{number}").exists()]


def test_an_address_that_is_taken_ends_the_worker_with_the_setting_s_name(engine, image, mute_server):
    ended = engine.run(image, options=environment({"EVALSINK_HTTP": mute_server}))
    assert 2 == ended.returncode
    assert "EVALSINK_HTTP" in ended.stderr
    assert "Traceback" not in ended.stderr
