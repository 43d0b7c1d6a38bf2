"""The Hub for tests behaves as the real one, as far as the real clients can tell: they alone drive it here."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, parse_ratelimit_headers

from tests.hub_server import (
    ANY,
    COMMIT_LIMIT,
    CUT,
    GOOD_TOKEN,
    CutBody,
    Gate,
    Hang,
    HubServer,
    proxy_page,
    rate_limited,
    retry_after,
    status,
)
from tests.hub_server.card import mistakes
from tests.hub_server.repository import BUSY, STALE
from tests.hub_server.xet_formats import FormatError, read_shard, read_xorb

# huggingface_hub hands LFS uploads to httpx2 in a way that httpx2 wants to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

ROOT = Path(__file__).parents[2]
REPO = "org/name"
CARD = textwrap.dedent(
    """\
    ---
    configs:
    - config_name: model__task
      data_files:
      - split: "2026_11_23T02_36_55.201276"
        path: model/samples.jsonl
      - split: latest
        path: [model/samples.jsonl]
    ---
    # Results
    """
).encode()


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server
        assert [] == server.unknown


@pytest.fixture
def repository(hub):
    return hub.create(REPO)


def client(hub, token=GOOD_TOKEN):
    return HfApi(endpoint=hub.endpoint, token=token)


@pytest.fixture
def api(hub):
    return client(hub)


def adding(path, content):
    """A file object goes by LFS where it is large, also where hf_xet is installed."""
    return CommitOperationAdd(path, content)


def push(api, files, *, repo=REPO, **options):
    """One commit of these files."""
    operations = [adding(path, content) for path, content in files.items()]
    return api.create_commit(
        repo, operations, commit_message="add", **({"repo_type": "dataset", "num_threads": 1} | options)
    )


def run(hub, source, tmp_path, *arguments, **environment):
    """Python of its own, with the environment that huggingface_hub reads while it is imported."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": GOOD_TOKEN,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **environment,
        },
    )


def finished(process):
    out, err = process.communicate(timeout=60)
    assert 0 == process.returncode, err
    return out


# -- repositories and commits


def test_a_repository_is_created_once_and_found_again_where_that_is_allowed(hub, api):
    url = api.create_repo(REPO, repo_type="dataset", private=True)
    assert (f"{hub.endpoint}/datasets/{REPO}", REPO) == (url, url.repo_id)
    assert url == api.create_repo(REPO, repo_type="dataset", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="already created") as caught:
        api.create_repo(REPO, repo_type="dataset")
    assert 409 == caught.value.response.status_code
    assert ([REPO], True, []) == (hub.repos, hub.repo(REPO).private, hub.repo(REPO).commits)
    assert "model" == api.create_repo(REPO).repo_type
    assert hub.repo(REPO, "model") is not hub.repo(REPO)


def test_a_commit_carries_what_was_said_and_the_bytes(hub, repository, api):
    first = repository.head
    made = push(api, {"a/b.jsonl": b"{}\n", "empty": b""}, commit_description="because")
    (commit,) = repository.commits
    assert made.oid == commit.oid == repository.head == api.dataset_info(REPO).sha
    assert ("add", "because", GOOD_TOKEN, "main", first) == (
        commit.title,
        commit.description,
        commit.author,
        commit.branch,
        commit.parent,
    )
    assert ("a/b.jsonl", "empty") == commit.added == commit.changed
    assert {"a/b.jsonl": b"{}\n", "empty": b""} == repository.files() == repository.files(made.oid)
    assert {} == repository.files(first)
    assert GOOD_TOKEN not in repr([commit, hub.requests, repository.discussions])
    assert all(request.authorized for request in hub.requests)


def test_the_client_leaves_out_what_has_not_changed(hub, repository, api):
    push(api, {"a": b"1", "b": b"2"})
    again = push(api, {"a": b"1", "b": b"2"})
    assert (repository.head, 1) == (again.oid, len(hub.seen("commit")))
    push(api, {"a": b"1", "b": b"3"})
    assert ("b",) == repository.commits[-1].added
    assert [] == repository.empty_commits


