"""`evalsink push` and `evalsink outbox` as a user has them: what they say, what they do, how they end."""

import json
import subprocess
import sys
import threading

import pytest

from consumer.archive.lock import PusherLock
from consumer.archive.outbox import PLACE_FACT
from schemas.names import hash8
from tests.acceptance.conftest import ROOT, environment, evalsink
from tests.archive.conftest import REPO
from tests.hub_server import CUT, GOOD_TOKEN, Gate, HubServer, status
from tests.observing import until

CARD = "README.md"


def settings(hub, **more):
    return {
        "HF_TOKEN": GOOD_TOKEN,
        "EVALSINK_HUB_ENDPOINT": hub.endpoint,
        "EVALSINK_HUB_XET": "false",
        **more,
    }


@pytest.fixture
def stored(publishing):
    """A state folder whose worker is gone, with three runs in its outbox."""
    for number in range(3):
        publishing.clock.now = 1_000_000.0 + number
        publishing.close(f"r{number}")
    publishing.outbox.remember("output", str(publishing.output))
    return publishing


def push(stored, hub, *arguments, code=0, **more):
    return evalsink(
        *("push", "--state", stored.state, "--hub-repo", REPO, *arguments),
        cwd=stored.folder,
        code=code,
        **settings(hub, **more),
    )


def outbox(stored, *arguments, code=0):
    return evalsink("outbox", *arguments, "--state", stored.state, cwd=stored.folder, code=code)


def test_what_the_outbox_holds_is_pushed_and_the_command_finds_the_files_by_itself(stored, hub):
    done = push(stored, hub)
    assert "archived: 3 runs, nothing waits\n" == done.stdout
    assert stored.tree().items() <= hub.repo(REPO).files().items()
    assert 1 == len(hub.repo(REPO).commits)
    assert "archived: 0 runs, nothing waits\n" == push(stored, hub).stdout
    assert 1 == len(hub.repo(REPO).commits)


def test_a_dry_run_asks_nothing_and_changes_nothing(stored, hub):
    before = stored.outbox.all()
    done = push(stored, hub, "--dry-run", HF_TOKEN="")
    lines = done.stdout.splitlines()
    assert 3 == len(lines)
    assert all(line.startswith(f"{REPO}  org__m/2026") and "4 files, " in line for line in lines)
    assert "would push 3 runs" in done.stderr
    assert [] == hub.requests
    assert before == stored.outbox.all()


def test_without_a_repository_without_an_outbox_and_with_a_bad_name_it_says_what_to_do(stored, hub, tmp_path):
    done = evalsink("push", "--state", stored.state, cwd=tmp_path, code=2)
    assert "--hub-repo ORG/NAME, or the setting hub.repo" in done.stderr
    done = evalsink("push", "--state", tmp_path / "none", "--hub-repo", REPO, cwd=tmp_path, code=2)
    assert "name a worker's --state, or folders to push" in done.stderr
    done = evalsink("push", "--state", stored.state, "--hub-repo", "evals", cwd=tmp_path, code=2)
    assert "'evals' is not ORG/NAME" in done.stderr
    done = evalsink("outbox", "--state", tmp_path / "none", cwd=tmp_path, code=2)
    assert "a worker with --hub-repo makes one" in done.stderr
    assert [] == hub.requests


def test_what_is_refused_ends_in_an_error_and_is_tried_again_when_asked(stored, hub):
    fault = hub.faults.add("commit", status(403, "no right to this"), times=None)
    done = push(stored, hub, code=7)
    assert "0 archived, 3 not:" in done.stderr
    assert "no right to this" in done.stderr
    assert {"parked"} == set(stored.states().values())
    fault.remove()
    push(stored, hub, code=7)
    assert 0 == len(hub.repo(REPO).commits)
    push(stored, hub, "--retry-parked")
    assert {"archived"} == set(stored.states().values())


def test_a_hub_that_stays_away_is_given_up_and_what_waits_stays(stored, hub):
    hub.faults.add("any", CUT, times=None)
    done = push(stored, hub, "--give-up-after", "0.5", code=7)
    assert "the Hub took nothing for" in done.stderr
    assert "3 left in the outbox" in done.stderr
    assert {"queued"} == set(stored.states().values())
    hub.faults.clear()
    stored.outbox.retry_parked(now=0)
    push(stored, hub)
    assert {"archived"} == set(stored.states().values())


