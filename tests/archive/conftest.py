"""A Hub and what pushes to it: the real client over real HTTP, a clock that tests drive."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from consumer.archive.outbox import Outbox
from consumer.filesystem import Disk
from consumer.report import metrics
from consumer.settings import Hub as HubSettings
from schemas.names import run_files
from tests.hub_server import GOOD_TOKEN, HubServer

REPO = "org/evals"


class Clock:
    """The time of a pusher; nobody waits for it."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def hub():
    """A Hub without Xet: small files, and large ones by LFS."""
    with HubServer(xet=False) as server:
        yield server
        assert [] == server.unknown
        for name in server.repos:
            for kind in ("dataset", "model"):
                try:
                    repository = server.repo(name, kind)
                except KeyError:
                    continue
                assert [] == repository.empty_commits


@pytest.fixture(autouse=True)
def of_this_test_alone(monkeypatch, tmp_path_factory):
    """No token and no Xet but what a test gives: the machine's user may have both."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path_factory.mktemp("hf") / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    yield
    set_client_factory(default_client_factory)


class Publishing:
    """An output folder with runs as close-out leaves them, small ones, and the outbox beside it."""

    def __init__(self, folder: Path, endpoint: str):
        self.folder = folder
        self.output = folder / "output"
        self.state = folder / "state"
        self.output.mkdir()
        self.state.mkdir()
        self.token_file = folder / "token"
        self.token_file.write_text(GOOD_TOKEN + "\n")
        self.endpoint = endpoint
        self.outbox = Outbox(self.state)
        self.clock = Clock()

    def settings(self, **more):
        return HubSettings(
            **{
                "repo": REPO,
                "endpoint": self.endpoint,
                "token_file": str(self.token_file),
                "timeout_s": 5.0,
                "linger_s": 0.0,
                **more,
            }
        )

    def pusher(self, *, outbox=None, settings=None, **more):
        from consumer.archive.hub import Hub
        from consumer.archive.pusher import Pusher

        chosen = settings or self.settings()
        return Pusher(
            Hub(chosen),
            outbox or self.outbox,
            chosen,
            self.output,
            now=self.clock,
            jitter=lambda: 0.5,
            **more,
        )

    def drain(self, pusher, *, turns=200):
        """Turns, with time passing as they ask for it, until nothing waits. Returns the seconds that passed."""
        began = self.clock.now
        for _ in range(turns):
            wait_s = pusher.turn()
            if wait_s is None:
                return self.clock.now - began
            self.clock.now += wait_s
        raise AssertionError(f"not drained after {turns} turns: {self.outbox.waiting()}")

    def close(self, name, **more):
        """Publish a run and hand it in."""
        results = self.publish(name, **more)
        self.enter(results, status=more.get("status", "complete"))
        return results

    def enter(self, results, *, status="complete"):
        content = (self.output / results).read_bytes()
        self.outbox.enqueue(
            results,
            "archive",
            run_id=json.loads(content)["evalsink"]["run_id"],
            status=status,
            sha256=hashlib.sha256(content).hexdigest(),
            now=self.clock.now,
        )

    def publish(
        self,
        run_id,
        *,
        model="org/m",
        date="20260101_000000",
        tasks=None,
        harness="lmms-eval",
        status="complete",
        results=None,
    ):
        """A run's files; `tasks` are task to rows. Returns the path of the results JSON."""
        tasks = tasks if tasks is not None else {"t": [{"doc_id": 0, "acc": 1.0}, {"doc_id": 1, "acc": 0.0}]}
        files = run_files(run_id=run_id, model_name=model, date=date, harness=harness)
        folder = self.output / files.folder
        folder.mkdir(parents=True, exist_ok=True)
        entries = {}
        for task, rows in tasks.items():
            content = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
            (folder / files.samples(task)).write_bytes(content)
            entries[task] = {
                "file": files.samples(task),
                "rows": len(rows),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "filters": {"none": len(rows)},
            }
        document = {
            "results": results
            if results is not None
            else {
                task: {
                    "alias": task,
                    "acc,none": sum(row.get("acc", 0) for row in rows) / len(rows),
                    "acc_stderr,none": 0.25,
                }
                for task, rows in tasks.items()
            },
            "git_hash": "0a1b2c3",
            "date": date,
            "model_name": model,
            "model_name_sanitized": files.folder,
            "evalsink": {
                "run_id": run_id,
                "status": status,
                "why": [] if status == "complete" else ["shard 0: never ended"],
                "shards": 1,
                "tasks": entries,
            },
        }
        content = json.dumps(document, indent=2).encode()
        relative = f"{files.folder}/{files.results}" if files.folder else files.results
        (folder / files.table).write_text(f"| {run_id} |\n")
        (folder / files.metrics).write_bytes(
            metrics.render(document, relative, hashlib.sha256(content).hexdigest())
        )
        Disk().replace_file(folder / files.results, content)
        return relative

    def tree(self):
        """What the output folder holds."""
        return {
            path.relative_to(self.output).as_posix(): path.read_bytes()
            for path in self.output.rglob("*")
            if path.is_file()
        }

    def states(self):
        return {errand.run_id: errand.state for errand in self.outbox.all() if errand.kind == "archive"}


@pytest.fixture
def publishing(tmp_path, hub):
    return Publishing(tmp_path, hub.endpoint)