def test_a_commit_that_changes_nothing_is_there_for_a_test_to_find(hub, repository, api):
    push(api, {"a": b"1"})
    lines = [{"key": "header", "value": {"summary": "again"}}]
    lines += [{"key": "file", "value": {"path": "a", "content": "MQ==", "encoding": "base64"}}]
    body = "\n".join(map(json.dumps, lines))
    headers = {"Authorization": f"Bearer {GOOD_TOKEN}"}
    answer = get_session().post(
        f"{hub.endpoint}/api/datasets/{REPO}/commit/main", content=body, headers=headers
    )
    assert 200 == answer.status_code
    assert ["again"] == [commit.title for commit in repository.empty_commits]
    assert [("a",), ()] == [commit.changed for commit in repository.commits]


def test_files_and_folders_are_deleted_and_missing_ones_refuse_the_whole_commit(repository, api):
    push(api, {"a/x": b"1", "a/y": b"2", "b": b"3", "c": b"4"})
    deletions = [CommitOperationDelete("a/"), CommitOperationDelete("b")]
    api.create_commit(REPO, deletions, commit_message="tidy", repo_type="dataset")
    assert {"c": b"4"} == repository.files()
    assert {"a/x", "a/y", "b"} == set(repository.commits[-1].deleted)
    for missing in ("nothing", "nothing/"):
        gone = [CommitOperationDelete("c"), CommitOperationDelete(missing)]
        with pytest.raises(RemoteEntryNotFoundError, match="with this name doesn't exist"):
            api.create_commit(REPO, gone, commit_message="no", repo_type="dataset")
    assert {"c": b"4"} == repository.files()


def test_a_stale_parent_is_412_and_the_right_one_is_taken(hub, repository, api):
    seen = repository.head
    hub.commit(REPO, {"theirs": b"1"})
    with pytest.raises(HfHubHTTPError, match=STALE) as caught:
        push(api, {"ours": b"2"}, parent_commit=seen)
    assert 412 == caught.value.response.status_code
    push(api, {"ours": b"2"}, parent_commit=repository.head)
    assert {"theirs", "ours"} == set(repository.files())


def test_while_one_commit_goes_on_another_is_409(hub, repository, api):
    with ThreadPoolExecutor() as pool, Gate() as gate:
        hub.on("commit", gate, at="during")
        first = pool.submit(push, api, {"a": b"1"})
        gate.wait_reached()
        with pytest.raises(HfHubHTTPError, match=BUSY) as caught:
            push(api, {"b": b"2"})
        head_before = repository.history()[-1].oid
        assert (409, head_before) == (caught.value.response.status_code, repository.head)
        gate.open()
        assert first.result(timeout=30).oid == repository.head
    assert {"a": b"1"} == repository.files()


def test_a_card_that_the_viewer_can_read_is_taken_and_another_refuses_the_commit(repository, api):
    push(api, {"README.md": CARD})
    with pytest.raises(ValueError, match=r"configs\[0\].data_files\[0\].split"):
        push(api, {"README.md": CARD.replace(b'"2026_11_23T02_36_55.201276"', b"a-b")})
    assert {"README.md": CARD} == repository.files()


@pytest.mark.parametrize(
    ("metadata", "mistake"),
    [
        ("configs: {}", '"configs" must be an array'),
        ("configs: [{data_files: []}]", '"configs[0].config_name" is required'),
        ("configs: [{config_name: a}, {config_name: a}]", "duplicate value: a"),
        ("configs: [{config_name: a/b}]", "not allowed"),
        ("configs: [{config_name: a, data_files: {x: y}}]", "data_files"),
        ("configs: [{config_name: a, data_files: [{split: 2026_11_23, path: x}]}]", "split"),
        ("configs: [{config_name: a, data_files: [{split: x, path: x}, {split: x, path: y}]}]", "duplicate"),
        ("configs: [{config_name: a, data_files: [{split: x, path: []}]}]", "path"),
        ("configs: [{config_name: a, default: true}, {config_name: b, default: true}]", "default"),
        ("dataset_info: [{features: []}]", "dataset_info[0].config_name"),
        ("a: 1\na: 2", "duplicated mapping key: a"),
        ("a: [", "YAML"),
        ("- a", "not a mapping"),
    ],
)
def test_what_the_hub_refuses_in_a_card(metadata, mistake):
    (found,) = mistakes(f"---\n{metadata}\n---\n")
    assert mistake in found


# -- large files


