"""`consumer.report.paired`, the scores it reads, and ``evalsink table --baseline``."""

import json
import math

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from consumer.cli import cli, main
from consumer.errors import EvalsinkError
from consumer.report.paired import compare, paired_t_test
from consumer.report.row_scores import read_scores, samples_file
from tests.report import published_run

CURRENT = [1, 0, 1, 1, 0, 1]
BASELINE = [0, 0, 1, 0, 0, 1]


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-15)


class TestPairedT:
    def test_the_worked_case_of_lmms_eval(self):
        test = paired_t_test(CURRENT, BASELINE)
        found = (test.pairs, test.baseline, test.difference, test.stderr, test.low, test.high, test.p_value)
        assert [round(number, 6) for number in found] == [
            6,
            0.333333,
            0.333333,
            0.210819,
            -0.208593,
            0.87526,
            0.174688,
        ]

    # Differences of 1 and -1 in turn, shifted: the mean is the shift, the variance known, so t can be chosen.
    @pytest.mark.parametrize("t", [-40.0, -3.0, 0.125, 1.0, 2.5, 12.0])
    def test_one_degree_of_freedom_is_the_cauchy_distribution(self, t):
        test = paired_t_test([t + 1, t - 1], [0, 0])
        assert test.p_value == pytest.approx(2 / math.pi * math.atan(1 / abs(t)), rel=1e-12)
        assert test.high - test.difference == close(math.tan(math.pi * 0.475))

    @pytest.mark.parametrize("t", [-40.0, -3.0, 0.125, 1.0, 2.5, 12.0])
    def test_two_degrees_of_freedom_have_a_closed_form(self, t):
        test = paired_t_test([t + math.sqrt(3), t, t - math.sqrt(3)], [0, 0, 0])
        assert test.stderr == close(1)
        root = math.sqrt(2 + t * t)
        assert test.p_value == pytest.approx(2 / (root * (root + abs(t))), rel=1e-11)
        assert test.high - test.difference == close(0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)))

    # Computed by scipy 1.17.1: stats.t.ppf(0.975, n - 1) and 2 * stats.t.sf(2.5, n - 1).
    @pytest.mark.parametrize(
        ("pairs", "quantile", "p_value"),
        [
            (4, 3.1824463052837078, 0.08770664700806556),
            (30, 2.045229642132703, 0.018325344338426086),
            (1000, 1.9623414611334493, 0.012578727584509217),
            (14000, 1.9601334589928567, 0.012430679884902538),
        ],
    )
    def test_any_number_of_pairs_equals_scipy(self, pairs, quantile, p_value):
        spread = math.sqrt(pairs - 1)
        current = [2.5 + spread * (-1) ** number for number in range(pairs)]
        test = paired_t_test(current, [0.0] * pairs)
        assert test.stderr == close(1)
        assert test.high - test.low == close(2 * quantile)
        assert test.p_value == pytest.approx(p_value, rel=1e-11)

    @pytest.mark.parametrize("number", [0, 1])
    def test_fewer_than_two_pairs_say_nothing(self, number):
        assert paired_t_test([1.0] * number, [0.0] * number) is None

    @pytest.mark.parametrize(("current", "p_value"), [([1, 1], 0.0), ([0, 0], 1.0)])
    def test_differences_that_are_all_equal_leave_no_doubt(self, current, p_value):
        test = paired_t_test(current, [0, 0])
        assert (test.p_value, test.low, test.high, test.stderr) == (p_value, current[0], current[0], 0)

    def test_series_of_different_length_are_refused(self):
        with pytest.raises(ValueError, match="zip"):
            paired_t_test([1, 2, 3], [1, 2])

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20), st.randoms())
    def test_order_is_nothing_to_it_and_swapping_the_runs_turns_the_sign(self, pairs, random):
        test = paired_t_test(*zip(*pairs, strict=True))
        shuffled = random.sample(pairs, len(pairs))
        assert paired_t_test(*zip(*shuffled, strict=True)) == test
        swapped = paired_t_test(*reversed(list(zip(*pairs, strict=True))))
        assert (swapped.difference, swapped.low, swapped.high) == (-test.difference, -test.high, -test.low)
        assert swapped.p_value == test.p_value
        assert 0 <= test.p_value <= 1


