"""The page of figures: goals met, missed and open, and its plots."""

import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks import goals, report
from tests.docs.pages import ROOT, rows

SPREAD = {"low": 1.0, "median": 2.0, "high": 3.0}
MACHINE = {
    "cpu": "Any & all",
    "cores": 2,
    "memory_gb": 8.0,
    "kernel": "6.1",
    "python": "3.11.2",
    "packages": {"evalsink": "0.1.0"},
    "load_before": 0.1,
}


def spread(median):
    return {"low": median * 0.9, "median": median, "high": median * 1.1}


def contender(name, *, rows_per_s, cpu_s, is_equal_work=True):
    return {
        "contender": name,
        "version": "1",
        "work": "some",
        "is_equal_work": is_equal_work,
        "rows": 2_000_000,
        "rows_per_s": spread(rows_per_s),
        "cpu_s_per_million_rows": spread(cpu_s),
        "rows_per_s_to_bare": spread(rows_per_s / 200_000),
        "peak_mb": 100.0,
    }


def figures():
    """Such as reach every goal."""
    load = [
        contender("bare loop", rows_per_s=200_000, cpu_s=5, is_equal_work=False),
        contender("evalsink", rows_per_s=170_000, cpu_s=6),
        contender("slow peer", rows_per_s=10_000, cpu_s=60),
        contender("lazy peer", rows_per_s=900_000, cpu_s=1, is_equal_work=False),
    ]
    batched = [load[0], contender("evalsink", rows_per_s=420_000, cpu_s=2), dict(load[2])]
    found = {
        "throughput": {"loads": {"1KB-single": load, "1KB-by-20": batched}},
        "closeout": {
            "rows": 1_000_000,
            "duplicates": 0.05,
            "bytes": 10**9,
            "ways": [
                {"way": "copy", "seconds": spread(2.0), "cpu_s": 1.0, "peak_mb": 7.0},
                {
                    "way": "evalsink",
                    "seconds": spread(2.5),
                    "seconds_to_copy": spread(1.25),
                    "cpu_s": 2.0,
                    "peak_mb": 150.0,
                },
            ],
        },
        "open_runs": {
            "rows": 1_000_000,
            "runs": [
                {
                    "runs": runs,
                    "rows_per_s": spread(100_000),
                    "rows_per_s_to_fewest": spread(ratio),
                    "cpu_s_per_million_rows": spread(6),
                    "peak_mb": 120.0,
                }
                for runs, ratio in ((1, 1.0), (1000, 0.9))
            ],
        },
        "visible": {
            "timed": 100,
            "rows_of_a_run": 10_000,
            "rows_per_s_meanwhile": 90_000,
            "p50_ms": 100.0,
            "p99_ms": 250.0,
            "max_ms": 260.0,
            "all_ms": [100.0] * 60 + [250.0] * 39 + [260.0],
        },
        "restart": {
            "row_bytes": 200,
            "spools": [
                {
                    "rows": 10_000_000,
                    "runs": runs,
                    "first_poll_s": spread(1.0),
                    "first_row_s": spread(1.2),
                    "peak_mb": 90.0,
                    **closing,
                }
                for runs, closing in ((1000, {}), (1, {"closing": {"seconds": 20.0, "peak_mb": 180.0}}))
            ],
        },
        "crash": {
            "rows": 1_000_000,
            "batch": 1,
            "options": {"kill_at": 0.4, "commit_s": 0.5},
            "contenders": [
                {"contender": "evalsink", "version": "1", "missing": 0, "twice": 0, "cut_lines": 0}
            ],
        },
    }
    return {name: {"date": "2026-01-01", "machine": MACHINE, **one} for name, one in found.items()}


def verdicts(found):
    return {one.key: one.is_met for one in goals.judge(found, {})}


def test_figures_that_reach_the_goals_meet_all_of_them():
    assert {True} == set(verdicts(figures()).values())


@pytest.mark.parametrize(
    ("key", "worsen"),
    [
        ("single", lambda found: found["throughput"]["loads"]["1KB-single"][1].update(rows_per_s_to_bare=spread(0.79))),
        ("peers-single", lambda found: found["throughput"]["loads"]["1KB-single"][2].update(cpu_s_per_million_rows=spread(5.9))),
        ("peers-batched", lambda found: found["throughput"]["loads"]["1KB-by-20"][2].update(cpu_s_per_million_rows=spread(1.9))),
        ("batched", lambda found: found["throughput"]["loads"]["1KB-by-20"][1].update(rows_per_s=spread(399_000))),
        ("closeout", lambda found: found["closeout"]["ways"][1].update(seconds_to_copy=spread(1.31))),
        ("closeout-memory", lambda found: found["closeout"]["ways"][1].update(peak_mb=201)),
        ("runs-memory", lambda found: found["open_runs"]["runs"][1].update(peak_mb=301)),
        ("rows-memory", lambda found: found["restart"]["spools"][1]["closing"].update(peak_mb=301)),
        ("visible", lambda found: found["visible"].update(p99_ms=301)),
        ("restart", lambda found: found["restart"]["spools"][1].update(first_poll_s=spread(2.1))),
        ("runs-throughput", lambda found: found["open_runs"]["runs"][1].update(rows_per_s_to_fewest=spread(0.84))),
    ],
)  # fmt: skip  # a line a goal
def test_a_figure_short_of_its_goal_misses_that_goal_alone(key, worsen):
    found = figures()
    worsen(found)
    assert [key] == [name for name, is_met in verdicts(found).items() if not is_met]
    assert verdicts(found)[key] is False


def test_a_goal_is_open_where_nothing_or_too_little_was_measured():
    assert {None} == set(verdicts({}).values())
    found = figures()
    found["restart"]["spools"][0]["rows"] = 100_000
    found["closeout"]["rows"] = 100_000
    found["open_runs"]["runs"][1]["runs"] = 10
    assert {"closeout", "closeout-memory", "runs-memory", "runs-throughput", "rows-memory", "restart"} == {
        key for key, is_met in verdicts(found).items() if is_met is None
    }


def test_the_page_says_why_a_goal_was_missed():
    found = figures()
    found["visible"]["p99_ms"] = 400.0
    page = report.render(found, {"visible": "The disk."})[report.PAGE]
    assert "400 ms" in page
    assert "**missed**" in page
    assert "The disk." in page


def test_every_plot_is_a_picture_that_the_page_shows():
    files = report.render(figures(), {})
    page = files.pop(report.PAGE)
    assert set(files) == set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", page))
    for content in files.values():
        picture = ET.fromstring(content)  # noqa: S314 - our own
        assert picture.tag.endswith("svg")


def test_a_longer_bar_is_a_greater_figure():
    picture = ET.fromstring(report.render(figures(), {})["performance/closeout.svg"])  # noqa: S314 - our own
    _, copied, ours = [float(one.get("width")) for one in picture.iter() if one.tag.endswith("rect")]
    assert pytest.approx(2.5 / 2.0, rel=0.01) == ours / copied


def test_the_page_in_docs_is_what_the_results_give():
    """Else: make performance-docs."""
    for name, content in report.render(report.load(report.RESULTS), goals.remarks()).items():
        assert content == (ROOT / "docs" / name).read_text("utf-8"), name


def test_remarks_are_of_goals_that_there_are():
    assert set(goals.remarks()) <= set(verdicts({}))


def test_the_readme_has_a_row_for_every_benchmark():
    named = {
        re.search(r"benchmarks\.(\w+)", row[0])[1]
        for row in rows("benchmarks/README.md")
        if "benchmarks." in row[0]
    }
    assert set(report.BENCHMARKS) <= named