def test_a_large_file_goes_by_lfs_and_is_sent_once(hub, repository, api):
    hub.lfs_above_bytes = 1000
    content = os.urandom(5000)
    push(api, {"a.jsonl": io.BytesIO(content)})
    push(api, {"b.jsonl": io.BytesIO(content), "a.jsonl": io.BytesIO(content)})
    assert {"a.jsonl": content, "b.jsonl": content} == repository.files()
    assert [1, 1] == [len(hub.seen(step)) for step in ("lfs-put", "lfs-verify")]
    assert not hub.seen("lfs-put")[0].authorized
    (info,) = api.get_paths_info(REPO, "a.jsonl", repo_type="dataset")
    assert (5000, repository.commit().files["a.jsonl"].sha256) == (info.lfs.size, info.lfs.sha256)


def test_an_lfs_object_beyond_a_size_is_sent_in_parts(hub, repository, api):
    hub.lfs_above_bytes, hub.multipart_above_bytes, hub.part_bytes = 1000, 4000, 1500
    content = os.urandom(5000)
    push(api, {"a.jsonl": io.BytesIO(content)})
    assert {"a.jsonl": content} == repository.files()
    assert [1500, 1500, 1500, 500] == [part.body_bytes for part in hub.seen("lfs-put")]
    assert 1 == len(hub.seen("lfs-complete"))


@pytest.mark.parametrize("step", ["lfs-put", "lfs-complete"])
def test_an_lfs_upload_that_arrives_damaged_is_refused(hub, repository, api, step):
    hub.lfs_above_bytes, hub.multipart_above_bytes, hub.part_bytes = 1000, 6000, 1500

    def damage(request):
        if step == "lfs-put":
            request.body = request.body[:-1] + b"!"
        else:
            request.body = request.body.replace(b"00002-", b"00003-")

    hub.on(step, damage)
    size = 5000 if step == "lfs-put" else 7000
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        push(api, {"a.jsonl": io.BytesIO(b"x" * size)})
    assert isinstance(caught.value.__cause__, BadRequestError)
    assert ({}, []) == (repository.lfs, repository.commits)


def test_git_attributes_and_binary_content_make_large_files_too(hub, repository, api):
    files = {"x.parquet": b"PAR1", "deep/y.bin": b"text", "z": b"a\0b", "plain.json": b"{}"}
    push(api, {path: io.BytesIO(content) for path, content in files.items()})
    assert {"x.parquet", "deep/y.bin", "z"} == {
        path for path, file in repository.commit().files.items() if file.lfs
    }
    assert files == repository.files()


def test_a_pointer_to_what_was_never_uploaded_refuses_the_commit(hub, repository, api):
    hub.lfs_above_bytes = 10
    operation = adding("a", io.BytesIO(b"x" * 20))
    operation._upload_mode, operation._is_uploaded, operation._should_ignore = "lfs", True, False
    with pytest.raises(BadRequestError, match="an LFS pointer pointed to a file that does not exist"):
        api.create_commit(REPO, [operation], commit_message="no", repo_type="dataset")
    assert [] == repository.commits


# -- reading


def test_the_tree_comes_in_pages_and_by_folder(hub, repository, api):
    files = {f"m/{number:03d}.json": b"{}" for number in range(7)} | {"top": b"1"}
    made = push(api, files)
    hub.page_size = 3
    tree = list(api.list_repo_tree(REPO, repo_type="dataset", recursive=True, expand=True))
    assert sorted([*files, "m", ".gitattributes"]) == sorted(entry.path for entry in tree)
    assert 4 == len(hub.seen("tree"))
    last = {entry.path: entry.last_commit.oid for entry in tree}
    assert made.oid == last["m/000.json"] == last["m"] != last[".gitattributes"]
    assert ["m", "top"] == [entry.path for entry in api.list_repo_tree(REPO, repo_type="dataset")][1:]
    assert 7 == len(list(api.list_repo_tree(REPO, "m", repo_type="dataset")))
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere", repo_type="dataset"))
    assert {*files, ".gitattributes"} == set(api.list_repo_files(REPO, repo_type="dataset"))


def test_paths_that_are_not_there_are_left_out(repository, api):
    push(api, {"m/a": b"1"})
    found = api.get_paths_info(REPO, ["m/a", "m", "nothing"], repo_type="dataset")
    assert ["m/a", "m"] == [entry.path for entry in found]
    assert repository.commit().files["m/a"].blob_oid == found[0].blob_id


