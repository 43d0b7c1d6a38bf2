"""Archiving beside consuming: the one never waits for the other, unless a run counts as closed only on the Hub."""

import os
import signal

import pytest

from consumer import assembly
from consumer.archive.outbox import Outbox
from consumer.settings import Hub
from tests.hub_server import GOOD_TOKEN, Gate, Hang, HubServer, status
from tests.observing import pushing, until
from tests.worker.conftest import cut_off
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.kafka

REPO = "org/evals"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    with HubServer(xet=False) as server:
        yield server
        assert [] == server.unknown
        assert [] == [commit for name in server.repos for commit in server.repo(name).empty_commits]


@pytest.fixture
def stage(real_stage):
    """Promises are tested on a real broker only."""
    return real_stage


def archiving(stage, hub, *, durable="output", **more):
    """Settings of a worker that archives."""
    chosen = Hub(
        **{"repo": REPO, "endpoint": hub.endpoint, "xet": False, "linger_s": 0.1, "timeout_s": 5.0, **more}
    )
    return stage.settings(hub=chosen, durable=durable)


def tick_until(worker, condition, what):
    until(lambda: worker.tick() is not None and condition(), what, every_s=0)


def there(hub):
    return hub.repo(REPO).files() if REPO in hub.repos else {}


def archived(stage, hub):
    """Every published file is on the Hub, as it is here."""
    published = stage.tree()
    assert published
    return published.items() <= there(hub).items()


def test_runs_reach_the_hub_and_a_worker_that_is_idle_has_archived_them(stage, hub):
    stage.send(event for number in range(3) for event in Evaluation(f"r{number}").events())
    with assembly.worker(archiving(stage, hub)) as worker:
        worker.run(exit_when_idle_s=0.2)
        assert 1 == len(pushing(os.getpid()))
    assert [] == pushing(os.getpid())
    assert 3 == worker.counts.closed
    assert archived(stage, hub)


def test_a_hub_that_is_down_stops_neither_reading_nor_receipts_nor_commits(stage, hub):
    hub.down()
    [place, *_] = stage.send(Evaluation("r1").events())
    with assembly.worker(archiving(stage, hub)) as worker:
        tick_until(worker, lambda: worker.counts.closed == 1, "the first run closed")
        assert 1 == len(stage.receipts())
        offsets = stage.committed(place.partition)
        stage.send(Evaluation("r1-late").events())
        stage.send(Evaluation("r1").events())
        tick_until(worker, lambda: worker.counts.closed == 2, "the second run closed")
        tick_until(
            worker, lambda: stage.committed(place.partition) != offsets, "the offsets to move meanwhile"
        )
        hub.up()
        tick_until(worker, lambda: archived(stage, hub), "the runs on the Hub")
        worker.run(exit_when_idle_s=0.2)


def test_a_hub_that_hangs_stops_nothing_either(stage, hub):
    hub.faults.add("commit", Hang(Gate()), times=None)
    stage.send(Evaluation("r1").events())
    with assembly.worker(archiving(stage, hub, timeout_s=1.0)) as worker:
        tick_until(worker, lambda: hub.seen("preupload") and worker.counts.closed == 1, "a push that hangs")
        stage.send(Evaluation("r2").events())
        tick_until(worker, lambda: worker.counts.closed == 2, "the second run closed")
        assert 2 == len(stage.receipts())
        hub.faults.clear()
        hub.faults.release()
        worker.run(exit_when_idle_s=0.2)
    assert archived(stage, hub)


def test_what_is_durable_on_the_hub_only_has_no_receipt_before_it_is_there(stage, hub):
    gate = Gate()
    hub.on("commit", gate)
    places = stage.send(Evaluation("r").events())
    first = min(place.offset for place in places if place.topic == stage.topics.samples)
    with assembly.worker(archiving(stage, hub, durable="hub")) as worker:
        tick_until(worker, gate.reached.is_set, "the commit on its way")
        before = worker.turns
        tick_until(worker, lambda: worker.turns > before + 5, "some turns")
        assert stage.tree()
        assert ([], 0) == (stage.receipts(), worker.counts.closed)
        tick_until(worker, lambda: all(stage.committed(places[0].partition).values()), "a commit")
        assert first == stage.committed(places[0].partition)[stage.topics.samples][1]["w"]
        gate.open()
        worker.run(exit_when_idle_s=0.2)
    assert archived(stage, hub)
    [(_, receipt)] = stage.receipts()
    assert "r" == receipt.run_id
    watermark = stage.committed(places[0].partition)[stage.topics.samples]
    assert watermark[0] == watermark[1]["w"]