def write(path, rows, *, values=None, **document):
    """An lmms-eval run of one task, mme; `rows` are its samples as objects or bytes. Returns the results JSON."""
    path.mkdir(parents=True, exist_ok=True)
    results = path / "20260101_000000_results.json"
    values = {"acc,none": 2 / 3} if values is None else values
    document = {"results": {"mme": {"alias": "mme", **values}}, "n-shot": {"mme": 0}, **document}
    results.write_text(json.dumps(document))
    if rows is not None:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (path / "20260101_000000_samples_mme.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return results


def by_id(scores, metric="acc", start=0):
    return [{"doc_id": doc_id, metric: score} for doc_id, score in enumerate(scores, start)]


def scores_of(results, task="mme"):
    document = json.loads(results.read_bytes())
    return read_scores(samples_file(results, document, task), document, task)


class TestScores:
    @pytest.mark.parametrize(
        ("value", "score"),
        [
            (0.5, 0.5),
            (2, 2.0),
            (True, 1.0),
            (False, 0.0),
            ([1, 0, 0, 1], 0.5),
            ({"question_id": 7, "score": 1.5}, 1.5),
            ({"category": "x", "mme_score": 0.25, "other_score": 9}, 0.25),
            ({"score": 1, "mme_score": 0.25}, 1.0),
        ],
    )
    def test_a_score_is_a_number_a_mean_of_repeats_or_a_field(self, tmp_path, value, score):
        assert scores_of(write(tmp_path, [{"doc_id": 3, "acc": value}])) == {"acc,none": {3: score}}

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "1",
            [],
            [1, "x"],
            {},
            {"answer": 3},
            {"score": "1"},
            10**400,
            b"NaN",
            b"[1, Infinity]",
            b"1e999",
        ],
    )
    def test_anything_else_is_none(self, tmp_path, value):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        rows = [b'{"doc_id": 1, "acc": 1}', b'{"doc_id": 2, "acc": %s}' % text]
        assert scores_of(write(tmp_path, rows)) == {"acc,none": {1: 1.0}}

    def test_the_tasks_own_score_key_comes_first(self, tmp_path):
        rows = [{"doc_id": 1, "acc": {"score": 1, "points": 7}}]
        results = write(tmp_path, rows, configs={"mme": {"score_key": "points"}})
        assert scores_of(results) == {"acc,none": {1: 7.0}}

    def test_rows_without_a_doc_id_that_identifies_are_passed_over_and_1_is_not_the_text_1(self, tmp_path):
        rows = [{"doc_id": doc_id, "acc": 1} for doc_id in (1, "1", True, 1.5, None, [1])] + [{"acc": 1}]
        assert scores_of(write(tmp_path, rows)) == {"acc,none": {1: 1.0, "1": 1.0}}

    def test_rows_say_their_filter_or_their_order_does(self, tmp_path):
        values = {"acc,strict": 1, "acc,flexible": 1}
        named = [
            {"doc_id": 1, "filter": "flexible", "acc": 1},
            {"doc_id": 1, "filter": "strict", "acc": 0},
        ]
        nameless = [{"doc_id": 1, "acc": 0}, {"doc_id": 1, "acc": 1}]
        expected = {"acc,strict": {1: 0.0}, "acc,flexible": {1: 1.0}}
        assert scores_of(write(tmp_path / "named", named, values=values)) == expected
        assert scores_of(write(tmp_path / "nameless", nameless, values=values)) == expected

    def test_rows_whose_filter_nobody_can_know_have_no_scores(self, tmp_path):
        assert (
            scores_of(write(tmp_path / "a", by_id([1, 1]), values={"acc,strict": 1, "acc,flexible": 1})) == {}
        )
        assert scores_of(write(tmp_path / "b", by_id([1, 1]) * 2)) == {}

    def test_a_published_run_says_the_filter_of_every_row_and_the_name_of_its_files(self, tmp_path):
        rows = {
            "t/1": {
                "strict": [
                    b'{"doc_id": 1, "doc_hash": "a", "acc": 1}',
                    b'{"doc_id": 2, "doc_hash": "b", "acc": 0}',
                ],
                "flexible": [b'{"doc_id": 1, "doc_hash": "a", "acc": 0.5}'],
            }
        }
        path = published_run.publish(tmp_path, rows=rows)
        published_run.edit(path, "results", value={"t/1": {"acc,flexible": 0.5, "acc,strict": 0.5}})
        assert scores_of(path, "t/1") == {"acc,strict": {1: 1.0, 2: 0.0}, "acc,flexible": {1: 0.5}}

    def test_files_of_lm_eval_are_found_too(self, tmp_path):
        results = tmp_path / "results_2026-01-01T00-00-00.123456.json"
        samples = tmp_path / "samples_gsm8k_2026-01-01T00-00-00.123456.jsonl"
        samples.touch()
        assert samples_file(results, {}, "gsm8k") == samples
        assert samples_file(results, {}, "mme") is None

    def test_no_name_in_a_results_json_leads_out_of_its_folder(self, tmp_path):
        (tmp_path / "secret").touch()
        (tmp_path / "run").mkdir()
        document = {"evalsink": {"tasks": {"mme": {"file": "../secret"}}}}
        assert samples_file(tmp_path / "run" / "x_results.json", document, "mme") is None

    @pytest.mark.parametrize("line", [b"{", b"[]", b"\xff", b"[" * 100_000])
    def test_a_line_that_is_no_object_is_named(self, tmp_path, line):
        with pytest.raises(EvalsinkError, match="line 2"):
            scores_of(write(tmp_path, [{"doc_id": 1, "acc": 1}, line]))


