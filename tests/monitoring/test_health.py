"""Alive is one question, ready another; and what address there is to ask them at."""

import logging

import pytest

from consumer.errors import UsageError
from consumer.monitoring import Monitor, parse_address
from consumer.observations import CommitEnded, DiskHeld
from consumer.settings import DEFAULT_HTTP, Settings
from tests.monitoring.conftest import Watched, standing


def move(watched, seconds):
    """Time goes by, and the loop turns at its end."""
    watched.now += seconds
    watched.worker.turns += 1
    watched.worker.turned_at = watched.now


def reasons(watched):
    status, content = watched.json("/readyz")
    assert (200 if content["ready"] else 503) == status
    assert content["ready"] == (not content["reasons"])
    assert watched.scrape().value("evalsink_ready") == content["ready"]
    return content["reasons"]


def test_a_loop_that_moves_is_healthy_and_one_that_stands_is_not_before_the_watchdog_acts(watched):
    limit_s = watched.settings.watchdog_s / 2
    move(watched, 5)
    watched.now += limit_s - 1
    assert 200 == watched.json("/healthz")[0]
    watched.now += 1
    status, content = watched.json("/healthz")
    assert (503, "stuck", limit_s) == (status, content["status"], content["loop"]["still_s"])
    move(watched, 0)
    assert (200, "ok") == (watched.json("/healthz")[0], watched.json("/healthz")[1]["status"])


def test_nothing_but_the_loop_makes_it_unhealthy(watched):
    watched.observe(standing(assigned=False, waiting=frozenset({1})), DiskHeld(waiting=True))
    watched.worker.is_stopping = True
    move(watched, 100_000)
    assert 4 <= len(reasons(watched))
    assert 200 == watched.json("/healthz")[0]


def test_a_worker_that_is_still_being_built_is_healthy_for_a_while_and_not_ready(tmp_path):
    watched = Watched(tmp_path)
    assert 200 == watched.json("/healthz")[0]
    assert ["starting: Kafka and the state folder are being looked at"] == reasons(watched)
    watched.now += watched.settings.watchdog_s
    assert 503 == watched.json("/healthz")[0]


def test_a_worker_with_partitions_that_commits_is_ready_and_so_is_an_idle_member(watched):
    watched.observe(standing(), CommitEnded(accepted=True))
    assert [] == reasons(watched)
    move(watched, 1000)
    watched.observe(standing(owned=frozenset()))
    assert [] == reasons(watched)


def test_every_reason_is_told(watched):
    assert ["the group has not assigned anything yet"] == reasons(watched)
    watched.observe(standing(waiting=frozenset({2, 0})))
    assert ["assigned but not started, Kafka does not answer: partitions 0, 2"] == reasons(watched)
    watched.observe(standing(), DiskHeld(waiting=True))
    assert ["the disk is full: reading is held"] == reasons(watched)
    watched.observe(DiskHeld(waiting=False))
    move(watched, 31)
    assert ["no commit for 31 s: Kafka does not answer, or the disk does not"] == reasons(watched)
    watched.observe(CommitEnded(accepted=False))
    assert 1 == len(reasons(watched))
    watched.observe(CommitEnded(accepted=True))
    assert [] == reasons(watched)
    watched.worker.is_stopping = True
    assert ["stopping"] == reasons(watched)
    watched.worker.is_stopping = False
    watched.now += 150
    watched.observe(CommitEnded(accepted=True))
    assert ["the loop has not moved for 150 s"] == reasons(watched)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEFAULT_HTTP, ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("metrics.example:65535", ("metrics.example", 65535)),
    ],
)
def test_addresses_are_understood(text, expected):
    assert expected == parse_address(text)


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "host", "host:", "host:x", "host:65536", "::1:9464", "a b:1"]
)
def test_what_is_no_address_is_a_wrong_call(text):
    with pytest.raises(UsageError, match="EVALSINK_HTTP"):
        parse_address(text)


def test_an_address_that_was_asked_for_and_is_taken_is_a_wrong_call_and_the_default_one_a_warning(caplog):
    with caplog.at_level(logging.INFO, "consumer"):
        first = Monitor(Settings(http="127.0.0.1:0"))
        with first.listening(insist=True):
            [line] = [line for line in caplog.records if line.message == "http_listening"]
            second = Monitor(Settings(http=line.fields["url"].removeprefix("http://")))
            with pytest.raises(UsageError, match="--http"), second.listening(insist=True):
                pass
            with second.listening(insist=False):
                pass
    assert ["http_listening", "http_unavailable"] == [line.message for line in caplog.records]
    assert "WARNING" == caplog.records[-1].levelname


def test_without_an_address_nothing_listens(caplog):
    with caplog.at_level(logging.INFO, "consumer"), Monitor(Settings(http="")).listening(insist=True):
        pass
    assert [] == caplog.records
