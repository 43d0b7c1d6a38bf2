"""Settings: one TOML file and ``EVALSINK_…`` variables, parsed once into a frozen struct.

Order: a flag of the command line, then the environment, then the file, then the default. Unknown keys and
values of the wrong kind are refused with the setting's name. A setting of a part is called
``EVALSINK_PART_NAME``: EVALSINK_TOPICS_SAMPLES, EVALSINK_SECURITY_PROTOCOL.

Passwords come from files of their own or from the environment. They are refused in the TOML file, which gets
copied about, and no flag takes one. Whatever prints settings gets a mask (`Secret`).
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from consumer.errors import UsageError

DEFAULT_BROKERS = "127.0.0.1:9092"
DEFAULT_HTTP = "127.0.0.1:9464"

_REPO = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_NAME_WITH_MODEL_MAX = 64  # of the Hub's 96 characters: the rest is the model's


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


class Secret(str):
    """A password: text to code that uses it, a mask wherever it is shown; msgspec refuses to encode it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


class Security(Struct, frozen=True, forbid_unknown_fields=True):
    """How we and Kafka know each other. Files are PEM.

    Attributes:
        protocol: As Kafka's ``security.protocol``. SASL_PLAINTEXT sends everything in the clear, with the
            mechanism PLAIN the password too.
        ca_file: Certificates of the authorities we trust; not given: the system's.
        certificate_file: Our own certificate, for brokers that ask for one.
        key_file: Its key; not given: it stands in `certificate_file`.
        key_password_file: Holds the key's password, if it has one.
        mechanism: Of SASL.
        username: For SASL.
        password_file: Holds the password for SASL; a line end after it does not count.
        password: Only ever from EVALSINK_SECURITY_PASSWORD, and it wins over `password_file`.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password_file: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password_file: str = ""
    password: Secret = Secret()

    def __post_init__(self) -> None:
        """Refuse what would be ignored: somebody believes to be safe by it."""
        if self.sasl and not (self.username and (self.password or self.password_file)):
            raise ValueError(
                f"security.protocol {self.protocol} needs security.username, and security.password_file or "
                "EVALSINK_SECURITY_PASSWORD"
            )
        if not self.sasl and (self.username or self.password or self.password_file):
            raise ValueError(
                f"a user or password is given, but security.protocol is {self.protocol}: SASL_SSL is meant?"
            )
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ValueError(
                f"a certificate or key is given, but security.protocol is {self.protocol}: SASL_SSL is meant?"
            )
        if (self.key_file or self.key_password_file) and not self.certificate_file:
            raise ValueError("security.key_file needs security.certificate_file")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether there is a user with a password."""
        return self.protocol.startswith("SASL")


def _is_repository(name: str) -> bool:
    """By the Hub's rules (huggingface_hub.utils.validate_repo_id), with room for a model's name."""
    filled = name.replace("/{model}", "/m", 1) if "/{model}" in name else name.replace("{model}", "m", 1)
    space, _, _ = name.partition("/")
    return (
        _REPO.fullmatch(filled) is not None
        and "{" not in space
        and not re.search(r"--|\.\.|\.git$", filled)
        and (len(name) - len(space) <= _NAME_WITH_MODEL_MAX or "{model}" not in name)
    )


class EvalResult(Struct, frozen=True, forbid_unknown_fields=True):
    """One figure that is proposed to the repositories of the models it is of.

    Attributes:
        task: Task, as the harness names it.
        metric: Its metric.
        filter: Its filter.
        dataset: Benchmark on the Hub, ``ORG/NAME``.
        task_id: Task in the benchmark's ``eval.yaml``.
        scale: What the value is multiplied with: leaderboards often count to 100.
        models: Models it is proposed for, as shell patterns of the model name.
    """

    task: str
    metric: str
    dataset: str
    task_id: str
    models: tuple[str, ...]
    filter: str = "none"
    scale: float = 1.0