class TestCompare:
    @staticmethod
    def compare(current, baseline):
        return compare(current, json.loads(current.read_bytes()), baseline, json.loads(baseline.read_bytes()))

    def test_rows_are_paired_by_doc_id_whatever_their_order(self, tmp_path):
        current = write(tmp_path / "a", by_id(CURRENT))
        baseline = write(tmp_path / "b", by_id(BASELINE)[::-1])
        found = self.compare(current, baseline)
        assert found.tests == {"mme": {"acc,none": paired_t_test(CURRENT, BASELINE)}}
        assert found.notes == []

    def test_a_value_in_per_cent_puts_all_of_it_in_per_cent(self, tmp_path):
        current = write(tmp_path / "a", by_id(CURRENT), values={"acc,none": 66.67})
        baseline = write(tmp_path / "b", by_id(BASELINE), values={"acc,none": 33.33})
        test = self.compare(current, baseline).tests["mme"]["acc,none"]
        # Interval and p value by scipy 1.17.1: stats.ttest_rel, its interval times 100.
        assert (test.baseline, test.difference, test.low, test.high) == tuple(
            map(close, (100 / 3, 100 / 3, -20.859290083115617, 87.52595674978227))
        )
        assert test.p_value == close(0.17468781426411942)

    @pytest.mark.parametrize(("other_value", "factor"), [(50.0, 100), (0.5, 1), ("N/A", 1)])
    def test_of_zero_the_baseline_tells_the_scale(self, tmp_path, other_value, factor):
        current = write(tmp_path / "a", by_id([0, 0, 0, 0]), values={"acc,none": 0.0})
        baseline = write(tmp_path / "b", by_id([1, 0, 1, 0]), values={"acc,none": other_value})
        assert self.compare(current, baseline).tests["mme"]["acc,none"].difference == close(-0.5 * factor)

    @pytest.mark.parametrize("value", [1675.25, 0.68, 66.0, "N/A", True])
    def test_a_value_that_is_no_mean_is_said_to_be_on_another_scale(self, tmp_path, value):
        current = write(tmp_path / "a", by_id(CURRENT), values={"acc,none": value})
        found = self.compare(current, write(tmp_path / "b", by_id(BASELINE)))
        assert found.tests["mme"]["acc,none"].difference == close(1 / 3)
        assert len(found.notes) == 1
        assert "mme acc,none: Value is no mean" in found.notes[0]

    def test_rows_without_a_partner_are_counted(self, tmp_path):
        current = write(tmp_path / "a", by_id(CURRENT))
        baseline = write(tmp_path / "b", by_id([*BASELINE, 1], start=1))
        found = self.compare(current, baseline)
        assert found.tests["mme"]["acc,none"].pairs == 5
        assert found.notes == [
            "mme acc,none: 5 rows in pairs; 1 of this run and 2 of the baseline have no partner"
        ]

    def test_a_task_without_samples_or_common_rows_is_said_not_to_be_compared(self, tmp_path):
        current = write(tmp_path / "a", by_id(CURRENT))
        absent = self.compare(current, write(tmp_path / "b", None))
        assert absent.tests == {}
        assert "mme is not compared: no samples file" in absent.notes[0]
        assert str(tmp_path / "b") in absent.notes[0]
        apart = self.compare(current, write(tmp_path / "c", by_id(BASELINE, start=100)))
        assert apart.tests == {"mme": {}}
        assert apart.notes == ["mme is not compared: the rows of both have no score in common"]

    def test_a_group_of_tasks_has_no_rows_and_no_note(self, tmp_path):
        entries = {"all": {"alias": "all", "acc,none": 0.5}, "bare": {"alias": "bare", " ": " "}}
        group = {"results": entries, "groups": {"all": {"acc,none": 0.5}}}
        current = write(tmp_path / "a", None, **group)
        found = self.compare(current, current)
        assert (found.tests, found.notes) == ({}, [])


