"""The short version of the chaos run; `make chaos` is the long one."""

import pytest

from tests.chaos.run import Plan, run_chaos

pytestmark = [pytest.mark.kafka, pytest.mark.long]

SEED = 11


@pytest.mark.usefixtures("kafka_jars")
def test_whatever_happens_to_a_group_its_files_are_those_of_an_undisturbed_worker_and_nothing_is_lost(
    tmp_path,
):
    plan = Plan(
        SEED,
        {"SIGKILL": 6, "rebalance": 3},
        at_least_s=40,
        at_most_s=120,
        era_s=20,
        run_every_s=1.0,
        run_s=12,
        abandon_after_s=None,
        end_within_s=90,
    )
    report = run_chaos(plan, tmp_path / "chaos")
    assert not report.findings, "\n".join(report.findings[:40])
    assert report.runs["sent"] == report.runs["complete"] + report.runs.get("incomplete", 0)
