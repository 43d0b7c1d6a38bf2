"""A real worker's pages over HTTP: its figures are what was sent, its loop is what /healthz says."""

import socket
import threading
from contextlib import suppress

import pytest

from consumer import assembly
from consumer.cli.worker import command
from consumer.monitoring import Monitor
from consumer.settings import DEFAULT_HTTP
from consumer.telemetry.exporter import Request
from schemas.events import encode
from tests.acceptance.conftest import evalsink, topic_settings
from tests.hand_over.processes import workers, write_config
from tests.monitoring.asking import Pages
from tests.monitoring.conftest import Scrape
from tests.observing import Sending, until
from tests.worker.evaluation import Evaluation, run_ids

pytestmark = pytest.mark.kafka


def config(stage, **settings):
    return write_config(
        stage.folder / "settings.toml",
        stage.broker.bootstrap,
        stage.topics,
        **{
            "group": stage.group,
            "checkpoint_interval_s": 0.1,
            "session_timeout_ms": 6000,
            "poll_timeout_ms": 100,
            **settings,
        },
    )


def ask(monitor, path):
    return monitor.routes[path](Request(path, "", {}))


def lags(scrape):
    return [value for (name, _), value in scrape.values.items() if name == "evalsink_lag_records"]


def test_the_figures_are_what_was_sent_read_and_published(real_stage):
    stage, pages = real_stage, Pages()
    evaluation = Evaluation("r", tasks=[("mme", 30)], shards=3)
    batch = next(evaluation.batches(1))
    garbage = [Sending(stage.topics.samples, b"k", b"garbage")] * 2
    torn = encode(batch).replace(b'"row":{', b'"row":7,"was":{', 1)
    bad_rows = Sending(stage.topics.samples, b"r", torn)
    *body, last = evaluation.events()
    sent = [stage.record(event) for event in (*body, batch)]
    stage.send([*sent, *garbage, bad_rows])
    with workers(config(stage), stage.folder / "output", "--http", pages.address) as start:
        worker = start(stage.folder / "state")
        worker.until(pages.is_ready, "ready")
        records = [*sent, *garbage, bad_rows]
        in_samples = [one for one in records if one.topic == stage.topics.samples]

        def count(name, **labels):
            return pages.scrape().value(f"evalsink_{name}", **labels)

        worker.until(
            lambda: count("records_total", topic=stage.topics.samples) == len(in_samples), "all read"
        )
        [run] = pages.json("/runs")["runs"]
        assert ("r", "open", 3, 2) == tuple(run[name] for name in ("run_id", "status", "shards", "ended"))
        [task] = run["tasks"]
        score = task["scores"]["none"]["acc"]
        assert (30, 35) == (task["expected"], score["n"])
        stage.send([last])
        worker.until(lambda: count("runs_closed_total", status="complete") == 1, "closed")
        worker.until(lambda: pages.json("/runs")["runs"] == [], "no open run is left")
        # How things stand is told once a second.
        worker.until(lambda: {0} == set(lags(pages.scrape())), "no lag")
        scrape = pages.scrape()
    in_samples.append(stage.record(last))
    in_aggregates = [one for one in records if one.topic == stage.topics.aggregates]
    for topic, some in ((stage.topics.samples, in_samples), (stage.topics.aggregates, in_aggregates)):
        assert len(some) == scrape.value("evalsink_records_total", topic=topic)
        size = sum(len(one.value) for one in some)
        assert size == scrape.value("evalsink_read_bytes_total", topic=topic)
    published = sum(len(content) for name, content in stage.tree().items() if "_samples_" in name)
    expected = {
        "rows_total": 30 + 3 + 2,
        "rejected_rows_total": 1,
        "published_rows_total": 30,
        "published_bytes_total": published,
        "duplicate_rows_total": 5,
        "event_age_seconds_count": len(in_samples) + len(in_aggregates),
        "close_out_seconds_count": 1,
        "observer_failures_total": 0,
        "owned_partitions": 4,
        "ready": 1,
    }
    assert expected == {name: scrape.value(f"evalsink_{name}") for name in expected}
    letters = {
        reason: scrape.value("evalsink_dead_letters_total", reason=reason)
        for reason in ("not-json", "bad-rows", "late")
    }
    assert {"not-json": 2, "bad-rows": 1, "late": 0} == letters
    assert [0] * 8 == lags(scrape)


def partitions(scrape):
    return {dict(labels)["partition"] for name, labels in scrape.series if name == "evalsink_lag_records"}


def test_lag_follows_the_partitions_from_worker_to_worker(real_stage):
    stage, first, second = real_stage, Pages(), Pages()
    with workers(config(stage, session_timeout_ms=6000), stage.folder / "output") as start:
        one = start(stage.folder / "one", "--http", first.address)
        one.until(lambda: first.is_ready() and len(partitions(first.scrape())) == 4, "four partitions")
        two = start(stage.folder / "two", "--http", second.address)
        two.until(lambda: second.is_ready() and len(partitions(second.scrape())) == 2, "two of them")
        one.until(lambda: len(partitions(first.scrape())) == 2, "two are left")
        assert {"0", "1", "2", "3"} == partitions(first.scrape()) | partitions(second.scrape())
        two.kill()
        one.until(lambda: len(partitions(first.scrape())) == 4, "four again")
        assert first.scrape().value("evalsink_rebalances_total", change="lost") >= 1


