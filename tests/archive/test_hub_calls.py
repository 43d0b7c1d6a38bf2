"""The Hub as the archive sees it: each failure is one of five answers, and no text holds the token."""

import hashlib
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from consumer.archive.answers import clean
from consumer.archive.faults import Away, Busy, HubFault, Refused, Stale, Throttled
from consumer.archive.hub import Hub, RemoteFile, blob_oid, is_same
from consumer.settings import Hub as HubSettings
from tests.hub_server import (
    CUT,
    GOOD_TOKEN,
    CutBody,
    Gate,
    Hang,
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

REPO = "org/evals"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{GOOD_TOKEN}\n")
    return path


@pytest.fixture
def client(hub, token_file):
    def make(**more):
        return Hub(
            HubSettings(
                **{
                    "repo": REPO,
                    "endpoint": hub.endpoint,
                    "token_file": str(token_file),
                    "timeout_s": 5.0,
                    **more,
                }
            )
        )

    return make


def commit(client, files, parent=None):
    head, ignored = client.commit(REPO, files, parent=parent, title="t")
    assert [] == ignored
    return head


def test_a_repository_is_made_private_and_once(hub, client):
    one = client()
    one.prepare(REPO)
    one.prepare(REPO)
    client().prepare(REPO)
    assert hub.repo(REPO).private
    assert 1 == len(hub.seen("create"))


def test_a_public_one_is_made_only_if_that_was_said_and_an_existing_one_used_only_then(hub, client):
    client(public=True).prepare(REPO)
    assert not hub.repo(REPO).private
    client(public=True).prepare(REPO)
    with pytest.raises(Refused, match="is public, and --hub-public") as refusal:
        client().prepare(REPO)
    assert refusal.value.whole_repo


def test_gating_and_branch_are_as_set(hub, client):
    one = client(gated="manual", branch="archive")
    one.prepare(REPO)
    assert "manual" == hub.repo(REPO).gated
    commit(one, {"a/b.json": b"{}"}, one.snapshot(REPO).head)
    assert b"{}" == hub.repo(REPO).files("archive")["a/b.json"]
    assert "a/b.json" not in hub.repo(REPO).files()


def test_a_snapshot_has_every_file_with_what_tells_its_bytes(hub, client, tmp_path):
    hub.page_size = 3
    hub.lfs_above_bytes = 1000
    one = client()
    one.prepare(REPO)
    files = {f"m{number % 3}/f{number}.json": b"%d" % number for number in range(10)}
    large = tmp_path / "large"
    large.write_bytes(b"x" * 5000)
    head = commit(one, {**files, "m/large.jsonl": large})
    snapshot = one.snapshot(REPO)
    assert head == snapshot.head
    assert {*files, "m/large.jsonl"} <= set(snapshot.files)
    assert all(is_same(content, snapshot.files[path]) for path, content in files.items())
    assert is_same(large, snapshot.files["m/large.jsonl"])
    assert hashlib.sha256(large.read_bytes()).hexdigest() == snapshot.files["m/large.jsonl"].sha256
    assert b"7" == one.read(REPO, "m1/f7.json", snapshot)
    with one.fetch(REPO, "m/large.jsonl", snapshot) as fetched:
        assert large.read_bytes() == fetched.read_bytes()
    assert not fetched.exists()


@pytest.mark.parametrize("large", [False, True])
def test_the_same_size_is_not_the_same_file(large, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    same = RemoteFile(5, blob_oid(b"12345"), digest if large else None)
    other = RemoteFile(5, blob_oid(b"12346"), hashlib.sha256(b"12346").hexdigest() if large else None)
    longer = RemoteFile(6, same.oid, same.sha256)
    for source in (path, b"12345"):
        assert (True, False, False) == (
            is_same(source, same),
            is_same(source, other),
            is_same(source, longer),
        )
        assert is_same(source, same, digest)


def test_committing_the_same_again_makes_no_commit(hub, client):
    one = client()
    one.prepare(REPO)
    head = commit(one, {"a.json": b"1"})
    assert head == commit(one, {"a.json": b"1"})
    assert 1 == len(hub.repo(REPO).commits)


def test_what_the_repository_ignores_is_told_and_no_commit_is_made_of_the_rest(hub, client):
    hub.create(REPO, private=True, files={".gitignore": b"*.jsonl\n"})
    one = client()
    one.prepare(REPO)
    files = {"m/a.jsonl": b"1\n", "m/a.json": b"{}"}
    assert (None, ["m/a.jsonl"]) == one.commit(REPO, files, parent=None, title="t")
    assert [] == hub.repo(REPO).commits


def test_what_is_not_in_a_commit_as_it_is_here_is_named(hub, client):
    one = client()
    one.prepare(REPO)
    head = commit(one, {"a": b"1", "b": b"2"})
    assert [] == one.missing(REPO, {"a": b"1", "b": b"2"}, head, {})
    assert ["b", "c"] == one.missing(REPO, {"a": b"1", "b": b"3", "c": b"4"}, head, {})


def test_gating_of_a_repository_that_is_there_is_its_owners(hub, client):
    hub.create(REPO, private=True, gated="manual")
    client(gated="auto").prepare(REPO)
    assert "manual" == hub.repo(REPO).gated


def test_a_conflict_while_a_repository_is_made_is_waited_out_and_not_asked_for_ever(hub, client):
    text = "Cannot create repo: another conflicting operation is in progress"
    hub.faults.add("create", status(409, text), times=None)
    with pytest.raises(Busy, match="conflicting operation"):
        client().prepare(REPO)
    assert 1 == len(hub.seen("create"))


ANSWERS = {
    "409": (status(409, "Another commit operation is in progress"), Busy),
    "412": (status(412, "A commit has happened since. Please refresh and try again."), Stale),
    "500": (status(500), Away),
    "503": (status(503), Away),
    "504": (status(504), Away),
    "408": (status(408), Away),
    "a page of a proxy": (proxy_page(502), Away),
    "a page where JSON should be": (proxy_page(200), Away),
    "a cut connection": (CUT, Away),
    "a connection cut in the body": (CutBody(100), Away),
    "400": (status(400, "bad card"), Refused),
    "403": (status(403, "no right"), Refused),
    "413": (status(413, "too large"), Refused),
    "quota": (rate_limited(55), Throttled),
    "429 by seconds": (retry_after(17), Throttled),
    "429 of commits": (commit_limit(43), Throttled),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_commit_says_is_one_of_five_answers(hub, client, name):
    effect, answer = ANSWERS[name]
    one = client()
    one.prepare(REPO)
    hub.faults.add("commit", effect)
    with pytest.raises(HubFault) as fault:
        commit(one, {"a.json": b"1" * 1000})
    assert answer is type(fault.value)
    assert GOOD_TOKEN not in str(fault.value)
    commit(one, {"a.json": b"1" * 1000})
    assert b"1" * 1000 == hub.repo(REPO).files()["a.json"]


@pytest.mark.parametrize("step", ["preupload", "commit", "info", "tree"])
@pytest.mark.parametrize(
    ("effect", "seconds"),
    [
        (rate_limited(55), 56),
        (retry_after(17), 18),
        (commit_limit(43), 43 * 60 + 1),
        (Respond(json_answer({"error": "slow down"}, 429)), 60),
        (Respond(json_answer({"error": "x"}, 429, RateLimit='"api";r=3;t=9', Retry_After="30")), 31),
    ],
)
def test_a_429_says_how_long_to_wait_and_the_client_does_not_sleep_by_itself(
    hub, client, step, effect, seconds
):
    one = client()
    one.prepare(REPO)
    hub.faults.add(step, effect)
    with pytest.raises(Throttled) as fault:
        one.snapshot(REPO) if step in {"info", "tree"} else commit(one, {"a.json": b"1"})
    assert seconds == fault.value.after_s


def test_a_429_with_a_date_is_waited_for(hub, client):
    one = client()
    one.prepare(REPO)
    until = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    hub.faults.add("commit", Respond(json_answer({"error": "x"}, 429, Retry_After=until)))
    with pytest.raises(Throttled) as fault:
        commit(one, {"a.json": b"1"})
    assert 590 < fault.value.after_s <= 602


@pytest.mark.parametrize("step", ["info", "create", "preupload", "commit"])
def test_a_hub_that_says_nothing_is_away_after_the_time_out(hub, client, step, monkeypatch):
    # The client tries some steps again by itself, and sleeps for seconds in between.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    one = client(timeout_s=0.2)
    if step not in {"info", "create"}:
        one.prepare(REPO)
    hub.faults.add(step, Hang(Gate()), times=None)
    with pytest.raises(Away, match=r"(?i)timeout|timed out"):
        one.prepare(REPO) if step in {"info", "create"} else commit(one, {"a.json": b"1"})
    hub.faults.release()


def test_a_hub_that_is_down_is_away(hub, client):
    one = client()
    hub.down()
    with pytest.raises(Away):
        one.prepare(REPO)
    hub.up()
    one.prepare(REPO)


def test_a_host_that_nobody_knows_is_away(client):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Away):
            client(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}").prepare(REPO)


def test_what_the_storage_refuses_is_not_taken_for_a_word_of_the_hub(hub, client, tmp_path):
    hub.lfs_above_bytes = 1000
    one = client()
    one.prepare(REPO)
    large = tmp_path / "large"
    large.write_bytes(b"x" * 100_000)
    hub.faults.add("lfs-put", status(403, "expired"))
    with pytest.raises(Away, match="expired"):
        commit(one, {"large.jsonl": large})
    hub.faults.add("lfs-put", CutBody(5000))  # tried again by the client itself
    head = commit(one, {"large.jsonl": large})
    assert [] == one.missing(REPO, {"large.jsonl": large}, head, {})
    assert large.read_bytes() == hub.repo(REPO).files()["large.jsonl"]


def test_the_token_is_read_anew_and_wins_over_the_environment(hub, client, token_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    hub.tokens = {"hf_second"}
    one = client()
    with pytest.raises(Refused) as fault:
        one.prepare(REPO)
    assert fault.value.whole_repo
    assert "hf_" not in str(fault.value)
    token_file.write_text("hf_second")
    one.prepare(REPO)
    assert "hf_of_the_environment" not in {request.token for request in hub.requests}


def test_without_a_token_file_the_environment_counts_and_without_either_nobody_is_asked(
    hub, client, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    client(token_file="").prepare(REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Refused) as fault:
        client(token_file="").prepare("org/other")
    assert fault.value.whole_repo


def test_a_token_file_that_is_not_there_may_come(client, token_file):
    token_file.unlink()
    with pytest.raises(Away, match=r"hub\.token_file .*token cannot be read"):
        client().prepare(REPO)


def test_a_token_with_too_few_rights_and_a_repository_that_went_are_for_somebody_to_mend(
    hub, client, token_file
):
    one = client()
    one.prepare(REPO)
    hub.read_only_tokens = {"hf_reader"}
    token_file.write_text("hf_reader")
    with pytest.raises(Refused) as fault:
        commit(one, {"a.json": b"1"})
    assert fault.value.whole_repo
    token_file.write_text(GOOD_TOKEN)
    hub.delete(REPO)
    with pytest.raises(Refused) as fault:
        one.snapshot(REPO)
    assert fault.value.whole_repo
    one.prepare(REPO)  # looked for again after that, and made again
    commit(one, {"a.json": b"1"})


def test_a_text_of_the_hub_that_repeats_the_token_is_masked(hub, client):
    one = client()
    one.prepare(REPO)
    hub.faults.add("commit", status(400, f"do not send {GOOD_TOKEN} or hf_abcdefghijkl to me"))
    with pytest.raises(Refused) as fault:
        commit(one, {"a.json": b"1"})
    assert "hf_" not in str(fault.value)
    assert fault.value.__cause__ is None
    assert "do not send *** or *** to me" in str(fault.value)


@pytest.mark.parametrize("content", ["s3cretAAAA\ns3cretBBBB", "s3cret\0AAAA", "s3cret AAAA", "s3crét"])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(hub, client, token_file, content):
    token_file.write_text(content)
    with pytest.raises(Refused, match=r"hub\.token_file .*token is none: it must be one word") as fault:
        client().prepare(REPO)
    assert "s3cr" not in str(fault.value)
    assert [] == hub.requests


def test_addresses_that_are_signed_are_cut_before_their_signature():
    text = "PUT https://s3.example/a/b?X-Amz-Credential=AKIA&X-Amz-Signature=dead 'https://x/?sig=1' Bearer abc.def"
    assert "PUT https://s3.example/a/b 'https://x/' Bearer ***" == clean(text, None)


def test_a_listing_is_read_once_for_each_head(hub, client):
    one = client()
    one.prepare(REPO)
    commit(one, {"a": b"1"})
    assert one.snapshot(REPO).files == one.snapshot(REPO).files
    assert 1 == len(hub.seen("tree"))
    hub.commit(REPO, {"b": b"2"})
    assert {"a", "b"} <= set(one.snapshot(REPO).files)


def test_an_answer_that_never_came_to_a_commit_is_told_from_one_before_it(hub, client):
    one = client()
    one.prepare(REPO)
    for step, was_sent in (("commit", True), ("info", False)):
        hub.faults.add(step, status(504))
        with pytest.raises(Away) as fault:
            one.snapshot(REPO) if step == "info" else commit(one, {"a": b"1"})
        assert was_sent == fault.value.was_sent
