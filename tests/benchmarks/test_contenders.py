"""Every contender can be built from what is checked in, and nothing is fetched that is not locked."""

import re

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.environments import PEERS, connect_version
from tests.kafka_harness.jars import version

LOCKS = sorted(PEERS.glob("*.lock"))


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.name)
def test_every_contender_has_its_program_and_its_lock(contender):
    compile((PEERS / contender.program).read_text("utf-8"), contender.program, "exec")
    if contender.lock:
        assert f"\n{contender.package}" in (PEERS / f"{contender.lock}.lock").read_text("utf-8")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_of_a_peer_has_hashes_and_no_address(lock):
    text = lock.read_text("utf-8")
    requirements = re.findall(r"^\S+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)*", text, re.MULTILINE)
    assert requirements
    for requirement in requirements:
        assert "--hash=sha256:" in requirement, requirement
    assert "://" not in text


def test_kafka_connect_is_of_the_brokers_version():
    assert version() == connect_version()
