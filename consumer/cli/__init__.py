"""The command line: one module a command, loaded when it is called, so that ``--help`` is quick.

Owns: option parsing, exit codes, what is printed where (results on stdout, progress and errors on stderr).
"""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from consumer.cli.text import say
from consumer.errors import EvalsinkError

COMMANDS = {
    "demo": "Walk the whole way on an embedded broker.",
    "broker": "Run the embedded broker in the foreground.",
    "topics": "Create or check the topics.",
    "worker": "Consume events into published runs.",
    "publish": "Send existing lmms-eval or lm-eval output as events.",
    "table": "Print a results JSON as lmms-eval's table.",
    "verify": "Recompute every hash, count and identity of published runs.",
    "runs": "Show open and recently closed runs.",
    "push": "Archive closed runs on the Hugging Face Hub.",
    "outbox": "Show what waits to be archived, since when and why.",
    "dead-letters": "List, show and redrive what could not be taken.",
    "rebuild": "Close a run again from the log.",
}


class LazyGroup(click.Group):
    """Lists `COMMANDS` without importing them; `consumer.cli.NAME` holds `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"consumer.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="evalsink", prog_name="evalsink")
def cli() -> None:
    """The place where evaluation results of large models land.

    Evaluators send events to Kafka; evalsink turns them into per-task JSONL, a results JSON with hashes, and
    a table. Start with `evalsink demo`: it needs nothing but this machine.
    """


def main(argv: list[str] | None = None) -> Any:
    """Run the command line and exit.

    Exit codes: 0 done, 1 a difference or failure, 2 a wrong call, 3 the broker, 4 state unusable, 5 too many
    dead letters in a row, 6 stopped while the disk was full, 7 the Hub; 70 and 75 are `consumer.liveness`,
    71 is `consumer.pushing`.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    try:
        return cli.main(args=argv, prog_name="evalsink")
    except EvalsinkError as error:
        say(f"evalsink: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        # A folder that cannot be made, a disk that is full at the start: the user's to mend, so no traceback.
        say(f"evalsink: {error}")
        sys.exit(EvalsinkError.exit_code)


def _end(number: int, _frame: FrameType | None) -> None:
    """End, as every other process would: the kernel spares the first one of a container."""
    os._exit(128 + number)
