"""Rules, dashboards and figures, judged by Prometheus itself (Debian package prometheus): `make test-system`."""

import json
import re
from typing import NamedTuple

import pytest
import yaml

from tests.acceptance.conftest import evalsink, topic_settings
from tests.conftest import Broker
from tests.hand_over.processes import workers, write_config
from tests.kafka_harness import RealKafka
from tests.monitoring.asking import Pages, Prometheus, promtool, tool
from tests.monitoring.test_rules_and_dashboards import RULES, alerts, boards, expressions, full_scrape, rules
from tests.observing import Sending, produce, read_all, until
from tests.worker.conftest import Stage
from tests.worker.evaluation import Evaluation

pytestmark = pytest.mark.system

CASES = RULES.with_name("evalsink.rules.test.yml")
FOLDERS = ("lmms-eval/maxm", "lmms-eval/mmmu", "lmms-eval/mme-newest-format", "lm-eval")

# -- a scrape ---------------------------------------------------------------------------------------------------------


def test_promtool_has_nothing_to_say_about_a_scrape(tmp_path):
    assert (0, "") == promtool("check", "metrics", stdin=full_scrape(tmp_path).text)


def test_promtool_would_say_something(tmp_path):
    text = full_scrape(tmp_path).text.replace("evalsink_rows_total", "evalsink_rowsMilliseconds")
    assert 0 != promtool("check", "metrics", stdin=text)[0]


# -- rules ------------------------------------------------------------------------------------------------------------


def test_promtool_takes_the_rules_and_all_cases():
    code, said = promtool("check", "rules", RULES)
    assert (0, True) == (code, "SUCCESS" in said), said
    code, said = promtool("test", "rules", CASES)
    assert 0 == code, said


@pytest.mark.parametrize("alert", alerts())
@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_the_cases_notice_an_alert_that_fires_never_or_always(alert, expression, tmp_path):
    content = rules()
    for group in content["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") == alert:
                rule["expr"] = expression
    (tmp_path / RULES.name).write_text(json.dumps(content), "utf-8")
    cases = yaml.safe_load(CASES.read_text("utf-8"))
    for case in cases["tests"]:
        case["alert_rule_test"] = [one for one in case["alert_rule_test"] if one["alertname"] == alert]
    cases["tests"] = [case for case in cases["tests"] if case["alert_rule_test"]]
    (tmp_path / CASES.name).write_text(json.dumps(cases), "utf-8")
    code, said = promtool("test", "rules", CASES.name, cwd=tmp_path)
    assert 0 != code
    assert alert in said


# -- a real Prometheus ------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """What was sent, the worker that ate it, and the Prometheus that watched."""

    prometheus: Prometheus
    stage: Stage
    pages: Pages
    kafka: RealKafka


@pytest.fixture(scope="module")
def scene(kafka_jars, realdata, tmp_path_factory):
    tool("prometheus")
    folder = tmp_path_factory.mktemp("scene")
    with RealKafka(folder / "kafka") as kafka:
        broker = Broker(kafka.bootstrap, embedded=False)
        stage = Stage(broker, folder, broker.topics())
        for name in FOLDERS:
            options = ("--shards", "4", "--shuffle", "7", "--duplicate", "0.05")
            evalsink(
                *("publish", realdata / name, "--brokers", broker.bootstrap, *options),
                **topic_settings(stage.topics),
            )
        stage.send(Evaluation("open").body())
        produce(broker, [Sending(stage.topics.samples, b"k", b"garbage")] * 3)
        config = write_config(
            folder / "settings.toml",
            broker.bootstrap,
            stage.topics,
            group=stage.group,
            session_timeout_ms=6000,
            checkpoint_interval_s=0.5,
        )
        pages = Pages()
        scaled = folder / "scaled.rules.yml"
        # Minutes become seconds: the rule is that of the file, but for its patience.
        text = RULES.read_text("utf-8").replace("> 180", "> 10")
        scaled.write_text(re.sub(r"for: (\d+)m", r"for: \1s", text), "utf-8")
        with (
            Prometheus(folder / "prometheus", [pages.address], rules=[scaled]) as prometheus,
            workers(config, folder / "output", "--http", pages.address) as start,
        ):
            worker = start(folder / "state")
            worker.until(lambda: len(worker.lines("run_closed")) == 7, "all runs closed")
            worker.until(
                lambda: prometheus.number("sum(evalsink_runs_closed_total)") == 7, "a scrape after them"
            )
            worker.until(lambda: prometheus.number("evalsink_open_runs") == 1, "one is open")
            turns = "rate(evalsink_loop_turns_total[1m])"
            worker.until(lambda: prometheus.number(turns), "scrapes enough for a rate")
            yield Scene(prometheus, stage, pages, kafka)


