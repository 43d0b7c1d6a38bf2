"""The table for people is Markdown that others' names add nothing to: no HTML, no images, no links, no lines."""

import html
import json

import pytest

from consumer.assembly import tools
from consumer.filesystem import Disk
from consumer.settings import Settings
from tests.report.published_run import publish
from tests.report.test_results_table import GOLDEN

HOSTILE = "x\n\n# Owned\n<script>alert(1)</script> ![i](http://t.invalid/x.png) [l](javascript:x)|\x1b[2J\u202e\u2028y"


def page(results):
    """What is published as `{stem}_results.md`."""
    return tools(Settings(), "worker", Disk()).render_table(results)


@pytest.mark.parametrize("column", ["results", "groups"])
def test_names_and_values_of_producers_are_text_in_the_table(column):
    results = {
        "results": {"t": {"alias": "t", "acc,none": 1.0}},
        column: {HOSTILE: {"alias": HOSTILE, f"m{HOSTILE},f{HOSTILE}": HOSTILE, "paired_baseline": HOSTILE}},
        "versions": {HOSTILE: HOSTILE},
        "n-shot": {HOSTILE: HOSTILE},
        "throughput": {HOSTILE: HOSTILE},
    }
    said = page(results)
    assert "<" not in said
    assert "](" not in said
    assert all(line.isprintable() for line in said.splitlines())
    assert {"|", "", "T"} == {line[:1] for line in said.splitlines()}, "rows, nothing, the heading of ours"
    # It can still be read.
    assert "<script>alert(1)</script>" in html.unescape(said)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_tables_of_harmless_names_stay_as_lmms_eval_makes_them(path):
    results = json.loads(path.read_bytes())
    if isinstance(results.get("results"), dict):
        assert "&lt;" not in page(results)
        assert "&#40;" not in page(results)


def test_the_example_run_has_a_page(tmp_path):
    assert page(json.loads(publish(tmp_path).read_bytes())).startswith("|")