def test_beside_a_worker_that_pushes_it_steps_back_and_its_wish_is_granted(stored, hub):
    errands = stored.outbox.due(2e9, limit=3)
    stored.outbox.park(errands, "no", next_at=2e9)
    with PusherLock(stored.state):
        done = push(stored, hub, code=4)
        assert "a worker pushes from the outbox" in done.stderr
        assert {"parked"} == set(stored.states().values())
        done = push(stored, hub, "--retry-parked", code=4)
        assert "3 parked runs were queued again for it" in done.stderr
        assert {"queued"} == set(stored.states().values())


def test_an_outbox_for_another_place_is_not_taken_to_be_pushed_there(stored, hub):
    stored.outbox.remember(PLACE_FACT, "org/elsewhere org/elsewhere main ")
    done = push(stored, hub, code=2)
    assert "is for another place (org/elsewhere" in done.stderr
    assert [] == hub.requests


def test_with_folders_the_outbox_that_happens_to_lie_here_is_left_alone(stored, hub):
    done = evalsink("push", stored.output, "--hub-repo", REPO, cwd=stored.folder, **settings(hub))
    assert "archived: 3 runs, nothing waits\n" == done.stdout
    assert {"queued"} == set(stored.states().values())
    assert 1 == len(hub.repo(REPO).commits)


