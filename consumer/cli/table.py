"""``evalsink table``: a results JSON as the table that lmms-eval prints."""

import json
from pathlib import Path
from typing import Any

import click

from consumer.cli.text import print_verbatim, printable
from consumer.errors import UsageError
from consumer.report.paired import compare
from consumer.report.table import Column, render


@click.command(name="table")
@click.argument("results", metavar="RESULTS.json", type=click.Path(path_type=Path))
@click.option(
    "--column",
    type=click.Choice(["results", "groups"]),
    default="results",
    show_default=True,
    help="Tasks, with the throughput below; or groups of tasks.",
)
@click.option("--version-column", is_flag=True, help="Show each task's version.")
@click.option(
    "--baseline",
    metavar="OTHER_RESULTS.json",
    type=click.Path(path_type=Path),
    help="Compare with this run: baseline, difference, 95% interval and p value of a paired t test.",
)
def command(results: Path, column: Column, version_column: bool, baseline: Path | None) -> None:
    """Print a results JSON as lmms-eval's table.

    Reads what lmms-eval, lm-eval and evalsink write. The text is byte for byte what lmms-eval prints for it;
    only on a terminal are characters that would steer it spelt out.

    With --baseline the rows of both runs, in the samples files beside the results JSON, are paired by task,
    filter and doc_id. Baseline (the mean of its rows in the pairs), Diff and CI are on the scale of Value. A
    star marks p < 0.05. Notes below the table say what could not be paired.
    """
    document = _load(results)
    if baseline is None:
        print_verbatim(render(document, column=column, version_column=version_column))
        return
    if column != "results":
        raise UsageError(f"--baseline compares the rows of tasks; --column {column} has none")
    comparison = compare(results, document, baseline, _load(baseline))
    print_verbatim(render(document, version_column=version_column, tests=comparison.tests))
    click.echo(f"Baseline: {printable(str(baseline))}; paired t test by doc_id, 95% confidence")
    for note in comparison.notes:
        click.echo(f"- {printable(note)}")


def _load(path: Path) -> dict[str, Any]:
    """The results JSON; NaN and Infinity are read, since the harnesses write them.

    Raises:
        UsageError: no such file, no JSON, no object.
    """
    try:
        results = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict):
        raise UsageError(f"{path} is not a results JSON: expected an object")
    return results
