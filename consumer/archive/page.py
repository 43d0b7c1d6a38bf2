"""The page of a dataset card, for people: how to load, the latest figures, where they come from. Pure.

Invariant: what producers wrote stands in it as text, never as Markdown or HTML.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from consumer.archive.figures import ALL, LATEST, RESULTS, SPLITS_MAX, Metrics, newest_of, rows_of
from consumer.archive.listing import ListedRun
from schemas.metrics import MetricRow

_FIGURES_MAX = 1000
_RUNS_MAX = 200
_LEFT_OUT_MAX = 100
_CELL_CHARS_MAX = 120


def write(
    repo_id: str,
    branch: str,
    runs: Sequence[ListedRun],
    metrics: Metrics,
    *,
    example: str | None,
    left_out: Mapping[str, str],
) -> str:
    """The page.

    Args:
        repo_id: The repository.
        branch: Its branch.
        runs: All its runs.
        metrics: Their figures.
        example: A configuration of samples to load; None if there is none.
        left_out: Path to why a file is in no configuration, a sentence.
    """
    lines = [
        *_introduction(repo_id, branch, example, with_results=any(rows_of(run, metrics) for run in runs)),
        *_figures(runs, metrics),
        *_provenance(runs, metrics),
        *_left_out(left_out),
    ]
    return "\n".join(lines) + "\n"


def _introduction(repo_id: str, branch: str, example: str | None, *, with_results: bool) -> Iterator[str]:
    yield f"# Evaluation runs: {_text(repo_id)}"
    yield ""
    yield (
        "Finished evaluation runs as lmms-eval and lm-eval write them, archived by evalsink. One folder a "
        "model; of each run a results JSON, its figures as uniform rows (`…_metrics.jsonl`), and a samples "
        "file a task. The key `evalsink` in a results JSON says how complete the run is, and has the sha256 "
        "of its files."
    )
    yield ""
    yield "```python"
    yield "from datasets import load_dataset"
    yield ""
    revision = f", revision={_python(branch)}" if branch != "main" else ""
    repo = _python(repo_id)
    if with_results:
        yield f'figures = load_dataset({repo}, "{RESULTS}", split="{ALL}"{revision})'
    if example is not None:
        yield f'samples = load_dataset({repo}, {_python(example)}, split="{LATEST}"{revision})'
    yield "```"
    yield ""
    yield (
        "A configuration `{model}__{task}` has a split for each run and `latest`, the newest run that is not "
        f"known to be short (at most {SPLITS_MAX:,} runs). `{RESULTS}` has the figures of all runs in "
        f"`{ALL}`, and in `{LATEST}` those of runs that are the newest for one of their tasks."
    )


def _figures(runs: Sequence[ListedRun], metrics: Metrics) -> Iterator[str]:
    """The latest value of every metric."""
    latest: dict[tuple[str, str, str, str], list[tuple[ListedRun, MetricRow]]] = {}
    for run in runs:
        for row in rows_of(run, metrics):
            if row.metric is not None:
                key = (run.folder, row.task or "", row.filter or "", row.metric)
                latest.setdefault(key, []).append((run, row))
    if not latest:
        return
    yield from ("", "## Latest figures", "")
    yield "| Model | Task | Filter | Metric | | Value | | Stderr | n | Date |"
    yield "|---|---|---|---|---|---:|---|---:|---:|---|"
    for key in sorted(latest)[:_FIGURES_MAX]:
        chosen = newest_of((run for run, _ in latest[key]), metrics)
        row = next(row for run, row in latest[key] if run is chosen)
        arrow = {True: "↑", False: "↓", None: ""}[row.higher_is_better]
        count = row.samples if row.samples is not None else row.rows
        cells = [
            *map(_text, key),
            arrow,
            _value(row),
            "±",
            "N/A" if row.stderr is None else f"{row.stderr:.4g}",
            "" if count is None else f"{count:,}",
            _text(chosen.date),
        ]
        yield f"| {' | '.join(cells)} |"
    if len(latest) > _FIGURES_MAX:
        yield ""
        yield f"These are {_FIGURES_MAX:,} of {len(latest):,} figures; the configuration `{RESULTS}` has all."


def _value(row: MetricRow) -> str:
    if row.value is not None:
        return f"{row.value:.6g}"
    return "N/A" if row.value_json is None else _text(row.value_json)


def _provenance(runs: Sequence[ListedRun], metrics: Metrics) -> Iterator[str]:
    if not runs:
        return
    yield from ("", "## Runs", "")
    yield "| Run | Model | Date | Harness | Status | Commit of the harness | sha256 of the results JSON |"
    yield "|---|---|---|---|---|---|---|"
    newest = sorted(runs, key=lambda run: (run.age, run.folder), reverse=True)
    for run in newest[:_RUNS_MAX]:
        row = next(iter(rows_of(run, metrics)), None)
        cells = [run.stem, run.folder, run.date, run.harness, "", "", ""]
        if row is not None:
            cells = [
                row.run_id or run.stem,
                row.model_name or run.folder,
                run.date,
                " ".join(filter(None, (row.harness, row.harness_version))),
                row.status or "",
                row.git_hash or "",
                row.results_sha256,
            ]
        yield f"| {' | '.join(map(_text, cells))} |"
    if len(runs) > _RUNS_MAX:
        yield ""
        yield f"These are the newest {_RUNS_MAX:,} of {len(runs):,} runs."


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    if not left_out:
        return
    yield from ("", "## Without a configuration", "", "| File | Why |", "|---|---|")
    for path, reason in sorted(left_out.items())[:_LEFT_OUT_MAX]:
        yield f"| {_text(path)} | {reason} |"
    if len(left_out) > _LEFT_OUT_MAX:
        yield ""
        yield f"These are {_LEFT_OUT_MAX:,} of {len(left_out):,} files."


def _python(text: str) -> str:
    """A literal; JSON's are Python's."""
    return json.dumps(text)


def is_hidden(char: str) -> bool:
    """Controls, formats (direction marks, zero width), halves of surrogate pairs, ends of lines."""
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _text(text: str) -> str:
    """Text in a table's cell that means nothing to Markdown or HTML."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if is_hidden(char) else char for char in text.strip())
    if len(shown) > _CELL_CHARS_MAX:
        shown = f"{shown[:_CELL_CHARS_MAX]}…"
    return _MEANING.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), shown)


# ASCII but for letters, digits, underscores within words and what is harmless; and what makes a host a link.
_MEANING = re.compile(r"(?<![A-Za-z0-9_])_++|_++(?![A-Za-z0-9])|(?<=[wW]{3})\.|(?![ \w./,-])[\x00-\x7f]")