def test_contents_are_read_whole_and_in_ranges(hub, repository, api, tmp_path):
    made = push(api, {"a b/ü.txt": b"0123456789"})
    path = api.hf_hub_download(REPO, "a b/ü.txt", repo_type="dataset", cache_dir=tmp_path)
    assert (b"0123456789", made.oid) == (Path(path).read_bytes(), Path(path).parents[1].name)
    url = f"{hub.endpoint}/datasets/{REPO}/resolve/main/a b/ü.txt"
    for asked, code, content in [
        ("2-4", 206, b"234"),
        ("7-", 206, b"789"),
        ("-2", 206, b"89"),
        ("10-", 416, b""),
    ]:
        answer = get_session().get(url, headers={"Range": f"bytes={asked}"})
        assert (code, content) == (answer.status_code, answer.content)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "nothing", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(REPO, revision="nowhere")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/nothing")


def test_history_and_branches(hub, repository, api):
    push(api, {"a": b"1"})
    start = repository.head
    push(api, {"a": b"2"})
    hub.page_size = 2
    history = api.list_repo_commits(REPO, repo_type="dataset")
    assert ["add", "add", "initial commit"] == [commit.title for commit in history]
    api.create_branch(REPO, branch="side", revision=start, repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_branch(REPO, branch="side", repo_type="dataset")
    with pytest.raises(BadRequestError):
        api.create_branch(REPO, branch="refs/pr/5", repo_type="dataset")
    push(api, {"b": b"3"}, revision="side")
    assert ({"a": b"2"}, {"a": b"1", "b": b"3"}) == (repository.files(), repository.files("side"))
    refs = api.list_repo_refs(REPO, repo_type="dataset")
    assert {"main": repository.head, "side": repository.branches["side"]} == {
        branch.name: branch.target_commit for branch in refs.branches
    }
    api.delete_branch(REPO, branch="side", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        push(api, {"b": b"4"}, revision="side")
    with pytest.raises(RevisionNotFoundError):  # a deletion goes without preupload
        api.delete_file("b", REPO, revision="side", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):  # a commit is no branch
        api.delete_file("a", REPO, revision=start, repo_type="dataset")


def test_a_pull_request_leaves_main_alone_and_takes_more_commits(hub, api):
    model = hub.create("org/model", "model", files={"config.json": b"{}"})
    head = model.head
    made = push(
        api, {".eval_results/a.yaml": b"- value: 1\n"}, repo="org/model", repo_type="model", create_pr=True
    )
    assert (1, "refs/pr/1", head) == (made.pr_num, made.pr_revision, model.head)
    push(
        api,
        {".eval_results/b.yaml": b"- value: 2\n"},
        repo="org/model",
        repo_type="model",
        revision="refs/pr/1",
    )
    (listed,) = api.get_repo_discussions(
        "org/model", discussion_type="pull_request", discussion_status="open"
    )
    assert (1, "add", True) == (listed.num, listed.title, listed.is_pull_request)
    details = api.get_discussion_details("org/model", 1)
    assert [made.oid, model.branches["refs/pr/1"]] == [event.oid for event in details.events]
    assert {"config.json": b"{}"} == model.files()
    assert 3 == len(model.files("refs/pr/1"))
    model.discussions[0].status = "closed"
    assert [] == list(api.get_repo_discussions("org/model", discussion_status="open"))
    assert head == api.model_info("org/model").sha


# -- tokens


def test_who_may_do_what(hub, repository, api):
    hub.read_only_tokens.add("hf_reader")
    hub.pr_only_tokens.add("hf_proposer")
    reader, proposer, nobody = client(hub, "hf_reader"), client(hub, "hf_proposer"), client(hub, token=False)
    for one in (reader, proposer, api, nobody):
        one.auth_check(REPO, repo_type="dataset")
    api.auth_check(REPO, repo_type="dataset", write=True)
    for one, code in [(reader, 403), (proposer, 403), (nobody, 401)]:
        for refused in (
            lambda one: push(one, {"a": b"1"}),
            lambda one: one.create_repo("org/new", repo_type="dataset"),
            lambda one: one.auth_check(REPO, repo_type="dataset", write=True),
            lambda one: one.update_repo_settings(REPO, private=True, repo_type="dataset"),
        ):
            with pytest.raises(HfHubHTTPError) as caught:
                refused(one)
            assert code == caught.value.response.status_code
    assert [] == repository.commits
    assert 1 == push(proposer, {"a": b"1"}, create_pr=True).pr_num
    assert ["write", "read"] == [one.whoami()["auth"]["accessToken"]["role"] for one in (api, reader)]


def test_a_bad_token_is_refused_everywhere_until_it_is_a_good_one(hub, repository):
    rotated = client(hub, "hf_new_token")
    for call in (rotated.whoami, lambda: rotated.dataset_info(REPO), lambda: push(rotated, {"a": b"1"})):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert 401 == caught.value.response.status_code
        assert not isinstance(caught.value, RepositoryNotFoundError)
    hub.tokens = {"hf_new_token"}
    push(rotated, {"a": b"1"})
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        push(client(hub), {"a": b"2"})


def test_private_is_invisible_and_gated_is_closed_without_a_token(hub, repository, api, tmp_path):
    push(api, {"a": b"1"})
    nobody = client(hub, token=False)
    assert repository.head == nobody.dataset_info(REPO).sha
    api.update_repo_settings(REPO, gated="auto", repo_type="dataset")
    assert ("auto", False) == (repository.gated, repository.private)
    with pytest.raises(GatedRepoError):
        nobody.auth_check(REPO, repo_type="dataset")
    api.update_repo_settings(REPO, private=True, gated=False, repo_type="dataset")
    assert (False, True) == (repository.gated, repository.private)
    with pytest.raises(RepositoryNotFoundError):
        nobody.dataset_info(REPO)


def test_a_call_that_is_not_known_is_404_and_remembered():
    with HubServer() as hub:
        with pytest.raises(HfHubHTTPError):
            client(hub).list_datasets().__next__()
        assert [("GET", "/api/datasets", 404)] == [(one.method, one.path, one.status) for one in hub.unknown]


# -- faults


def test_an_error_before_the_commit_was_applied_leaves_nothing(hub, repository, api):
    hub.faults.add("commit", status(500))
    with pytest.raises(HfHubHTTPError) as caught:
        push(api, {"a": b"1"})
    assert (500, []) == (caught.value.response.status_code, repository.commits)
    push(api, {"a": b"1"})
    assert 1 == len(repository.commits)


@pytest.mark.parametrize("effect", [status(500), CUT, proxy_page(502), proxy_page(200)])
def test_a_commit_whose_answer_is_lost_is_there_and_pushing_again_finds_it(hub, repository, api, effect):
    fault = hub.faults.add("commit", effect, at="after")
    with pytest.raises((HfHubHTTPError, httpx2.TransportError, json.JSONDecodeError)):
        push(api, {"a": b"1"})
    assert (1, {"a": b"1"}) == (fault.hits, repository.files())
    assert repository.head == push(api, {"a": b"1"}).oid
    assert (1, []) == (len(repository.commits), repository.empty_commits)


def test_a_connection_that_is_reset_before_the_answer(hub, repository, api):
    hub.faults.add("commit", CUT)
    with pytest.raises(httpx2.TransportError):
        push(api, {"a": b"1"})
    assert ([None], []) == ([request.status for request in hub.seen("commit")], repository.commits)


def test_a_connection_that_is_reset_in_the_middle_of_a_commit(hub, repository, api):
    hub.faults.add("commit", CutBody(200_000))
    content = b"x" * 2_000_000
    with pytest.raises(httpx2.TransportError):
        push(api, {"a": content})
    assert (True, []) == (200_000 <= hub.seen("commit")[0].body_bytes < 2_000_000, repository.commits)
    push(api, {"a": content})
    assert {"a": content} == repository.files()


def test_an_upload_cut_in_the_middle_is_sent_again_by_the_client(hub, repository, api):
    hub.faults.add("lfs-put", CutBody(3_000_000))
    content = os.urandom(11 << 20)
    push(api, {"a.jsonl": io.BytesIO(content)})
    assert [None, 200] == [request.status for request in hub.seen("lfs-put")]
    assert {"a.jsonl": content} == repository.files()


def test_a_hub_that_hangs_goes_on_when_it_is_let(hub, repository, api):
    with ThreadPoolExecutor() as pool, Gate() as gate:
        hub.faults.add("commit", Hang(gate))
        pushed = pool.submit(push, api, {"a": b"1"})
        gate.wait_reached()
        assert (False, []) == (pushed.done(), repository.commits)
        gate.open()
        assert pushed.result(timeout=30).oid == repository.head


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_client_that_has_had_enough_of_a_hang_does_not_change_what_happens_later(hub, repository, at):
    gate = Gate()
    hub.faults.add("commit", Hang(gate), at=at)
    applied = threading.Event()
    hub.on("commit", lambda request: applied.set(), at="after")
    body = json.dumps({"key": "header", "value": {"summary": "slow"}})
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{hub.endpoint}/api/datasets/{REPO}/commit/main",
            content=body,
            headers={"Authorization": f"Bearer {GOOD_TOKEN}"},
            timeout=0.3,
        )
    assert (at == "after") == bool(repository.commits)
    gate.open()
    assert applied.wait(30)
    assert ["slow"] == [commit.title for commit in repository.commits]


def test_every_form_of_429(hub, repository, api):
    forms = [rate_limited(reset_s=55), COMMIT_LIMIT, retry_after(7)]
    for form in forms:
        hub.faults.add("commit", form)
    caught = []
    for _ in forms:
        with pytest.raises(HfHubHTTPError) as one:
            push(api, {"a": b"1"})
        caught.append(one.value)
    quota, commits, plain = [error.response for error in caught]
    assert {429} == {quota.status_code, commits.status_code, plain.status_code}
    parsed = parse_ratelimit_headers(quota.headers)
    assert (0, 55, 500, 300) == (
        parsed.remaining,
        parsed.reset_in_seconds,
        parsed.limit,
        parsed.window_seconds,
    )
    assert 949 == parse_ratelimit_headers(commits.headers).remaining
    assert "(128 per hour). You can retry this action in 43 minutes" in str(caught[1])
    assert ("7", None) == (plain.headers["Retry-After"], parse_ratelimit_headers(plain.headers))


def test_the_client_waits_out_a_429_where_it_tries_again_itself(hub, repository, api):
    hub.faults.add("preupload", rate_limited(reset_s=0))
    push(api, {"a": b"1"})
    assert [429, 200] == [request.status for request in hub.seen("preupload")]


def test_a_page_instead_of_json_is_no_error_of_the_hub(hub, repository, api):
    hub.faults.add("validate", proxy_page(502))
    hub.faults.add("create", proxy_page(200))
    for call in (
        lambda: push(api, {"README.md": CARD}),
        lambda: api.create_repo("org/b", repo_type="dataset"),
    ):
        with pytest.raises(json.JSONDecodeError):
            call()


def test_a_fault_strikes_whom_it_is_meant_for_until_it_is_removed(hub, repository, api):
    fault = hub.faults.add(ANY, status(501), times=None, when=lambda request: b"target" in request.body)
    push(api, {"bystander": b"1"})
    for _ in range(2):
        with pytest.raises(HfHubHTTPError):
            push(api, {"target": b"1"})
    assert 2 == fault.hits
    fault.remove()
    push(api, {"target": b"1"})
    assert {"bystander", "target"} == set(repository.files())


def test_a_hub_that_is_down_refuses_and_comes_back_as_it_was(hub, repository, api):
    push(api, {"a": b"1"})  # leaves a connection open
    endpoint = hub.endpoint
    hub.down()
    for _ in range(2):
        with pytest.raises(httpx2.TransportError):
            api.dataset_info(REPO)
    hub.up()
    assert (endpoint, repository.head) == (hub.endpoint, api.dataset_info(REPO).sha)


def test_a_hub_that_hangs_can_go_down():
    with HubServer() as hub, ThreadPoolExecutor() as pool, Gate() as gate:
        hub.faults.add("whoami", Hang(gate))
        asked = pool.submit(client(hub).whoami)
        gate.wait_reached()
        hub.down()
        with pytest.raises(httpx2.TransportError):
            asked.result(timeout=30)


def test_hooks_see_a_request_before_and_after_it_was_applied(hub, repository, api):
    seen = []
    hub.on(
        "commit", lambda request: seen.append(("before", len(repository.commits), b"header" in request.body))
    )
    remove = hub.on("commit", lambda request: seen.append(("after", len(repository.commits))), at="after")
    push(api, {"a": b"1"})
    remove()
    push(api, {"a": b"2"})
    assert [("before", 0, True), ("after", 1), ("before", 1, True)] == seen


def test_a_hook_that_fails_fails_the_test():
    def fail(request):
        raise ZeroDivisionError

    hub = HubServer()
    hub.on("whoami", fail)
    hub.up()
    with pytest.raises(HfHubHTTPError) as caught:
        client(hub).whoami()
    assert 501 == caught.value.response.status_code
    with pytest.raises(ZeroDivisionError):
        hub.close()


def test_a_cut_is_a_reset(hub):
    hub.faults.add(ANY, CUT, times=None)
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as connection:
        connection.sendall(b"GET /api/whoami-v2 HTTP/1.1\r\nHost: hub\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_many_pushers_at_once_lose_nothing(hub, repository, api):
    def insist(number):
        """A pusher that tries again when it is told to, as fast as it can."""
        while True:
            try:
                return push(api, {f"{number}.json": b"{}"}, parent_commit=repository.head).oid
            except HfHubHTTPError as error:
                if error.response.status_code not in {409, 412}:
                    raise

    with ThreadPoolExecutor(8) as pool:
        oids = set(pool.map(insist, range(24)))
    assert {commit.oid for commit in repository.commits} == oids
    assert (24, 25) == (len(repository.files()), len(repository.history()))
    assert {(f"{number}.json",) for number in range(24)} == {commit.changed for commit in repository.commits}


PUSHER = """
    from huggingface_hub import CommitOperationAdd, HfApi
    HfApi().create_commit("org/name", [CommitOperationAdd("a.jsonl", b"x" * 20_000)],
                          commit_message="add", repo_type="dataset")
    print("done")
"""


@pytest.mark.parametrize(("step", "applied"), [("lfs-put", False), ("commit", True)])
def test_a_client_killed_at_a_step_leaves_what_was_applied(hub, repository, tmp_path, step, applied):
    hub.lfs_above_bytes = 1000
    processes = []
    started = threading.Event()

    def kill(request):
        assert started.wait(30)
        os.kill(processes[0].pid, signal.SIGKILL)

    hub.on(step, kill, at="after")
    processes.append(run(hub, PUSHER, tmp_path, HF_HUB_DISABLE_XET="1"))
    started.set()
    out, _ = processes[0].communicate(timeout=60)
    assert ("", -signal.SIGKILL, applied) == (out, processes[0].returncode, bool(repository.commits))
    assert 1 == len(repository.lfs)


# -- Xet


@pytest.mark.parametrize("grants", [True, False])
def test_files_uploaded_by_xet_arrive_whole(hub, repository, tmp_path, grants):
    hub.xet_grants = grants
    text = b"".join(
        b'{"doc_id": %d, "v": %d}\n' % (number, number * number % 9973) for number in range(500_000)
    )
    numbers = b"".join((number // 3).to_bytes(4, "little") for number in range(300_000))
    (tmp_path / "text").write_bytes(text)
    (tmp_path / "numbers").write_bytes(numbers)
    source = """
        from huggingface_hub import CommitOperationAdd, HfApi
        add = [CommitOperationAdd("text.jsonl", "text"), CommitOperationAdd("numbers.bin", open("numbers", "rb").read())]
        add += [CommitOperationAdd("twice.bin", "numbers"), CommitOperationAdd("plain.json", b"{}")]
        print(HfApi().create_commit("org/name", add, commit_message="xet", repo_type="dataset").oid)
    """
    oid = finished(run(hub, source, tmp_path)).strip()
    assert {
        "text.jsonl": text,
        "numbers.bin": numbers,
        "twice.bin": numbers,
        "plain.json": b"{}",
    } == repository.files()
    (commit,) = repository.commits
    assert (oid, 3) == (commit.oid, sum(commit.files[path].lfs for path in commit.added))
    assert {commit.files[path].sha256 for path in ("text.jsonl", "numbers.bin")} == set(hub.cas.files)
    assert [] == hub.seen("lfs-batch", "lfs-put")
    assert {"POST": not grants, "PUT": grants} == {
        method: any(request.method == method for request in hub.seen("xet-upload"))
        for method in ("POST", "PUT")
    }


def test_an_upload_by_xet_that_is_cut_is_sent_again_and_one_that_fails_commits_nothing(
    hub, repository, tmp_path
):
    hub.lfs_above_bytes = 1000
    hub.faults.add("xet-upload", CutBody(1000))
    finished(run(hub, PUSHER, tmp_path))
    assert ({"a.jsonl": b"x" * 20_000}, 2) == (repository.files(), len(hub.seen("xet-upload")))
    hub.faults.add("xet-shard", status(400), times=None)
    process = run(hub, PUSHER.replace('b"x"', 'b"y"'), tmp_path)
    _, err = process.communicate(timeout=60)
    assert (1, 1) == (process.returncode, len(repository.commits)), err


def test_a_xorb_that_was_lost_after_its_upload_is_asked_for_again(hub, repository, tmp_path):
    hub.lfs_above_bytes = 1000

    def lose(request):
        remove()
        hub.cas.lose_uploads()

    remove = hub.on("xet-upload", lose, at="after")
    finished(run(hub, PUSHER, tmp_path))
    assert [404, 200] == [request.status for request in hub.seen("xet-grant-commit")]
    assert {"a.jsonl": b"x" * 20_000} == repository.files()


def test_a_file_whose_chunks_are_damaged_is_refused_with_its_shard(hub, repository, tmp_path):
    hub.lfs_above_bytes = 1000

    def damage(request):
        for chunks in hub.cas.xorbs.values():
            chunks[0] = chunks[0][:-1] + b"!"

    hub.on("xet-shard", damage)
    process = run(hub, PUSHER, tmp_path)
    _, err = process.communicate(timeout=60)
    assert (1, {}, []) == (process.returncode, repository.lfs, repository.commits)
    assert "the shard says" in err


def test_without_xet_the_client_says_so_and_lfs_is_the_way(hub, repository, tmp_path):
    hub.xet, hub.lfs_above_bytes = False, 1000
    process = run(hub, PUSHER, tmp_path)
    _, err = process.communicate(timeout=60)
    assert 1 == process.returncode
    assert "ConnectionError" in err
    finished(run(hub, PUSHER, tmp_path, HF_HUB_DISABLE_XET="1"))
    assert {"a.jsonl": b"x" * 20_000} == repository.files()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 5, b"\0\x05\0\0\0\x04\0\0hello", b"\0\x01\0\0\x09\x01\0\0x"]
)
def test_a_xorb_that_is_none_is_refused(content):
    with pytest.raises(FormatError):
        read_xorb(content)


@pytest.mark.parametrize("content", [b"", b"x" * 48, b"HFRepoMetaData\0" + b"\0" * 17 + b"\2" + b"\0" * 15])
def test_a_shard_that_is_none_is_refused(content):
    with pytest.raises(FormatError):
        read_shard(content)


# -- readers


def test_load_dataset_reads_a_private_repository_by_its_card(hub, tmp_path):
    rows = [{"doc_id": number, "text": "é" * number} for number in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    hub.create(REPO, private=True, files={"README.md": CARD, "model/samples.jsonl": lines, "notes.txt": b"-"})
    source = """
        import json
        from datasets import load_dataset
        rows = load_dataset("org/name", "model__task", split="latest").to_list()
        streamed = list(load_dataset("org/name", "model__task", split="latest", streaming=True))
        print(json.dumps([rows, streamed]))
    """
    assert [rows, rows] == json.loads(finished(run(hub, source, tmp_path)))


def test_it_serves_in_the_foreground_and_says_how_to_use_it():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub_server"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        said = dict(part.split("=", 1) for part in process.stdout.readline().split()[1:])
        ask = urllib.request.Request(  # noqa: S310 - a fixed scheme
            f"{said['HF_ENDPOINT']}/api/whoami-v2", headers={"Authorization": f"Bearer {said['HF_TOKEN']}"}
        )
        with urllib.request.urlopen(ask, timeout=30) as answer:  # noqa: S310 - likewise
            assert "tester" == json.load(answer)["name"]
        process.terminate()
        assert (0, "GET /api/whoami-v2\n") == (process.wait(30), process.stdout.read())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
