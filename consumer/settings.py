"""Settings: one TOML file and ``EVALSINK_…`` variables, parsed once into a frozen struct.

Order: a flag of the command line, then the environment, then the file, then the default. Unknown keys and
values of the wrong kind are refused with the setting's name.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from consumer.errors import UsageError

DEFAULT_BROKERS = "127.0.0.1:9092"


class Topics(Struct, frozen=True, forbid_unknown_fields=True):
    """Topic names. `samples` and `aggregates` may be the same topic."""

    samples: str = "eval.samples"
    aggregates: str = "eval.aggregates"
    receipts: str = "eval.receipts"
    dead_letters: str = "eval.dead-letters"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics read, each once."""
        return tuple(dict.fromkeys((self.samples, self.aggregates)))


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Attributes:
        brokers: Bootstrap servers, ``host:port`` separated by commas.
        group: Consumer group; receipts bind their own group only.
        output: Folder of published runs.
        state: This worker's own folder: spool, checkpoint, receipts. Private to one process.
        topics: Topic names.
        checkpoint_interval_s: Seconds between checkpoints while records come.
        poll_timeout_ms: Longest wait of one poll, milliseconds.
        poll_records_max: Records taken by one poll.
        open_files_max: Spool files held open at a time.
        session_timeout_ms: Kafka session time-out, milliseconds.
    """

    brokers: str = DEFAULT_BROKERS
    group: str = "evalsink"
    output: str = "output"
    state: str = "state"
    topics: Topics = Topics()
    checkpoint_interval_s: Annotated[float, Meta(gt=0)] = 2.0
    poll_timeout_ms: Annotated[int, Meta(ge=1)] = 250
    poll_records_max: Annotated[int, Meta(ge=1)] = 4000
    open_files_max: Annotated[int, Meta(ge=4)] = 256
    session_timeout_ms: Annotated[int, Meta(ge=1000)] = 45_000

    @property
    def output_path(self) -> Path:
        """`output` as a path."""
        return Path(self.output)

    @property
    def state_path(self) -> Path:
        """`state` as a path."""
        return Path(self.state)


def load(
    *,
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force.

    Args:
        flags: Values given on the command line; those that are None do not count.
        config: TOML file.
        environ: The environment, `os.environ` when not given.

    Raises:
        UsageError: a file that cannot be read, an unknown setting, a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = _from_file(config) if config else {}
    if "KAFKA_BOOTSTRAP_SERVERS" in environ:
        values["brokers"] = environ["KAFKA_BOOTSTRAP_SERVERS"]
    for name in Settings.__struct_fields__:
        if name != "topics" and (value := environ.get(f"EVALSINK_{name.upper()}")) is not None:
            values[name] = value
    topics = {
        name: value
        for name in Topics.__struct_fields__
        if (value := environ.get(f"EVALSINK_TOPICS_{name.upper()}")) is not None
    }
    if topics:
        values["topics"] = {**values.get("topics", {}), **topics}
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"setting refused: {error}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read settings from {path}: {error}") from error
