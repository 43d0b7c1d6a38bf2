"""Whatever the Hub answers: in the end every run is there once, as it is here, and the card lists it."""

import json
import os
import threading
from pathlib import Path

import pytest
import yaml
from huggingface_hub.utils import validate_repo_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.archive import pusher as pusher_module
from consumer.archive.outbox import Outbox
from consumer.archive.pace import BURST_COMMITS, next_commit_at
from consumer.archive.parcels import repositories
from consumer.archive.shelf import Shelf
from consumer.pushing import pack_published
from consumer.settings import EvalResult
from consumer.settings import Hub as HubSettings
from schemas.names import hash8
from tests.archive.conftest import REPO, Publishing
from tests.hub_server import (
    CUT,
    GOOD_TOKEN,
    CutBody,
    HubServer,
    Respond,
    commit_limit,
    proxy_page,
    rate_limited,
    retry_after,
    status,
)
from tests.hub_server.exchange import json_answer

# huggingface_hub hands LFS uploads to httpx2 in a way that httpx2 wants to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

CARD = "README.md"


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    """The client sleeps between its own tries of the steps before a commit."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def splits(hub, repo=REPO, branch="main"):
    """Paths that the card names, apart from those of metrics."""
    text = hub.repo(repo).files(branch)[CARD].decode()
    front = yaml.safe_load(text.split("---\n")[1])
    paths = set()
    for config in front["configs"]:
        for entry in config["data_files"]:
            path = entry["path"]
            paths |= {path} if isinstance(path, str) else set(path)
    return paths


def check(publishing, hub, repo=REPO):
    """Every file of the output folder is in the repository as it is here, once, and the card names it."""
    repository = hub.repo(repo)
    there = repository.files()
    assert publishing.tree() == {path: there[path] for path in there if path not in {CARD, ".gitattributes"}}
    added = [path for commit in repository.commits for path in commit.added if path != CARD]
    assert len(added) == len(set(added))
    assert [] == repository.empty_commits
    assert {path for path in there if path.endswith(".jsonl")} == splits(hub, repo)


def test_runs_that_are_due_together_share_one_commit(publishing, hub):
    for number in range(7):
        publishing.close(f"r{number}", model=f"org/m{number % 2}")
    pusher = publishing.pusher()
    publishing.drain(pusher)
    check(publishing, hub)
    [commit] = hub.repo(REPO).commits
    assert "Archive 7 runs" == commit.title
    assert {"archived"} == set(publishing.states().values())
    assert {"archived": 7} == publishing.outbox.outcomes()


def test_pushing_again_what_is_there_makes_no_commit(publishing, hub):
    results = publishing.close("r")
    publishing.drain(publishing.pusher())
    head = hub.repo(REPO).head
    publishing.enter(results)
    assert {"r": "queued"} == publishing.states()
    publishing.drain(publishing.pusher())
    assert {"r": "archived"} == publishing.states()
    assert head == hub.repo(REPO).head


def test_large_files_go_their_own_way(publishing, hub):
    hub.lfs_above_bytes = 8000
    publishing.close("r", tasks={"big": [{"doc_id": number, "acc": 1.0} for number in range(500)]})
    publishing.drain(publishing.pusher())
    check(publishing, hub)
    assert 1 == len(hub.seen("lfs-put"))


def test_three_hundred_runs_closed_within_a_minute_reach_the_hub_in_at_most_ten_commits(publishing, hub):
    pusher = publishing.pusher(settings=publishing.settings(linger_s=10.0))
    for second in range(60):
        for number in range(5):
            publishing.close(f"r{second}-{number}", model=f"org/m{number}")
        pusher.turn()
        publishing.clock.now += 1
    publishing.drain(pusher)
    check(publishing, hub)
    assert 300 == len(publishing.states())
    assert 2 <= len(hub.repo(REPO).commits) <= 10


def test_a_run_waits_for_others_no_longer_than_it_should(publishing, hub):
    pusher = publishing.pusher(settings=publishing.settings(linger_s=10.0))
    publishing.close("r1")
    assert 10.0 == pusher.turn()
    publishing.clock.now += 6
    publishing.close("r2")
    assert 4.0 == pusher.turn()
    assert [] == hub.requests
    publishing.clock.now += 4
    pusher.turn()
    assert 1 == len(hub.repo(REPO).commits)
    assert {"r1": "archived", "r2": "archived"} == publishing.states()


def test_the_commits_of_an_hour_are_bounded_also_over_a_restart(publishing, hub):
    limit = 12
    chosen = publishing.settings(commits_per_hour=limit, files_per_commit_max=1)
    for number in range(30):
        publishing.close(f"r{number:02}")
    times = []
    hub.on("commit", lambda _: times.append(publishing.clock.now))
    for _ in range(3):
        pusher = publishing.pusher(settings=chosen)
        for _ in range(15):
            publishing.clock.now += pusher.turn() or 0.0
    publishing.drain(publishing.pusher(settings=chosen))
    check(publishing, hub)
    assert 30 == len(times)
    for first in times:
        assert limit >= sum(first <= at < first + 3600 for at in times)
    # Some may go at once; then evenly, not all at the beginning of each hour.
    assert BURST_COMMITS == sum(at == times[0] for at in times)
    assert times[-1] - times[0] <= 30 / limit * 3600


@given(
    per_hour=st.integers(1, 40),
    waits=st.lists(st.floats(0, 1000), min_size=1, max_size=60),
)
def test_whoever_keeps_to_the_pace_never_commits_more_than_the_budget_in_any_hour(per_hour, waits):
    asked = []
    now = 0.0
    for wait_s in waits:
        now = max(now + wait_s, next_commit_at(asked, per_hour))
        asked.append(now)
    for first in asked:
        assert per_hour >= sum(first <= at < first + 3600 - 1e-6 for at in asked)
    # And it is no slower than it must be.
    assert asked[-1] <= sum(waits) + len(asked) * 3600 / per_hour + 3600


FAULTS = {
    "500 before it was applied": (status(500), "before", "commit"),
    "500 after it was applied": (status(500), "after", "commit"),
    "504 after it was applied": (status(504), "after", "commit"),
    "cut before an answer": (CUT, "after", "commit"),
    "cut in the middle of the commit": (CutBody(300), "before", "commit"),
    "cut in the middle of an upload": (CutBody(3000), "before", "lfs-put"),
    "a commit is being made": (status(409, "Another commit operation is in progress"), "before", "commit"),
    "somebody was quicker": (status(412, "A commit has happened since"), "before", "commit"),
    "quota": (rate_limited(55), "before", "preupload"),
    "quota at the commit": (rate_limited(55), "before", "commit"),
    "retry after": (retry_after(120), "before", "commit"),
    "commits of the hour": (commit_limit(43), "before", "commit"),
    "page of a proxy": (proxy_page(502), "before", "commit"),
    "login page": (proxy_page(200), "after", "commit"),
    "the listing fails": (status(503), "before", "tree"),
    "the head is not told": (CUT, "before", "info"),
    "it is not made": (status(500), "before", "create"),
    "the check fails": (status(500), "before", "paths-info"),
    "the card is not looked at": (status(500), "before", "validate"),
    "the upload is not answered": (CUT, "after", "lfs-put"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_delays_and_changes_nothing(publishing, hub, name):
    effect, at, step = FAULTS[name]
    hub.lfs_above_bytes = 8000
    for number in range(3):
        publishing.close(f"r{number}", tasks={"t": [{"doc_id": n, "acc": 1.0} for n in range(500)]})
    fault = hub.faults.add(step, effect, at=at)
    publishing.drain(publishing.pusher())
    assert 1 == fault.hits
    check(publishing, hub)
    assert 1 == len(hub.repo(REPO).commits)


@pytest.mark.parametrize(
    ("effect", "seconds"), [(rate_limited(55), 56.5), (retry_after(120), 121.5), (commit_limit(43), 2581.5)]
)
def test_nothing_is_asked_before_the_time_that_was_said(publishing, hub, effect, seconds):
    publishing.close("r")
    pusher = publishing.pusher()
    hub.faults.add("commit", effect)
    assert seconds == pusher.turn()
    asked = len(hub.requests)
    publishing.clock.now += seconds - 1
    publishing.close("r2")
    assert pytest.approx(1.0) == pusher.turn()
    assert asked == len(hub.requests)
    [waiting, _] = publishing.outbox.waiting()
    assert (0, True) == (waiting.attempts, "429" in waiting.reason)
    publishing.clock.now += 1
    pusher.turn()
    assert {"r": "archived", "r2": "archived"} == publishing.states()


def test_a_hub_that_stays_away_is_asked_ever_more_seldom_with_ever_smaller_batches(publishing, hub):
    for number in range(8):
        publishing.close(f"r{number}")
    pusher = publishing.pusher()
    fault = hub.faults.add("commit", status(504), times=None)
    waits, sizes = [], []
    for _ in range(12):
        wait_s = pusher.turn()
        waits.append(wait_s)
        sizes.append(max(errand.attempts for errand in publishing.outbox.waiting()))
        publishing.clock.now += wait_s
    assert waits == sorted(waits)
    assert pusher_module.AWAY_WAIT_MAX_S * 0.75 == waits[-1]
    assert {"queued"} == set(publishing.states().values())
    fault.remove()
    publishing.drain(pusher)
    check(publishing, hub)
    # A batch that was too much for one answer went in smaller ones, which grew again.
    assert 1 < len(hub.repo(REPO).commits) <= 8


def test_a_hub_that_was_down_is_pushed_to_when_it_is_back(publishing, hub):
    publishing.close("r1")
    pusher = publishing.pusher()
    hub.down()
    began = publishing.clock.now
    while publishing.clock.now < began + 60:
        publishing.clock.now += pusher.turn()
    publishing.close("r2")
    hub.up()
    publishing.drain(pusher)
    check(publishing, hub)
    assert {"r1": "archived", "r2": "archived"} == publishing.states()


def test_a_refused_run_is_parked_alone_and_tried_again_in_an_hour(publishing, hub, caplog):
    for number in range(8):
        publishing.close(f"r{number}")
    bad = f"-{hash8('r5')}_samples_t.jsonl".encode()
    fault = hub.faults.add(
        "commit", status(400, "bad content"), times=None, when=lambda request: bad in request.body
    )
    pusher = publishing.pusher()
    turns_until(publishing, pusher, lambda: "parked" in publishing.states().values())
    wait_s = turns_until(publishing, pusher, lambda: "queued" not in publishing.states().values())
    states = publishing.states()
    assert "parked" == states.pop("r5")
    assert {"archived"} == set(states.values())
    [parked] = publishing.outbox.waiting()
    assert "bad content" in parked.reason
    assert 3000.0 < wait_s <= 3600.0
    assert ["run_parked"] == [record.message for record in caplog.records if record.levelname == "ERROR"]
    publishing.clock.now += wait_s
    pusher.turn()
    assert "parked" == publishing.states()["r5"]
    assert "runs_still_parked" == caplog.messages[-1]
    fault.remove()
    publishing.clock.now += 3600
    publishing.drain(pusher)
    check(publishing, hub)


def turns_until(publishing, pusher, condition):
    """Turns, with time passing as they ask for it. Returns what the last one asked for."""
    for _ in range(300):
        wait_s = pusher.turn()
        if condition():
            return wait_s
        publishing.clock.now += wait_s
    raise AssertionError(publishing.outbox.waiting())


@pytest.mark.parametrize("effect", [status(400, "no"), status(504), commit_limit(43)])
def test_whatever_the_hub_says_commits_keep_to_the_pace(publishing, hub, effect):
    for number in range(40):
        publishing.close(f"r{number:02}")
    hub.faults.add("commit", effect, times=None)
    times = []
    hub.on("commit", lambda _: times.append(publishing.clock.now))
    pusher = publishing.pusher(settings=publishing.settings(commits_per_hour=12))
    began = publishing.clock.now
    while publishing.clock.now < began + 10_000:
        publishing.clock.now += max(pusher.turn() or 0.0, 1.0)
    assert times
    for first in times:
        assert 12 >= sum(first <= at < first + 3600 for at in times)
    assert len(hub.requests) < 20 * len(times) + 50


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_run_that_fails_for_ever_holds_up_no_other(publishing, hub, where, monkeypatch):
    bad = publishing.close("bad")
    publishing.clock.now += 1
    good = [publishing.close(f"r{number}") for number in range(5)]
    mark = hash8("bad")
    if where == "there":
        hub.faults.add(
            "commit",
            status(500),
            times=None,
            when=lambda request: f"{mark}_results.json".encode() in request.body,
        )
    else:
        read = Path.read_bytes

        def failing(path):
            if mark in path.name and path.name.endswith(".jsonl"):
                raise OSError(5, "Input/output error")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", failing)
    pusher = publishing.pusher()
    began = publishing.clock.now
    while (
        set(publishing.states().values()) != {"queued", "archived"}
        and "parked" not in publishing.states().values()
    ):
        publishing.clock.now += pusher.turn() or 1.0
        assert publishing.clock.now < began + 3600
    while publishing.clock.now < began + 7200:
        publishing.clock.now += min(max(pusher.turn() or 1.0, 1.0), 600)
    states = publishing.states()
    assert states.pop("bad") in {"queued", "parked"}
    assert {"archived"} == set(states.values())
    assert set(good) <= set(hub.repo(REPO).files())
    assert bad not in hub.repo(REPO).files()


def test_a_disk_that_is_full_while_pushing_parks_nobody_and_is_no_crash(publishing, hub, caplog, monkeypatch):
    publishing.close("r")
    place, full = Shelf.place, [OSError(28, "database or disk is full"), OSError(122, "quota")]

    def filled(*arguments, **more):
        if full:
            raise full.pop()
        return place(*arguments, **more)

    monkeypatch.setattr(Shelf, "place", filled)
    pusher = publishing.pusher()
    publishing.drain(pusher)
    assert not full
    assert "push_crashed" not in caplog.text
    assert "run_parked" not in caplog.text
    check(publishing, hub)


def test_runs_with_a_file_that_the_repository_ignores_are_parked_and_nothing_of_them_is_sent(publishing, hub):
    hub.create(REPO, private=True, files={".gitignore": b"*_samples_secret.jsonl\n"})
    for number in range(20):
        publishing.close(f"r{number:02}")
    publishing.close("bad", tasks={"secret": [{"doc_id": 0}], "t": [{"doc_id": 0}]})
    publishing.pusher().turn()
    states = publishing.states()
    assert "parked" == states.pop("bad")
    assert {"archived"} == set(states.values())
    [parked] = publishing.outbox.waiting()
    assert "_samples_secret.jsonl: take it out there" in parked.reason
    assert 1 == len(hub.repo(REPO).commits)
    assert not [path for path in hub.repo(REPO).files() if hash8("bad") in path]


def test_a_run_that_is_not_seen_in_its_commit_is_not_taken_for_archived(publishing, hub):
    publishing.close("r")
    hub.faults.add("paths-info", Respond(json_answer([])))
    publishing.pusher().turn()
    [parked] = publishing.outbox.waiting()
    assert "parked" == parked.state
    assert "as it was sent: somebody removed or replaced it" in parked.reason


def test_a_refused_token_parks_all_at_once_and_the_next_one_frees_them_at_once(publishing, hub):
    hub.tokens = {"hf_tomorrow"}
    for number in range(5):
        publishing.close(f"r{number}")
    pusher = publishing.pusher()
    pusher.turn()
    asked = len(hub.requests)
    assert {"parked"} == set(publishing.states().values())
    assert asked <= 2
    publishing.clock.now += 30
    pusher.turn()
    assert asked == len(hub.requests)
    # Another process may be the one that sees it.
    publishing.token_file.write_text("hf_tomorrow")
    assert publishing.drain(publishing.pusher()) < 60
    check(publishing, hub)


def test_a_refused_token_is_not_asked_with_for_batch_after_batch(publishing, hub):
    hub.tokens = {"hf_tomorrow"}
    for number in range(30):
        publishing.close(f"r{number:02}")
    pusher = publishing.pusher(settings=publishing.settings(files_per_commit_max=4))
    pusher.turn()
    assert len(hub.requests) <= 2
    turns_until(publishing, pusher, lambda: {"parked"} == set(publishing.states().values()))
    assert len(hub.requests) <= 60


def test_other_bytes_under_a_name_are_kept_unless_an_operator_says_otherwise(publishing, hub):
    results = publishing.close("r")
    publishing.close("other")
    hub.create(REPO, private=True, files={results: b"{}"})
    publishing.pusher().turn()
    assert {"r": "parked", "other": "archived"} == publishing.states()
    assert b"{}" == hub.repo(REPO).files()[results]
    [parked] = publishing.outbox.waiting()
    assert "with other bytes than here" in parked.reason
    assert "--overwrite" in parked.reason
    publishing.outbox.retry_parked(now=publishing.clock.now)
    publishing.drain(publishing.pusher(overwrite=True))
    assert publishing.tree()[results] == hub.repo(REPO).files()[results]


def test_a_public_repository_is_not_written_to_unasked(publishing, hub):
    hub.create(REPO, private=False)
    publishing.close("r")
    publishing.pusher().turn()
    assert {"r": "parked"} == publishing.states()
    assert [] == hub.repo(REPO).commits


@pytest.mark.parametrize("damage", ["gone", "changed", "samples gone", "samples cut"])
def test_a_run_whose_files_are_not_what_was_closed_is_parked_and_the_others_go_on(publishing, hub, damage):
    results = publishing.close("r")
    publishing.close("other")
    path = publishing.output / results
    samples = next(path.parent.glob(f"*{hash8('r')}_samples_t.jsonl"))
    match damage:
        case "gone":
            path.unlink()
        case "changed":
            path.write_bytes(path.read_bytes() + b"\n")
        case "samples gone":
            samples.unlink()
        case _:
            samples.write_bytes(samples.read_bytes()[:-3])
    publishing.pusher().turn()
    assert {"r": "parked", "other": "archived"} == publishing.states()
    assert not [path for path in hub.repo(REPO).files() if hash8("r") in path]


def test_results_and_samples_go_where_they_belong_and_results_last(publishing, hub):
    publishing.close("r1", model="org/a")
    publishing.close("r2", model="org/b--c.git")
    chosen = publishing.settings(repo="org/results", samples_repo="org/{model}-rows")
    hub.faults.add("commit", status(500), when=lambda request: "org/results" in request.path)
    pusher = publishing.pusher(settings=chosen)
    publishing.drain(pusher)
    mark = hash8("org__b--c.git")
    assert ["org/org__a-rows", f"org/org__b-c.git-{mark}-rows", "org/results"] == hub.repos
    results = hub.repo("org/results").files()
    rows = {**hub.repo("org/org__a-rows").files(), **hub.repo(f"org/org__b-c.git-{mark}-rows").files()}
    assert {path for path in publishing.tree() if "_samples_" not in path} <= set(results)
    assert not [path for path in results if "_samples_" in path]
    assert {path for path in publishing.tree() if path.endswith(".jsonl")} <= set(rows)
    assert not [path for path in rows if path.endswith("_results.json")]


def test_a_branch_is_made_and_its_card_says_how_to_load_it(publishing, hub):
    publishing.close("r")
    publishing.drain(publishing.pusher(settings=publishing.settings(branch="archive")))
    files = hub.repo(REPO).files("archive")
    assert publishing.tree().items() <= files.items()
    assert b'revision="archive"' in files[CARD]
    assert [] == [path for path in hub.repo(REPO).files() if path.endswith(".jsonl")]


def test_files_go_once_they_are_archived_if_that_was_asked_for(publishing, hub):
    publishing.close("r1")
    publishing.close("r2")
    before = publishing.tree()
    chosen = publishing.settings(keep_files=False)
    hub.faults.add("commit", status(500), at="after")
    publishing.drain(publishing.pusher(settings=chosen))
    assert {} == publishing.tree()
    assert before.items() <= hub.repo(REPO).files().items()
    # What a new run needs to know of them for the card comes from the Hub.
    publishing.close("r3")
    publishing.drain(publishing.pusher(settings=chosen))
    assert {path for path in hub.repo(REPO).files() if path.endswith(".jsonl")} == splits(hub)


def test_files_that_were_to_go_when_it_was_killed_go_later(publishing, hub):
    publishing.close("r")
    chosen = publishing.settings(keep_files=False)
    pusher = publishing.pusher(settings=chosen)
    pusher._clear = lambda: None
    pusher.turn()
    assert "clearing" == publishing.states()["r"]
    assert publishing.tree()
    publishing.drain(publishing.pusher(settings=chosen))
    assert {} == publishing.tree()
    assert "archived" == publishing.states()["r"]


def test_a_run_that_is_closed_again_while_its_files_go_stays_archived(publishing, hub):
    results = publishing.close("r")
    chosen = publishing.settings(keep_files=False)
    publishing.drain(publishing.pusher(settings=chosen))
    # Its worker lost its disk: it publishes the run again and enters it, and the files go a second time.
    assert results == publishing.close("r")
    pusher = publishing.pusher(settings=chosen)
    publishing.drain(pusher)
    publishing.publish("r")
    publishing.enter(results)
    for path in publishing.output.rglob("*r*"):
        path.unlink() if path.is_file() else None
    publishing.drain(pusher)
    assert "archived" == publishing.states()["r"]
    assert 1 == len(hub.repo(REPO).commits)


def test_an_outbox_that_was_lost_is_written_again_from_the_output_folder(publishing, hub):
    for number in range(3):
        publishing.close(f"r{number}")
    publishing.publish("short", status="incomplete")
    publishing.drain(publishing.pusher())
    head = hub.repo(REPO).head
    (publishing.output / "other_results.json").write_text("{}")
    (publishing.output / os.fsdecode(b"caf\xe9_results.json")).write_text("{}")
    (publishing.output / "partial" / "m").mkdir(parents=True)
    (publishing.output / "partial" / "m" / "x_results.json").write_bytes(
        next(publishing.output.rglob("*-*_results.json")).read_bytes()
    )
    publishing.outbox = Outbox(None)
    pusher = publishing.pusher()
    pusher.rebuild()
    assert {"r0": "queued", "r1": "queued", "r2": "queued"} == publishing.states()
    publishing.drain(pusher)
    assert head == hub.repo(REPO).head
    pusher.rebuild()
    assert {"archived"} == set(publishing.states().values())
    publishing.pusher(settings=publishing.settings(runs="all")).rebuild()
    assert "queued" == publishing.states()["short"]


def test_without_an_output_folder_nothing_counts_as_looked_through(publishing, hub):
    publishing.close("r")
    publishing.outbox = Outbox(None)
    publishing.output.rename(publishing.folder / "away")
    publishing.pusher().rebuild()
    assert {} == publishing.states()
    (publishing.folder / "away").rename(publishing.output)
    publishing.pusher().rebuild()
    assert {"r": "queued"} == publishing.states()


def test_a_staging_folder_that_vanishes_does_not_end_the_looking_through(publishing, monkeypatch):
    publishing.close("r")
    publishing.outbox = Outbox(None)
    staging = publishing.output / ".evalsink" / "worker" / "run"
    staging.mkdir(parents=True)
    scandir = os.scandir

    def entering(path):
        if str(path) == str(staging) and staging.exists():
            staging.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", entering)
    publishing.pusher().rebuild()
    assert not staging.exists(), "nobody entered it"
    assert {"r": "queued"} == publishing.states()


def test_another_repository_gets_everything_too(publishing, hub):
    publishing.close("r")
    for repo in (REPO, "org/second"):
        pusher = publishing.pusher(settings=publishing.settings(repo=repo))
        pusher.rebuild()
        publishing.drain(pusher)
        check(publishing, hub, repo)


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", "x/../../secret", "other.jsonl", ".."])
def test_a_results_json_cannot_have_other_files_sent(publishing, hub, name):
    results = publishing.close("r", model="")
    (publishing.folder / "secret").write_text("s3cret")
    (publishing.output / "other.jsonl").write_text("s3cret")
    path = publishing.output / results
    document = json.loads(path.read_bytes())
    document["evalsink"]["tasks"]["t"] |= {"file": name, "bytes": 6}
    path.write_text(json.dumps(document))
    publishing.enter(results)
    publishing.pusher().turn()
    [parked] = publishing.outbox.waiting()
    assert "names" in parked.reason
    assert [] == hub.requests


def test_a_link_that_leads_elsewhere_is_not_followed(publishing, hub):
    publishing.close("r")
    samples = next(publishing.output.rglob("*_samples_t.jsonl"))
    secret = publishing.folder / "secret"
    secret.write_bytes(samples.read_bytes())
    samples.unlink()
    samples.symlink_to(secret)
    publishing.pusher().turn()
    [parked] = publishing.outbox.waiting()
    assert "is a link to what lies elsewhere" in parked.reason
    assert [] == hub.requests


def test_a_run_that_was_published_before_there_were_metrics_gets_them(publishing, hub):
    results = publishing.close("r")
    path = next(publishing.output.rglob("*_metrics.jsonl"))
    before = publishing.tree()
    path.unlink()
    pusher = publishing.pusher(packing=lambda errand: pack_published(publishing.output, errand))
    publishing.drain(pusher)
    assert before.items() <= hub.repo(REPO).files().items()
    assert results in hub.repo(REPO).files()


@pytest.mark.parametrize(
    ("template", "folder", "name"),
    [
        ("o/e", "org__m", "o/e"),
        ("o/e-{model}", "org__m", "o/e-org__m"),
        ("o/{model}", "org__a b", f"o/org__a-b-{hash8('org__a b')}"),
        ("o/{model}", "..a..", f"o/a-{hash8('..a..')}"),
        ("o/{model}.x", "a", "o/a.x"),
        ("o/e-{model}", "", f"o/e-{hash8('')}"),
        ("o/{model}-e", "m" * 200, f"o/{'m' * 85}-{hash8('m' * 200)}-e"),
        ("o/{model}", "模型", f"o/{hash8('模型')}"),
    ],
)
def test_every_model_has_a_repository_whose_name_the_hub_takes(template, folder, name):
    found, _ = repositories(folder, HubSettings(repo=template))
    assert name == found
    validate_repo_id(found)


@pytest.mark.parametrize(
    "name",
    [
        "evals",
        "o/",
        "/e",
        "o/e/f",
        "{model}/e",
        "o/{model}-{model}",
        "o/-e",
        "o/e--f",
        "o/e.git",
        "o/é",
        "o/" + "x" * 97,
    ],
)
def test_a_name_that_no_repository_can_have_is_refused_at_once(name):
    with pytest.raises(ValueError, match="is not ORG/NAME"):
        HubSettings(repo=name)


def test_a_card_that_somebody_broke_is_made_again_from_the_files(publishing, hub):
    publishing.close("r1")
    publishing.drain(publishing.pusher())
    good = hub.repo(REPO).files()[CARD]
    publishing.publish("r2")
    for content in (b"no card", b"---\nconfigs: 7\n---\n", b"\xff\xfe", b"---\n: [\n---\n"):
        hub.commit(REPO, {CARD: content})
        publishing.enter(next(iter(publishing.outbox.all())).results)
        publishing.drain(publishing.pusher())
        assert good == hub.repo(REPO).files()[CARD]


def test_what_others_put_into_the_repository_does_not_break_what_is_ours(publishing, hub):
    publishing.close("r1")
    publishing.drain(publishing.pusher())
    row = next(iter(publishing.output.rglob("*_metrics.jsonl"))).read_bytes()
    hub.commit(
        REPO,
        {
            "org__x/20260101_000000-00000001_metrics.jsonl": row.replace(b'"run_id"', b'"more":1,"run_id"'),
            "org__x/20260101_000000-00000002_metrics.jsonl": row.replace(
                b'"run_id"', b'"run_id":"x","run_id"'
            ),
            "org__x/20260101_000000-00000003_metrics.jsonl": b"\xff",
            "org__x/20260101_000000-00000004_samples_t.jsonl": b"no json\n",
        },
    )
    publishing.close("r2")
    publishing.drain(publishing.pusher())
    named = splits(hub)
    assert not [path for path in named if "org__x" in path]
    card = hub.repo(REPO).files()[CARD].decode()
    assert 4 == card.split("## Without a configuration")[1].count("| org__x/")


def test_columns_that_nobody_here_knows_are_read_once_however_often_the_commit_is_tried(
    publishing, hub, tmp_path
):
    for number in range(6):
        publishing.close(f"r{number}")
    publishing.drain(publishing.pusher())
    hub.commit(REPO, {CARD: b"# mine"})
    other = Publishing(tmp_path / "other", hub.endpoint) if (tmp_path / "other").mkdir() is None else None
    other.close("new")
    hub.faults.add("commit", status(412, "A commit has happened since"), times=5)
    before = len(hub.seen("resolve"))
    other.drain(other.pusher())
    # A HEAD and a GET for each metrics and samples file and each card.
    assert len(hub.seen("resolve")) - before <= 2 * (6 + 6) + 2 * 8
    assert {path for path in hub.repo(REPO).files() if path.endswith(".jsonl")} == splits(hub)


def test_the_card_is_the_same_bytes_whoever_pushed_and_in_what_order(publishing, hub, tmp_path):
    names = ["r1", "r2", "r3", "r4"]
    for name in names:
        publishing.close(name, tasks={"t": [{"doc_id": 0, "acc": 1.0, name: [name]}]})
    publishing.drain(publishing.pusher())
    with HubServer(xet=False) as second:
        for name in reversed(names):
            folder = tmp_path / f"alone-{name}"
            folder.mkdir()
            alone = Publishing(folder, second.endpoint)
            alone.close(name, tasks={"t": [{"doc_id": 0, "acc": 1.0, name: [name]}]})
            alone.drain(alone.pusher())
        assert hub.repo(REPO).files() == second.repo(REPO).files()
        assert 4 == len(second.repo(REPO).commits)


def test_four_who_push_at_the_same_time_lose_neither_rows_nor_entries_of_the_card(tmp_path, hub):
    everyone = []
    for number in range(4):
        folder = tmp_path / f"w{number}"
        folder.mkdir()
        everyone.append(Publishing(folder, hub.endpoint))
    for publishing in everyone:
        for run in range(3):
            publishing.close(f"{publishing.folder.name}-{run}", tasks={"t": [{"doc_id": 0, run: run}]})
    start = threading.Barrier(4)
    failed = []

    def work(publishing):
        try:
            start.wait()
            publishing.drain(publishing.pusher(settings=publishing.settings(files_per_commit_max=1)))
        except BaseException as error:  # noqa: BLE001 - for the main thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed
    there = hub.repo(REPO).files()
    for publishing in everyone:
        assert publishing.tree().items() <= there.items()
    assert {path for path in there if path.endswith(".jsonl")} == splits(hub)
    added = [path for commit in hub.repo(REPO).commits for path in commit.added if path != CARD]
    assert len(added) == len(set(added))
    statuses = [request.status for request in hub.seen("commit")]
    assert 412 in statuses or 409 in statuses


EFFECTS = [
    (status(500), "before"),
    (status(500), "after"),
    (status(503), "before"),
    (CUT, "before"),
    (CUT, "after"),
    (CutBody(400), "before"),
    (status(409, "Another commit operation is in progress"), "before"),
    (status(412, "A commit has happened since"), "before"),
    (rate_limited(55), "before"),
    (retry_after(20), "before"),
    (commit_limit(43), "before"),
    (proxy_page(502), "before"),
    (proxy_page(200), "after"),
]
STEPS = ["commit", "commit", "preupload", "lfs-batch", "lfs-put", "tree", "info", "paths-info", "validate"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_of_faults_and_kills_ends_with_every_run_there_once(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    with HubServer(xet=False, lfs_above_bytes=8000) as hub:
        publishing = Publishing(folder, hub.endpoint)
        pusher = publishing.pusher(settings=publishing.settings(files_per_commit_max=10))
        for number in range(data.draw(st.integers(1, 6), label="runs")):
            publishing.close(f"r{number}", tasks={"t": [{"doc_id": n, "acc": 1.0} for n in range(500)]})
            for _ in range(data.draw(st.integers(0, 2), label="faults")):
                effect, at = data.draw(st.sampled_from(EFFECTS), label="effect")
                hub.faults.add(data.draw(st.sampled_from(STEPS), label="step"), effect, at=at)
            publishing.clock.now += pusher.turn() or 0.0
            if data.draw(st.booleans(), label="killed"):
                publishing.outbox.begin(publishing.outbox.due(publishing.clock.now, limit=2))
                publishing.outbox = Outbox(publishing.state)
                publishing.outbox.recover()
                pusher = publishing.pusher()
        publishing.drain(pusher)
        hub.faults.clear()
        check(publishing, hub)
        assert {"archived"} == set(publishing.states().values())
        assert [] == hub.unknown


WANTED = EvalResult(
    task="t", metric="acc", dataset="bench/Marks", task_id="marks", models=("org/*",), scale=100.0
)


def test_scores_are_proposed_only_where_that_was_asked_for(publishing, hub):
    for model in ("org/m", "other/m", "no-repository"):
        hub.create(model, "model") if "/" in model else None
        publishing.close(f"of {model}", model=model)
    publishing.publish("short", status="incomplete")
    publishing.enter(publishing.publish("short", status="incomplete"), status="incomplete")
    publishing.drain(publishing.pusher())
    assert [] == hub.repo("org/m", "model").discussions
    for errand in publishing.outbox.all():
        publishing.enter(errand.results, status=errand.status)
    chosen = publishing.settings(eval_results=(WANTED,))
    publishing.drain(publishing.pusher(settings=chosen))
    [request] = hub.repo("org/m", "model").discussions
    assert [] == hub.repo("other/m", "model").discussions
    assert ".eval_results/Marks.yaml" not in hub.repo("org/m", "model").files()  # never on main
    [entry] = yaml.safe_load(hub.repo("org/m", "model").files(request.reference)[".eval_results/Marks.yaml"])
    assert {"id": "bench/Marks", "task_id": "marks"} == entry["dataset"]
    assert (50.0, "2026-01-01") == (entry["value"], str(entry["date"]))
    results = next(one for one in publishing.outbox.all() if one.run_id == "of org/m").results
    assert f"{hub.endpoint}/datasets/{REPO}/blob/main/{results}" == entry["source"]["url"]


def test_the_scores_of_a_part_of_a_task_are_not_proposed(publishing, hub):
    hub.create("org/m", "model")
    results = publishing.close("r")
    path = publishing.output / results
    document = json.loads(path.read_bytes()) | {"n-samples": {"t": {"original": 14042, "effective": 2}}}
    document["evalsink"] = document.pop("evalsink")
    path.write_text(json.dumps(document))
    publishing.enter(results)
    publishing.drain(publishing.pusher(settings=publishing.settings(eval_results=(WANTED,))))
    assert [] == hub.repo("org/m", "model").discussions


def test_scores_are_proposed_once_and_leave_what_others_say(publishing, hub):
    theirs = [
        {"dataset": {"id": "bench/Marks", "task_id": "other"}, "value": 1.0},
        {"dataset": {"id": "bench/Marks", "task_id": "marks"}, "value": 2.0},
    ]
    path = ".eval_results/Marks.yaml"
    hub.create("org/m", "model", files={path: yaml.safe_dump(theirs).encode()})
    results = publishing.close("r")
    chosen = publishing.settings(eval_results=(WANTED,))
    hub.faults.add("commit", CUT, at="after", when=lambda request: "models" in request.path)
    publishing.drain(publishing.pusher(settings=chosen))
    publishing.enter(results)
    publishing.drain(publishing.pusher(settings=chosen))
    [request] = hub.repo("org/m", "model").discussions
    values = {
        one["dataset"]["task_id"]: one["value"]
        for one in yaml.safe_load(hub.repo("org/m", "model").files(request.reference)[path])
    }
    assert {"other": 1.0, "marks": 50.0} == values


def test_a_model_whose_repository_is_not_there_parks_the_proposal_and_not_the_run(publishing, hub):
    publishing.close("r")
    publishing.pusher(settings=publishing.settings(eval_results=(WANTED,))).turn()
    pusher = publishing.pusher(settings=publishing.settings(eval_results=(WANTED,)))
    pusher.turn()
    assert {"archive": "archived", "proposal": "parked"} == {
        errand.kind: errand.state for errand in publishing.outbox.all()
    }


def test_the_token_is_in_no_file_and_no_line(publishing, hub, caplog):
    secret = "hf_verysecretverysecret"
    hub.tokens = {secret, GOOD_TOKEN}
    publishing.token_file.unlink()
    publishing.token_file = Path(str(publishing.folder) + "-token")
    publishing.token_file.write_text(secret)
    publishing.close("r")
    for effect in (status(400, f"token {secret} is odd"), status(500, secret), status(403, secret), CUT):
        hub.faults.add("commit", effect)
    pusher = publishing.pusher()
    for _ in range(5):
        publishing.clock.now += pusher.turn() or 0.0
    assert {request.token for request in hub.requests} == {secret}
    for path in publishing.folder.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    assert secret not in caplog.text
    assert secret not in json.dumps([record.__dict__.get("fields", {}) for record in caplog.records])
    assert all(secret not in str(content) for content in hub.repo(REPO).files().values())
