"""The stage of the stories told step by step."""

import pytest

from tests.proof.mortality import watching
from tests.proof.stage import Stage


@pytest.fixture
def stage(tmp_path):
    with watching():
        one = Stage(tmp_path)
        yield one
        for member in one.members.values():
            member.let_go()
