"""The catalogue is the truth about metrics: names, labels, the page, and what a scrape has."""

import re
from typing import get_args

import pytest

from consumer.intake import decode
from consumer.observations import Checkpointed, Obstacle
from consumer.telemetry import catalog
from consumer.telemetry.catalog import CATALOG
from consumer.vocabulary import OutboxReading, TopicPartition
from schemas.results import RunStatus
from tests.monitoring.conftest import Watched, standing


def label(metric, name):
    return next(one for one in metric.labels if one.name == name)


def test_the_page_is_in_step_with_the_catalogue():
    assert 0 == catalog.main(["--check"]), "run: make generated"


def test_a_page_out_of_step_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(catalog, "PAGE", tmp_path / "METRICS.md")
    assert 1 == catalog.main(["--check"])
    assert "make generated" in capsys.readouterr().err
    assert 0 == catalog.main([])
    assert 0 == catalog.main(["--check"])


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric):
    assert re.fullmatch(r"evalsink_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert not re.search(r"milli|micro|_ms|_kb|_mb|minutes|hours|percent", metric.name)
    assert metric.help.endswith(".")


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_every_label_is_bounded_and_none_names_a_run(metric):
    for one in metric.labels:
        assert bool(one.values) != bool(one.bound)
        assert one.name not in {"run", "run_id", "model", "task", "sample"}


def test_the_values_of_labels_are_those_of_the_code():
    reasons = {*get_args(decode.Reason), "bad-rows", "late", "unexpected"}
    assert reasons == set(label(catalog.DEAD_LETTERS, "reason").values)
    assert set(get_args(RunStatus)) == set(label(catalog.RUNS_CLOSED, "status").values)
    assert set(get_args(Obstacle)) == set(label(catalog.CLOSE_OUTS_FAILED, "reason").values)
    [outcome] = [kind for kind in Checkpointed.__annotations__.values() if get_args(kind)]
    assert set(get_args(outcome)) == set(label(catalog.CHECKPOINTS, "outcome").values)


def exposed(scrape):
    """Metrics of ours, by the name the catalogue has."""
    return {
        name + "_total" * (family.type == "counter"): family
        for name, family in scrape.families.items()
        if name.startswith("evalsink_")
    }


def test_a_scrape_holds_every_metric_of_the_catalogue_and_no_other(tmp_path):
    watched = Watched(tmp_path)
    outbox = OutboxReading({"queued": 2}, 5.0, {"archived": 1})
    watched.monitor.attach(watched.worker, lambda: outbox)
    watched.settings.state_path.mkdir()
    watched.observe(standing(lag={TopicPartition("eval.samples", 0): 0}))
    found = exposed(watched.scrape())
    assert {metric.name for metric in CATALOG} == set(found)
    for metric in CATALOG:
        family = found[metric.name]
        assert (metric.kind, metric.help) == (family.type, family.documentation)
        names = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert names == {one.name for one in metric.labels}
        for one in metric.labels:
            if one.values and metric is not catalog.DISK_FREE and metric is not catalog.DISK_SIZE:
                assert set(one.values) == {sample.labels[one.name] for sample in family.samples}


def test_without_an_outbox_its_series_are_not_there(watched):
    watched.observe(standing())
    names = set(exposed(watched.scrape()))
    assert {metric.name for metric in CATALOG if metric.part == "Archive"}.isdisjoint(names)
    assert "evalsink_open_runs" in names


def test_no_series_tells_when_it_was_made(watched):
    assert "_created" not in watched.scrape().text
