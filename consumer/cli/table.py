"""``evalsink table``: a results JSON as the table that lmms-eval prints."""

import json
from pathlib import Path
from typing import Any

import click

from consumer.errors import UsageError
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
def command(results: Path, column: Column, version_column: bool) -> None:
    """Print a results JSON as lmms-eval's table.

    Reads what lmms-eval, lm-eval and evalsink write. The text is byte for byte what lmms-eval prints for it.
    """
    click.echo(render(_load(results), column=column, version_column=version_column))


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
