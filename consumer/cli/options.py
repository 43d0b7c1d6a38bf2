"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def brokers() -> Decorator:
    """``--brokers``: bootstrap servers."""
    return click.option(
        "--brokers",
        metavar="HOST:PORT[,…]",
        help="Kafka bootstrap servers. "
        "Default: EVALSINK_BROKERS, then KAFKA_BOOTSTRAP_SERVERS, then 127.0.0.1:9092.",
    )


def config() -> Decorator:
    """``--config``: the settings file."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Settings as a TOML file; flags and EVALSINK_… variables win over it.",
    )


def hub() -> Decorator:
    """``--hub-repo`` and ``--hub-public``: where runs are archived."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        repo = click.option(
            "--hub-repo",
            metavar="ORG/NAME",
            help="Archive complete runs in this dataset repository of the Hub; made, private, if it is not "
            "there. {model} in NAME stands for the model.",
        )
        public = click.option(
            "--hub-public",
            is_flag=True,
            default=None,
            help="The repository is made public, or is public and may be used.",
        )
        return repo(public(command))

    return decorate
