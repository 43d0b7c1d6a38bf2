"""Rules and dashboards as files: what they ask for exists, panels say what they show, nothing is of one place."""

import json
import re

import pytest
import yaml

from consumer.observations import Buried
from consumer.telemetry.catalog import CATALOG
from consumer.vocabulary import OutboxReading, TopicPartition
from tests.docs.pages import ROOT
from tests.monitoring.conftest import Watched, standing

RULES = ROOT / "deploy" / "prometheus" / "evalsink.rules.yml"
BOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

UNITS = {"none", "short", "s", "bytes", "Bps", "cps", "recps", "rowsps", "percentunit"}
"""Grafana's own names of the units we use: one that it does not know it shows as text."""


def full_scrape(folder):
    """A scrape with every metric there is."""
    watched = Watched(folder)
    outbox = OutboxReading({"queued": 2}, 5.0, {"archived": 1})
    watched.monitor.attach(watched.worker, lambda: outbox)
    watched.settings.state_path.mkdir()
    watched.observe(standing(lag={TopicPartition("eval.samples", 0): 3}), Buried("late"))
    return watched.scrape()


def rules():
    return yaml.safe_load(RULES.read_text("utf-8"))


def alerts():
    return [rule["alert"] for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]


def test_rules_ask_only_for_metrics_that_exist_or_that_rules_record(tmp_path):
    recorded = {rule["record"] for group in rules()["groups"] for rule in group["rules"] if "record" in rule}
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert names_in(rule["expr"]) <= known(tmp_path) | recorded, rule


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def boards():
    return [json.loads(path.read_text("utf-8")) for path in BOARDS]


def expressions(board):
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def names_in(expression):
    """Metrics named in an expression; ours and those of the process."""
    return set(
        re.findall(r"(?<![\w:])((?:[a-z]+:)?(?:evalsink|process|python)_[a-z0-9_]+(?::\w+)?)", expression)
    )


def known(folder):
    """Names of series that a scrape has."""
    folder = folder / "scrape"
    folder.mkdir(exist_ok=True)
    if not hasattr(known, "names"):
        known.names = {name for name, _ in full_scrape(folder).series}
    return known.names


def test_there_are_an_overview_and_a_worker_that_lead_to_each_other():
    found = {board["uid"]: board for board in boards()}
    assert {"evalsink-overview", "evalsink-worker"} == set(found)
    for uid, board in found.items():
        assert (None, True) == (board["id"], board["schemaVersion"] >= 39)
        assert [f"/d/{other}" for other in found if other != uid] == [link["url"] for link in board["links"]]


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_every_panel_says_what_it_shows_in_which_unit_and_leaves_the_source_open(board):
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert "datasource" == variables["datasource"]["type"]
    assert all(one["datasource"] == source for one in variables.values() if one["type"] == "query")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels(board)}) == len(panels(board))
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert source == panel["datasource"]
        for target in panel["targets"]:
            assert source == target["datasource"]
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert {"job"} <= used <= set(variables)


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_no_panel_covers_another(board):
    taken = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_rates_are_over_grafanas_own_interval_and_counters_are_never_shown_raw(board):
    counters = {metric.name for metric in CATALOG if metric.kind == "counter"} | {"process_cpu_seconds_total"}
    for expression in expressions(board):
        ranges = re.findall(r"\[([^\]]+)\]", expression)
        assert set(ranges) <= {"$__rate_interval", "1h"}
        assert len(re.findall(r"\b(?:rate|increase)\(", expression)) == len(ranges)
        if names_in(expression) & counters or "_bucket" in expression:
            assert ranges, expression


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_dashboards_ask_only_for_metrics_that_exist(board, tmp_path):
    for expression in expressions(board):
        assert names_in(expression), expression
        assert names_in(expression) <= known(tmp_path), expression


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule():
    used = set()
    for expression in (
        *(one for board in boards() for one in expressions(board)),
        *(rule["expr"] for group in rules()["groups"] for rule in group["rules"]),
    ):
        used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in names_in(expression)}
    assert set() == {metric.name for metric in CATALOG} - used