class TestCommand:
    def test_value_baseline_difference_and_interval_are_on_one_scale(self, tmp_path):
        current = write(tmp_path / "a", by_id(CURRENT))
        baseline = write(tmp_path / "b", by_id(BASELINE))
        result = CliRunner().invoke(cli, ["table", str(current), "--baseline", str(baseline)])
        assert result.exit_code == 0
        assert result.stdout == (
            "|Tasks|Filter|n-shot|Metric|   |Value |   |Stderr|Baseline| Diff  |        CI        |P_Value|\n"
            "|-----|------|-----:|------|---|-----:|---|------|--------|-------|------------------|-------|\n"
            "|mme  |none  |     0|acc   |   |0.6667|±  |N/A   |0.3333  |+0.3333|[-0.2086, +0.8753]|0.1747 |\n"
            "\n"
            f"Baseline: {baseline}; paired t test by doc_id, 95% confidence\n"
        )

    def test_a_star_marks_significance_and_stored_comparisons_do_not_show(self, tmp_path):
        stored = {"paired_baseline": "old", "paired_baseline_score": 50.0, "paired_pvalue": 0.9}
        values = {"acc,none": 0.95, "f1,none": 0.5, **stored}
        current = write(tmp_path / "a", by_id([1] * 19 + [0]), values=values)
        baseline = write(tmp_path / "b", by_id([0] * 20))
        result = CliRunner().invoke(cli, ["table", str(current), "--baseline", str(baseline)])
        assert "0.0000*" in result.stdout
        assert "old" not in result.stdout
        [f1] = [line for line in result.stdout.splitlines() if "|f1 " in line]
        assert [cell.strip() for cell in f1.split("|")[-5:-1]] == ["N/A"] * 4

    def test_what_cannot_be_compared_leaves_the_table_and_a_note(self, tmp_path):
        current = write(tmp_path / "a", None)
        result = CliRunner().invoke(cli, ["table", str(current), "--baseline", str(current)])
        assert result.exit_code == 0
        assert "P_Value" not in result.stdout
        assert "- mme is not compared" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--baseline", "nowhere.json"], "cannot read"),
            (["--baseline", "{}", "--column", "groups"], "--column"),
        ],
    )
    def test_a_wrong_call_is_exit_code_2(self, tmp_path, capsys, arguments, message):
        current = write(tmp_path / "a", by_id(CURRENT))
        with pytest.raises(SystemExit) as exited:
            main(["table", str(current), *(argument.format(current) for argument in arguments)])
        assert exited.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_torn_samples_file_is_exit_code_1(self, tmp_path, capsys):
        current = write(tmp_path / "a", [b'{"doc_id": 1, "ac'])
        with pytest.raises(SystemExit) as exited:
            main(["table", str(current), "--baseline", str(current)])
        assert exited.value.code == 1
        assert "line 1" in capsys.readouterr().err