def test_a_folder_that_is_pushed_keeps_its_files_whatever_a_worker_would_do(hub, tmp_path):
    folder = lmms_eval_folder(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    evalsink(
        "push", folder, "--hub-repo", REPO, cwd=tmp_path, **settings(hub, EVALSINK_HUB_KEEP_FILES="false")
    )
    assert 1 == len(hub.repo(REPO).commits)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_run_that_cannot_be_pushed_holds_up_no_other_and_is_named(stored, hub):
    next(stored.output.rglob(f"*{hash8('r1')}_samples_t.jsonl")).unlink()
    done = evalsink("push", stored.output, "--hub-repo", REPO, cwd=stored.folder, code=7, **settings(hub))
    assert "2 archived, 1 not:" in done.stderr
    assert "is gone; evalsink verify" in done.stderr
    there = hub.repo(REPO).files()
    assert 2 == sum(path.endswith("_results.json") for path in there)


def test_the_outbox_is_shown_and_a_run_can_be_dropped(stored):
    [first, *_] = stored.outbox.waiting()
    stored.outbox.park([first], "403 no right\x1b[31m", next_at=3e9)
    shown = outbox(stored)
    assert ["RUN", "KIND", "STATE", "WAITS", "TRIES", "NEXT", "IN", "WHY"] == shown.stdout.split("\n")[
        0
    ].split()
    assert "r0   archive  parked" in shown.stdout
    assert r"403 no right\x1b[31m" in shown.stdout
    assert "2 queued, 0 pushing, 1 parked, 0 archived, 0 dropped" in shown.stderr
    lines = [json.loads(line) for line in outbox(stored, "--json").stdout.splitlines()]
    assert [("r0", "parked"), ("r1", "queued"), ("r2", "queued")] == [
        (line["run_id"], line["state"]) for line in lines
    ]
    dropped = evalsink("outbox", "--state", stored.state, "drop", "r0", cwd=stored.folder)
    assert "dropped: r0\n" == dropped.stdout
    assert ["r1", "r2"] == [
        json.loads(line)["run_id"] for line in outbox(stored, "--json").stdout.splitlines()
    ]
    assert 3 == len(outbox(stored, "--json", "--all").stdout.splitlines())
    done = evalsink("outbox", "--state", stored.state, "drop", "r0", cwd=stored.folder, code=2)
    assert "'r0' does not wait" in done.stderr


def lmms_eval_folder(folder, *, nan=False):
    """What lmms-eval writes, with what it should not write."""
    model = folder / "logs" / "org__model"
    model.mkdir(parents=True)
    results = {
        "results": {"mme": {"alias": "mme", "acc,none": 0.5, "acc_stderr,none": "N/A"}},
        "n-samples": {"mme": {"original": 2, "effective": 2}},
        "lmms_eval_version": "main@0a1b2c3d",
        "model_name": "org/model",
        "model_name_sanitized": "org__model",
        "date": "20260102_030405",
    }
    if nan:
        results["results"]["mme"]["odd,none"] = float("nan")
    (model / "20260102_030405_results.json").write_text(json.dumps(results, indent=2))
    rows = [{"doc_id": 0, "acc": 1.0, "note": "x"}, {"doc_id": 1, "acc": float("nan") if nan else 0.0}]
    (model / "20260102_030405_samples_mme.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "logs"


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("named", ["logs", "logs/org__model", "logs/org__model/20260102_030405_results.json"])
def test_what_lmms_eval_wrote_without_us_is_pushed_as_it_lies_with_figures_and_card(
    hub, tmp_path, named, nan
):
    folder = lmms_eval_folder(tmp_path, nan=nan)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = evalsink("push", tmp_path / named, "--hub-repo", REPO, cwd=tmp_path, **settings(hub))
    assert "archived: 1 run, nothing waits\n" == done.stdout
    there = hub.repo(REPO).files()
    assert {f"org__model/{path.name}": content for path, content in before.items()}.items() <= there.items()
    [row, *_] = there["org__model/20260102_030405_metrics.jsonl"].splitlines()
    assert {"model": "org__model", "task": "mme", "value": 0.5, "run_id": None}.items() <= json.loads(
        row
    ).items()
    assert b"org__model__mme" in there[CARD]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    evalsink("push", tmp_path / named, "--hub-repo", REPO, cwd=tmp_path, **settings(hub))
    assert 1 == len(hub.repo(REPO).commits)


def test_a_folder_without_results_is_refused_before_anything_is_asked(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    done = evalsink("push", tmp_path / "empty", "--hub-repo", REPO, cwd=tmp_path, code=2, **settings(hub))
    assert "no run in" in done.stderr
    assert [] == hub.requests


def test_real_output_of_both_harnesses_is_pushed_byte_for_byte(hub, realdata, tmp_path):
    for name in ("lmms-eval/mmmu", "lm-eval/negotiationtom"):
        evalsink("push", realdata / name, "--hub-repo", REPO, cwd=tmp_path, **settings(hub))
    there = hub.repo(REPO).files()
    for name in ("lmms-eval/mmmu", "lm-eval/negotiationtom"):
        for path in (realdata / name).rglob("*.json*"):
            assert path.read_bytes() == there[path.relative_to(realdata / name).as_posix()]


def test_large_files_go_by_xet_where_the_hub_has_it(tmp_path):
    folder = lmms_eval_folder(tmp_path)
    path = folder / "org__model" / "20260102_030405_samples_mme.jsonl"
    path.write_text("".join(json.dumps({"doc_id": n, "text": f"{n}" * 50}) + "\n" for n in range(9000)))
    with HubServer(xet=True, lfs_above_bytes=100_000) as hub:
        evalsink(
            *("push", folder, "--hub-repo", REPO),
            cwd=tmp_path,
            **settings(hub, EVALSINK_HUB_XET="true", HF_HOME=tmp_path / "hf"),
        )
        assert path.read_bytes() == hub.repo(REPO).files()["org__model/20260102_030405_samples_mme.jsonl"]
        assert hub.seen("xet-token")
        assert [] == hub.seen("lfs-put")
        assert [] == hub.unknown


def test_an_upload_that_hangs_for_ever_is_ended_from_outside_and_nothing_is_lost(stored, hub):
    gate = Gate()
    remove = hub.on("commit", gate)
    done = push(
        stored,
        hub,
        code=71,
        EVALSINK_HUB_TIMEOUT_S=1000,
        EVALSINK_HUB_UPLOAD_TIMEOUT_S=1,
    )
    assert "push_overdue" in done.stderr
    waiting = stored.outbox.waiting()
    assert {("queued", "it took longer than hub.upload_timeout_s")} == {
        (one.state, one.reason) for one in waiting
    }
    stored.outbox.put_off(waiting, "", next_at=0.0)  # not in a minute, but now
    remove()
    gate.open()
    push(stored, hub)
    assert {"archived"} == set(stored.states().values())
    until(lambda: stored.tree().items() <= hub.repo(REPO).files().items(), "the files")


def test_ctrl_c_ends_it_at_once_and_nothing_is_lost(stored, hub):
    gate = Gate()
    remove = hub.on("commit", gate)
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "push", "--state", str(stored.state), "--hub-repo", REPO],
        cwd=ROOT,
        env=environment(**settings(hub)),
        stderr=subprocess.PIPE,
    )
    gate.wait_reached()
    process.send_signal(2)
    threading.Timer(0.2, gate.open).start()
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert b"Traceback" not in said
    remove()
    push(stored, hub)
    assert {"archived"} == set(stored.states().values())
    assert 1 == len(hub.repo(REPO).commits)