def test_with_durable_hub_runs_of_every_status_are_pushed_and_without_only_complete_ones(stage, hub):
    failed = Evaluation("failed")
    events = list(failed.events())[:-1]
    stage.send([*events, failed.ended(failed.shards - 1, status="failed")])
    stage.send(Evaluation("whole").events())
    for durable, names in (("output", {"whole"}), ("hub", {"whole", "failed"})):
        settings = archiving(stage, hub, durable=durable)
        settings = type(settings)(
            **{
                **{name: getattr(settings, name) for name in settings.__struct_fields__},
                "grace_s": 0.1,
                "abandon_after_s": 0.1,
                "group": stage.broker.name("group"),
                "state": str(stage.folder / f"state-{durable}"),
            }
        )
        with assembly.worker(settings) as worker:
            tick_until(worker, lambda: worker.counts.closed == 2, "both runs closed")
            worker.run(exit_when_idle_s=0.2)
        results = stage.results()
        assert {"whole", "failed"} == set(results)
        on_the_hub = {path for path in there(hub) if path.endswith("_results.json")}
        assert len(names) == len(on_the_hub)


def test_a_parked_run_pins_its_watermark_until_an_operator_drops_it(stage, hub):
    hub.faults.add("commit", status(400, "never"), times=None)
    stage.send(Evaluation("r").events())
    settings = archiving(stage, hub, durable="hub")
    with assembly.worker(settings) as worker:
        # Idle: nothing is left that time alone will do.
        worker.run(exit_when_idle_s=0.2)
    assert [] == stage.receipts()
    outbox = Outbox(stage.folder / "state")
    [errand] = outbox.waiting()
    assert ("parked", True) == (errand.state, "never" in errand.reason)
    with assembly.worker(settings) as worker:
        tick_until(
            worker,
            lambda: any(one.state == "parked" for one in outbox.waiting()) and stage.tree(),
            "parked again",
        )
        assert 1 == outbox.drop("r")
        worker.run(exit_when_idle_s=0.2)
        assert 1 == worker.counts.closed
    assert ["r"] == [receipt.run_id for _, receipt in stage.receipts()]
    assert {} == {path: content for path, content in there(hub).items() if path.endswith(".json")}


def test_a_pusher_that_dies_is_started_again_and_the_worker_does_not_notice(stage, hub):
    gate = Gate()
    remove = hub.on("preupload", gate)
    stage.send(Evaluation("r").events())
    with assembly.worker(archiving(stage, hub)) as worker:
        tick_until(worker, gate.reached.is_set, "a push on its way")
        [pid] = pushing(os.getpid())
        os.kill(pid, signal.SIGKILL)
        remove()
        gate.open()
        tick_until(worker, lambda: pushing(os.getpid()) not in ([], [pid]), "another one")
        worker.run(exit_when_idle_s=0.2)
    assert archived(stage, hub)
    assert 1 == len(hub.repo(REPO).commits)


def test_what_was_published_while_nothing_was_archived_is_archived_later(stage, hub):
    settings = archiving(stage, hub)
    stage.send(Evaluation("r1").events())
    with assembly.worker(settings) as worker:
        worker.run(exit_when_idle_s=0.2)
    stage.send(Evaluation("r2").events())
    stage.work()
    assert not archived(stage, hub)
    with assembly.worker(settings) as worker:
        worker.run(exit_when_idle_s=0.2)
    assert archived(stage, hub)


def test_a_folder_named_like_ours_in_the_working_folder_is_not_run(stage, hub, monkeypatch):
    trap = stage.folder / "consumer"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(stage.folder)
    stage.send(Evaluation("r").events())
    with assembly.worker(archiving(stage, hub)) as worker:
        worker.run(exit_when_idle_s=0.2)
    assert archived(stage, hub)


def test_a_worker_that_dies_before_its_receipt_pushes_the_run_again_without_a_second_commit(stage, hub):
    sent = stage.send(Evaluation("r").events())
    settings = archiving(stage, hub, durable="hub")
    with assembly.worker(settings) as worker:
        # With the last record the run goes to be published and pushed, off this thread; the receipt needs another turn.
        tick_until(worker, lambda: worker.counts.records == len(sent), "all of it read")
        until(lambda: hub.seen("paths-info") and stage.tree() and archived(stage, hub), "it is there")
        cut_off(worker)
    assert [] == stage.receipts()
    with assembly.worker(settings) as worker:
        worker.run(exit_when_idle_s=0.2)
    assert ["r"] == [receipt.run_id for _, receipt in stage.receipts()]
    assert 1 == len(hub.repo(REPO).commits)
