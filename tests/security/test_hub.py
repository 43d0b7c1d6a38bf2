"""A Hub that is hostile, or that somebody stands before: it gets no token for elsewhere, and holds nothing up."""

import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from consumer.archive.faults import HubFault
from consumer.archive.hub import Hub
from consumer.settings import Hub as HubSettings
from tests.hub_server import GOOD_TOKEN, HubServer, Respond
from tests.hub_server.exchange import Answer

REPO = "org/evals"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def servers(monkeypatch):
    """A Hub, and another origin that it sends its clients to."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer(xet=False) as one, HubServer(xet=False) as other:
        yield one, other
    set_client_factory(default_client_factory)


@pytest.fixture
def client(servers, tmp_path):
    token = tmp_path / "token"
    token.write_text(GOOD_TOKEN, "utf-8")
    return Hub(HubSettings(repo=REPO, endpoint=servers[0].endpoint, token_file=str(token), timeout_s=5.0))


def redirect(to, status=307):
    return Respond(Answer(status, b"", (("Location", to),)))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("step", ["info", "tree", "preupload", "commit"])
def test_a_redirect_to_another_origin_takes_no_token_along(servers, client, step, status):
    hub, elsewhere = servers
    client.prepare(REPO)
    client.commit(REPO, {"a": b"b"}, parent=None, title="t")
    hub.faults.add(step, redirect(f"{elsewhere.endpoint}/api/datasets/{REPO}/elsewhere", status), times=None)
    client.forget(REPO)

    def push():
        client.prepare(REPO)
        client.snapshot(REPO)
        client.commit(REPO, {"c": b"d"}, parent=None, title="t")

    with pytest.raises(HubFault) as fault:
        push()
    assert GOOD_TOKEN not in str(fault.value)
    assert elsewhere.requests, "it was followed"
    assert not [
        request for request in elsewhere.requests if request.authorized or GOOD_TOKEN in str(request.headers)
    ]


def test_redirects_without_end_end(servers, client):
    hub, _ = servers
    client.prepare(REPO)
    hub.faults.add("info", redirect(f"{hub.endpoint}/api/datasets/{REPO}/revision/main"), times=None)
    before = len(hub.requests)
    with pytest.raises(HubFault):
        client.snapshot(REPO)
    assert len(hub.requests) - before < 50


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff" * 1000, b'{"sha": 7, "siblings": "x"}', b'{"sha": "' + b"a" * 100_000]
)
def test_answers_that_are_nothing_are_a_fault_and_no_traceback(servers, client, body):
    hub, _ = servers
    client.prepare(REPO)
    answer = Answer(200, body, (("Content-Type", "application/json"),))
    for step in ("info", "tree"):
        hub.faults.add(step, Respond(answer), times=None)
    with pytest.raises(HubFault) as fault:
        client.snapshot(REPO)
    assert len(str(fault.value)) < 2000
