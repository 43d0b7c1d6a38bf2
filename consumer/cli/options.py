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