class Hub(Struct, frozen=True, forbid_unknown_fields=True):
    """Where closed runs are archived on the Hugging Face Hub, and how.

    Attributes:
        repo: Dataset repository, ``ORG/NAME``, taken as given; ``{model}`` stands for the model's folder.
            Empty: nothing is archived.
        samples_repo: Another one for the samples files; empty: they go to `repo`.
        public: Whether a repository that is made is public, and one that is public may be used.
        gated: How a repository that is made is gated; empty: not at all.
        branch: Branch, made if it is not there.
        endpoint: Address of the Hub; empty: HF_ENDPOINT, else the public one.
        token_file: Holds the token, and may change at any time; empty: HF_TOKEN, else the file that
            HF_TOKEN_PATH names, else that of ``hf auth login``.
        xet: Use Xet for large files; Hubs without it need this off.
        runs: Which runs are archived. With `durable` ``hub`` all are.
        keep_files: Whether a run's files stay in the output folder once they are archived.
        commits_per_hour: Most commits to a repository by this worker; the Hub takes 128 from all together.
        linger_s: Longest wait of a closed run for others to share its commit, seconds.
        files_per_commit_max: Files in one commit.
        timeout_s: Longest wait for an answer of the Hub, seconds. The Hub itself gives a commit 60.
        upload_timeout_s: Longest attempt, seconds; one second more for each MiB. Then the process that
            uploads is ended, and begins anew.
        parked_retry_s: Seconds after which a refused run is tried again.
        eval_results: Figures to propose to model repositories; none, unless asked for.
    """

    repo: str = ""
    samples_repo: str = ""
    public: bool = False
    gated: Literal["", "auto", "manual"] = ""
    branch: Annotated[str, Meta(min_length=1)] = "main"
    endpoint: str = ""
    token_file: str = ""
    xet: bool = True
    runs: Literal["complete", "all"] = "complete"
    keep_files: bool = True
    commits_per_hour: Annotated[int, Meta(ge=1)] = 60
    linger_s: Annotated[float, Meta(ge=0)] = 10.0
    files_per_commit_max: Annotated[int, Meta(ge=1)] = 500
    timeout_s: Annotated[float, Meta(gt=0)] = 120.0
    upload_timeout_s: Annotated[float, Meta(gt=0)] = 900.0
    parked_retry_s: Annotated[float, Meta(gt=0)] = 3600.0
    eval_results: tuple[EvalResult, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that no repository can have, before anything is read."""
        for name, value in (("hub.repo", self.repo), ("hub.samples_repo", self.samples_repo)):
            if value and not _is_repository(value):
                raise ValueError(
                    f"{name} {value!r} is not ORG/NAME as the Hub takes it; NAME may hold {{model}}"
                )
        if self.samples_repo and not self.repo:
            raise ValueError("hub.samples_repo needs hub.repo")

    @property
    def enabled(self) -> bool:
        """Whether anything is archived."""
        return bool(self.repo)


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Attributes:
        brokers: Bootstrap servers, ``host:port`` separated by commas.
        group: Consumer group, without "/"; receipts bind their own group only.
        output: Folder of published runs.
        state: This worker's own folder: spool, checkpoint, receipts. Private to one process.
        topics: Topic names.
        security: TLS and SASL.
        checkpoint_interval_s: Seconds between checkpoints while records come.
        poll_timeout_ms: Longest wait of one poll, milliseconds.
        poll_records_max: Records taken by one poll.
        open_files_max: Spool files held open at a time, three for each task of an open run; no more
            than half of what the process may open.
        session_timeout_ms: Kafka session time-out, milliseconds.
        grace_s: Seconds without a record after which a run with at least one end is shown below
            ``partial/``.
        abandon_after_s: Seconds without a record after which a run is given up; `grace_s` if every shard has
            ended and one failed.
        lost_state_keep_s: Seconds after which the local state of a partition that went to another worker is
            removed.
        drain_timeout_s: Longest wait of an orderly stop, seconds.
        watchdog_s: Seconds without a turn of the loop after which the process ends itself (exit code 70).
        dead_letters_in_a_row_max: Dead letters of one partition without a good record between them after
            which the worker stops, rather than bury what a bad deployment sends. Late ones do not count.
        group_instance_id: Static membership: this member's own name in the group, the same after a restart.
            Never mix members with and without one in a group.
        http: Where metrics and health are served, ``HOST:PORT``; "" for nowhere.
        durable: Where a run must be before its receipt is written: the output folder, which must outlive the
            worker's disk; or the Hub.
        hub: The archive on the Hugging Face Hub.
    """

    brokers: str = DEFAULT_BROKERS
    group: Annotated[str, Meta(pattern="^[^/]+$")] = "evalsink"
    output: str = "output"
    state: str = "state"
    topics: Topics = Topics()
    security: Security = Security()
    checkpoint_interval_s: Annotated[float, Meta(gt=0)] = 2.0
    poll_timeout_ms: Annotated[int, Meta(ge=1)] = 250
    poll_records_max: Annotated[int, Meta(ge=1)] = 2000
    open_files_max: Annotated[int, Meta(ge=4)] = 16384
    session_timeout_ms: Annotated[int, Meta(ge=1000)] = 45_000
    grace_s: Annotated[float, Meta(gt=0)] = 900.0
    abandon_after_s: Annotated[float, Meta(gt=0)] = 86_400.0
    lost_state_keep_s: Annotated[float, Meta(gt=0)] = 86_400.0
    drain_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    watchdog_s: Annotated[float, Meta(gt=0)] = 300.0
    dead_letters_in_a_row_max: Annotated[int, Meta(ge=1)] = 100_000
    group_instance_id: str = ""
    http: str = DEFAULT_HTTP
    durable: Literal["output", "hub"] = "output"
    hub: Hub = Hub()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.durable == "hub" and not self.hub.enabled:
            raise ValueError('durable = "hub" needs hub.repo')

    @property
    def silence_s(self) -> float:
        """How long a run may be silent before it is given up."""
        return max(self.abandon_after_s, self.grace_s)

    @property
    def output_path(self) -> Path:
        """`output` as a path."""
        return Path(self.output)

    @property
    def state_path(self) -> Path:
        """`state` as a path."""
        return Path(self.state)


_PARTS: dict[str, type[Struct]] = {"topics": Topics, "security": Security, "hub": Hub}


def load(
    *,
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force.

    Args:
        flags: Values given on the command line, those of a part as ``part.name``; None does not count.
        config: TOML file.
        environ: The environment, `os.environ` when not given.

    Raises:
        UsageError: a file that cannot be read, an unknown setting, a value of the wrong kind.
    """
    try:
        return msgspec.convert(
            given(flags=flags, config=config, environ=environ),
            Settings,
            strict=False,
            dec_hook=_convert_secret,
        )
    except msgspec.ValidationError as error:
        raise UsageError(f"setting refused: {error}") from error


def given(
    *,
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What somebody set, whether right or wrong; the rest has its default. As `load`."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = _from_file(config) if config else {}
    if "KAFKA_BOOTSTRAP_SERVERS" in environ:
        values["brokers"] = environ["KAFKA_BOOTSTRAP_SERVERS"]
    for name in Settings.__struct_fields__:
        if name in _PARTS:
            _add_part(values, name, environ)
        elif (value := environ.get(f"EVALSINK_{name.upper()}")) is not None:
            values[name] = value
    for name, value in (flags or {}).items():
        part, dot, field = name.partition(".")
        if value is None:
            continue
        if not dot:
            values[name] = value
        elif isinstance(before := values.get(part, {}), dict):
            values[part] = before | {field: value}
    return values


def _add_part(values: dict[str, Any], part: str, environ: Mapping[str, str]) -> None:
    given = {
        name: value
        for name in _PARTS[part].__struct_fields__
        if (value := environ.get(f"EVALSINK_{part}_{name}".upper())) is not None
    }
    # Something else than a table is left as it is, to be refused with everything else of the wrong kind.
    if given and isinstance(before := values.get(part, {}), dict):
        values[part] = before | given


def _convert_secret(kind: type, value: object) -> Any:
    if kind is not Secret or not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return Secret(value)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read settings from {path}: {error}") from error
    if isinstance(hub := values.get("hub"), dict) and "token" in hub:
        raise UsageError(
            f"{path}: a token does not belong into a settings file; put it into a file of its own "
            "(hub.token_file) or into HF_TOKEN"
        )
    if isinstance(security := values.get("security"), dict) and "password" in security:
        raise UsageError(
            f"{path}: security.password does not belong into a settings file; put it into a file of its own "
            "(security.password_file) or into EVALSINK_SECURITY_PASSWORD"
        )
    return values
