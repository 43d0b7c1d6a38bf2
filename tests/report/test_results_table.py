"""`consumer.report.table` and ``evalsink table``: byte equality with lmms-eval's ``make_table``.

``golden/NAME.json`` are results made up for this test; ``golden/NAME.md`` is the text that lmms-eval 0.7.3's own
``lmms_eval.utils.make_table`` returned for each (column ``groups`` for groups.json, ``results`` otherwise) with
pytablewriter 1.2.1. Where lmms-eval is installed, the same function is asked again, on more input.
"""

import copy
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.cli import cli, main
from consumer.errors import UsageError
from consumer.report.table import render

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
REALDATA = Path(__file__).parents[3] / "shared" / "realdata"


def column_of(path: Path):
    return "groups" if path.stem == "groups" else "results"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_table_equals_the_one_lmms_eval_made(path):
    assert path.with_suffix(".md").read_text() == render(json.loads(path.read_text()), column=column_of(path))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_rendering_does_not_change_its_input(path):
    results = json.loads(path.read_text())
    before = repr(results)
    render(results, column=column_of(path), version_column=True)
    assert before == repr(results)


def test_the_version_column_stands_between_name_and_filter():
    results = {
        "results": {"a": {"alias": "A", "acc,none": 0.5}, "b": {"acc,none": 1.0}},
        "versions": {"a": "Yaml", "b": None},
        "n-shot": {"a": 0, "b": 5},
    }
    expected = (
        "|Tasks|Version|Filter|n-shot|Metric|   |Value|   |Stderr|\n"
        "|-----|-------|------|-----:|------|---|----:|---|------|\n"
        "|A    |Yaml   |none  |     0|acc   |   |  0.5|±  |N/A   |\n"
        "|b    |N/A    |none  |     5|acc   |   |  1.0|±  |N/A   |\n"
    )
    assert expected == render(results, version_column=True)


@pytest.mark.parametrize("key", ["n-shot", "versions", "higher_is_better", "throughput"])
@pytest.mark.parametrize("value", [None, 5, "x", [], {"a": None}])
def test_keys_that_are_missing_or_odd_never_raise(key, value):
    results = {"results": {"a": {"acc,none": 0.5}, "b": None, "c": 7}, key: value}
    assert "|acc   |" in render(results, version_column=True)


def test_an_integer_beyond_any_float_is_shown_and_has_no_difference():
    results = {
        "results": {"a": {"acc,none": 10**400, "acc_stderr,none": 10**400, "paired_baseline_score": 0.5}}
    }
    assert str(10**400) in render(results)


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no 'groups'"):
        render({"results": {}}, column="groups")


values = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["N/A", "", "0.4800", "nan", "a|b", "日本語", "1e5", "12%"])
    | st.lists(st.integers(0, 3), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=1)
)
suffixes = st.sampled_from(
    ["", "", "", "_stderr", "_stderr_clt", "_stderr_clustered", "_expected_accuracy", "_consistency_rate"]
)
keys = (
    st.builds(
        "{}{},{}".format, st.sampled_from(["acc", "f1", "μ"]), suffixes, st.sampled_from(["none", "strict"])
    )
    | st.sampled_from(
        ["alias", " ", "sample_len", "paired_baseline", "paired_baseline_score", "paired_pvalue"]
    )
    | st.sampled_from(["paired_ci_lower", "paired_ci_upper"])
)
names = st.sampled_from(["mme", "gsm8k", " - x"])
directions = st.dictionaries(st.sampled_from(["acc", "f1"]), st.none() | st.booleans(), max_size=2)
result_files = st.fixed_dictionaries(
    {
        "results": st.dictionaries(names, st.dictionaries(keys, values, max_size=8), max_size=3),
        "n-shot": st.dictionaries(names, values, max_size=2),
    },
    optional={
        "versions": st.dictionaries(names, values, max_size=2),
        "higher_is_better": st.dictionaries(names, directions, max_size=2),
        "throughput": st.dictionaries(
            st.sampled_from(["avg_speed", "total_gen_tokens", "b", "a"]), values, max_size=3
        ),
    },
)
few_slow_examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few_slow_examples
@given(result_files, st.booleans())
def test_any_results_render_as_a_table(results, version_column):
    text = render(results, version_column=version_column)
    assert text.split("|")[1].strip() == "Tasks"
    assert text.endswith("|\n")


@pytest.fixture(scope="module")
def make_table():
    reason = "lmms-eval is not installed; the golden files stand in for it"
    return pytest.importorskip("lmms_eval.utils", reason=reason, exc_type=ImportError).make_table


class TestAgainstLmmsEval:
    """Where lmms-eval is installed (it brings torch with it, so development machines seldom have it)."""

    @pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
    def test_the_golden_tables_are_still_what_it_makes(self, make_table, path):
        assert (
            make_table(json.loads(path.read_text()), column_of(path)) == path.with_suffix(".md").read_text()
        )

    @few_slow_examples
    @given(results=result_files)
    def test_any_results_give_its_table(self, make_table, results):
        assert make_table(copy.deepcopy(results)) == render(results)

    @pytest.mark.skipif(not REALDATA.is_dir(), reason="the folder ../shared/realdata is absent")
    @pytest.mark.parametrize("path", sorted(REALDATA.rglob("*results*.json")), ids=lambda path: path.stem)
    def test_real_results_give_its_table(self, make_table, path):
        results = json.loads(path.read_bytes())
        for column in sorted({"results", "groups"} & results.keys()):
            assert make_table(copy.deepcopy(results), column) == render(results, column=column)


@pytest.mark.skipif(not REALDATA.is_dir(), reason="the folder ../shared/realdata is absent")
@pytest.mark.parametrize("path", sorted(REALDATA.rglob("*results*.json")), ids=lambda path: path.stem)
def test_real_results_of_both_harnesses_render(path):
    assert render(json.loads(path.read_bytes()), version_column=True).startswith("|")


class TestCommand:
    def test_it_prints_the_table_as_print_does(self):
        path = next(path for path in GOLDEN if path.stem == "group-of-tasks")
        result = CliRunner().invoke(cli, ["table", str(path)])
        assert (0, path.with_suffix(".md").read_text() + "\n") == (result.exit_code, result.stdout)

    def test_groups_and_version_column_can_be_asked_for(self):
        path = next(path for path in GOLDEN if path.stem == "groups")
        result = CliRunner().invoke(cli, ["table", str(path), "--column", "groups", "--version-column"])
        assert result.stdout.startswith("|Groups|Version|")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "cannot read"),
            (b"{", "is not JSON"),
            (b"\xff\xfe\xfa", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b"[]", "expected an object"),
            (b"{}", "no 'results'"),
            (b'{"results": []}', "no 'results'"),
        ],
    )
    def test_what_is_no_results_file_is_refused_with_exit_code_2(self, tmp_path, capsys, content, message):
        path = tmp_path / "x_results.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SystemExit) as exited:
            main(["table", str(path)])
        assert exited.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_folder_is_refused_with_exit_code_2(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as exited:
            main(["table", str(tmp_path)])
        assert exited.value.code == 2
        assert "cannot read" in capsys.readouterr().err