def test_lag_is_what_was_not_read_yet(real_stage):
    stage = real_stage
    run_id = next(run_ids(2))
    places = stage.send(Evaluation(run_id).body())
    monitor = Monitor(stage.settings(http="127.0.0.1:0", poll_records_max=1))
    heard = []
    with assembly.worker(
        stage.settings(poll_records_max=1), observe=lambda one: (monitor.observe(one), heard.append(one))
    ) as worker:
        monitor.attach(worker)
        until(worker.tick, "the first record", every_s=0)
        worker._stood_at = float("-inf")
        worker._tell([])
        lag = heard[-1].lag
        in_samples = sum(one.topic == stage.topics.samples for one in places)
        read = worker.counts.records
        behind = sum(records for place, records in lag.items() if place.partition == 2)
        assert len(places) - read == behind
        assert in_samples > 1
        until(lambda: not worker.tick() and worker.counts.records == len(places), "all", every_s=0)
        worker._stood_at = float("-inf")
        worker._tell([])
        assert {0} == set(heard[-1].lag.values())


def test_the_series_are_as_many_after_500_runs_as_before(real_stage):
    stage = real_stage
    monitor = Monitor(stage.settings(http="127.0.0.1:0"))

    def series():
        return Scrape(ask(monitor, "/metrics").body.decode()).series

    with assembly.worker(stage.settings(), observe=monitor.observe, window=monitor.window) as worker:
        monitor.attach(worker)

        def closed(number):
            return lambda: worker.tick() is not None and worker.counts.closed == number

        stage.send(Evaluation("first", tasks=[("t", 2)], shards=1).events())
        until(closed(1), "one run", every_s=0)
        until(lambda: worker.tick() is not None and monitor._metrics.standing.owned, "standing", every_s=0)
        before = series()
        runs = [Evaluation(f"run-{number}", tasks=[(f"t{number}", 2)], shards=1) for number in range(500)]
        stage.send([event for run in runs for event in run.events()])
        until(closed(501), "all runs", every_s=0, timeout_s=200)
        after = series()
    assert before == after
    assert len(after) > 100


def test_a_loop_that_stands_still_is_not_healthy_until_it_moves_again(real_stage):
    stage = real_stage
    monitor = Monitor(stage.settings(http="127.0.0.1:0", watchdog_s=2.0))
    stands, go_on = threading.Event(), threading.Event()

    def on_tick():
        if stands.is_set():
            assert go_on.wait(60)

    def work():  # whole in its thread: the table of receipts is bound to one
        with assembly.worker(stage.settings(), observe=monitor.observe) as worker:
            monitor.attach(worker)
            running.append(worker)
            worker.run(on_tick=on_tick)

    def health():
        return ask(monitor, "/healthz").status

    running = []
    loop = threading.Thread(target=work)
    loop.start()
    try:
        until(lambda: running and running[0].turns > 3, "the loop moves")
        assert 200 == health()
        stands.set()
        until(lambda: health() == 503, "it stands still")
        stands.clear()
        go_on.set()
        until(lambda: health() == 200, "it moves again")
    finally:
        go_on.set()
        for worker in running:
            worker.stop()
        loop.join()


def test_an_address_that_was_given_and_is_taken_is_a_wrong_call_and_leaves_nothing_behind(
    real_stage, tmp_path
):
    settings = topic_settings(real_stage.topics)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        call = ("worker", "--brokers", real_stage.broker.bootstrap, "--state", tmp_path / "state")
        for flags, more in ((("--http", address), {}), ((), {"EVALSINK_HTTP": address})):
            done = evalsink(*call, *flags, code=2, cwd=tmp_path, **settings, **more)
            assert f"cannot listen on {address}: Address already in use" in done.stderr
            assert "--http" in done.stderr
        assert 2 == evalsink(*call, "--http", "nonsense", code=2, cwd=tmp_path, **settings).returncode
    assert [] == list(tmp_path.iterdir())


def test_the_default_address_that_is_taken_is_a_warning_and_the_work_goes_on(real_stage):
    host, _, port = DEFAULT_HTTP.partition(":")

    def take():
        with suppress(OSError):
            return socket.create_server((host, int(port)))

    try:
        taken = until(take, "the address, which other tests' workers take for a while", timeout_s=20)
    except AssertionError:
        taken = socket.socket()  # somebody else has had it all the time: as good
    real_stage.send(Evaluation("r").events())
    with taken, workers(config(real_stage), real_stage.folder / "output", "--exit-when-idle", "0.2") as start:
        worker = start(real_stage.folder / "state")
        assert 0 == worker.exit_code()
        [line] = worker.lines("http_unavailable")
        assert ("warning", True) == (line["level"], DEFAULT_HTTP in line["reason"])
        assert worker.lines("run_closed")


def test_an_empty_address_is_none(real_stage):
    options = ("--exit-when-idle", "0.2", "--http", "")
    with workers(config(real_stage), real_stage.folder / "output", *options) as start:
        worker = start(real_stage.folder / "state")
        assert 0 == worker.exit_code()
        assert [] == worker.lines("http_listening") + worker.lines("http_unavailable")
        assert ["worker_started"] == [line["action"] for line in worker.lines("worker_started")]


def test_the_option_is_documented():
    [option] = [one for one in command.params if "--http" in one.opts]
    assert DEFAULT_HTTP in option.help