def test_the_figures_in_prometheus_are_what_was_sent_and_published(scene):
    stage, query, number = scene.stage, scene.prometheus.query, scene.prometheus.number
    for topic in stage.topics.inputs:
        records = read_all(stage.broker, topic)
        assert len(records) == number(f'evalsink_records_total{{topic="{topic}"}}')
        size = sum(len(record.value) for record in records)
        assert size == number(f'evalsink_read_bytes_total{{topic="{topic}"}}')
    runs = [json.loads(content) for name, content in stage.tree().items() if name.endswith(".json")]
    assert 7 == len(runs)
    tasks = [task for run in runs for task in run["evalsink"]["tasks"].values()]
    for metric, key in (
        ("published_rows", "rows"),
        ("published_bytes", "bytes"),
        ("duplicate_rows", "duplicates"),
        ("conflicting_rows", "conflicts"),
        ("superseded_rows", "superseded"),
    ):
        assert sum(task[key] for task in tasks) == number(f"evalsink_{metric}_total"), metric
    assert number("evalsink_duplicate_rows_total") > 100
    sent = sum(task["rows"] + task["duplicates"] for task in tasks) + 24
    assert sent == number("evalsink_rows_total")
    by_status = {
        dict(labels)["status"]: value for labels, value in query("evalsink_runs_closed_total").items()
    }
    assert {"complete": 7, "incomplete": 0, "failed": 0} == by_status
    letters = {
        dict(labels)["reason"]: value for labels, value in query("evalsink_dead_letters_total > 0").items()
    }
    assert {"not-json": 3} == letters
    assert 0 == number("max(evalsink_lag_records)")
    assert 8 == number("count(evalsink_lag_records)")
    total = number("sum(evalsink_records_total)")
    assert total == number("evalsink_event_age_seconds_count")


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_every_expression_of_the_dashboards_is_understood_and_most_have_something_to_show(scene, board):
    shown = 0
    for expression in expressions(board):
        asked = expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
        assert "$" not in asked
        answer = scene.prometheus.ask("query", query=asked)
        assert "success" == answer["status"], (expression, answer)
        shown += bool(answer["data"]["result"])
        if "outbox" not in expression and "pushes" not in expression:
            assert answer["data"]["result"] or "> 0" in expression, expression
    assert shown > 15


def test_variables_of_the_dashboards_find_the_worker(scene):
    for board in boards():
        for one in board["templating"]["list"]:
            if one["type"] == "query":
                [(metric, label)] = re.findall(r"^label_values\((.+), (\w+)\)$", one["query"]["query"])
                found = scene.prometheus.ask("series", **{"match[]": metric.replace("$job", ".*")})["data"]
                assert {"evalsink"} == {series["job"] for series in found}
                assert all(series[label] for series in found)


def firing(prometheus):
    return {dict(labels)["alertname"] for labels in prometheus.query('ALERTS{alertstate="firing"}')}


def test_a_broker_that_is_stopped_fires_the_alert_and_the_worker_stays_healthy_and_comes_back(scene):
    prometheus, pages, kafka = scene.prometheus, scene.pages, scene.kafka
    until(pages.is_ready, "ready")
    assert "EvalsinkConsumerStalled" not in firing(prometheus)
    health = set()

    def look(condition):
        health.add(pages.status("/healthz"))
        return condition()

    kafka.stop()
    until(lambda: look(lambda: "EvalsinkConsumerStalled" in firing(prometheus)), "the alert", every_s=0.2)
    until(lambda: look(lambda: pages.status("/readyz") == 503), "not ready", every_s=0.2)
    answer = pages.json("/readyz")
    assert not answer["ready"]
    assert [one for one in answer["reasons"] if one.startswith("no commit for ")]
    kafka.start()
    until(lambda: look(pages.is_ready), "ready again", timeout_s=150, every_s=0.2)
    until(lambda: "EvalsinkConsumerStalled" not in firing(prometheus), "the alert is over")
    assert {200} == health
