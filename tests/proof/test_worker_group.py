"""A worker group to which everything happens leaves what one leaves to which nothing happens.

`EVALSINK_PROOF_EXAMPLES` says how many examples are tried; the quick number here is for every build.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.proof.worker_group import WorkerGroup, totals

QUICK_EXAMPLES = 80
STEPS = 30
# A mutant must be caught again by whom it was caught before, and nobody reads how.
MUTANTS: dict[str, Any] = {"derandomize": True, "database": None, "phases": [Phase.explicit, Phase.generate]}


@pytest.mark.long
@pytest.mark.timeout(900)  # it computes for half a minute: ten times as long on a machine that busy
def test_whatever_happens_to_the_workers_the_files_are_those_of_one_undisturbed_worker():
    totals.clear()
    profile = settings(
        max_examples=int(os.environ.get("EVALSINK_PROOF_EXAMPLES") or QUICK_EXAMPLES),
        stateful_step_count=STEPS,
        deadline=None,
        **(MUTANTS if "EVALSINK_PROOF_MUTANT" in os.environ else {}),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(WorkerGroup, settings=profile)
    print(dict(totals))  # noqa: T201 - pytest -s shows it
    assert {"complete", "incomplete", "kills", "power cuts", "zombies"} <= totals.keys()
