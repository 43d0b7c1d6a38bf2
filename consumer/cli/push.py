"""``evalsink push``: what the outbox holds, and existing evaluation output, onto the Hub."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from consumer import settings
from consumer.archive.lock import PusherLock
from consumer.archive.outbox import OUTPUT_FACT, PLACE_FACT, Errand, Outbox, has_outbox
from consumer.archive.parcels import Parcel, ParcelError, check_files, pack, place_of, repositories
from consumer.cli import options
from consumer.cli.text import duration, printable, say
from consumer.errors import HubError, StateError, UsageError
from consumer.publish.outputs import Output, find_outputs
from consumer.pushing import make_pusher, pack_published
from consumer.report import metrics
from consumer.settings import Hub, Settings
from consumer.telemetry import logs
from schemas.names import RunFiles, files_of_results, relative_paths
from schemas.results import Evalsink

_NAP_S = 0.5


class _Load(Struct):
    """One outbox to be emptied.

    Attributes:
        outbox: Its errands.
        output: Where their files lie.
        packing: How an errand becomes a parcel; None: as for a worker.
        hub: Where it goes.
    """

    outbox: Outbox
    output: Path
    packing: Callable[[Errand], Parcel] | None
    hub: Hub


@click.command(name="push", short_help="Archive closed runs on the Hugging Face Hub.")
@click.argument("paths", metavar="[PATH…]", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--state", metavar="DIR", help="State folder of the worker whose outbox it is. Default: state.")
@click.option("--output", metavar="DIR", help="Its output folder. Default: as the outbox says.")
@options.hub()
@click.option("--retry-parked", is_flag=True, help="Also what was refused before.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be pushed, ask the Hub nothing, change nothing."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are on the Hub with other bytes.")
@click.option(
    "--give-up-after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Stop when the Hub took nothing for so long; what waits stays in the outbox.",
)
@options.config()
def command(  # noqa: PLR0917 - click passes them by name
    paths: tuple[Path, ...],
    state: str | None,
    output: str | None,
    hub_repo: str | None,
    give_up_after: float,
    config: Path | None,
    *,
    hub_public: bool | None,
    retry_parked: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Archive closed runs in a dataset repository of the Hugging Face Hub.

    Without PATH: what waits in the outbox of a worker that is not running (a running one pushes by itself).
    With PATH: folders searched for the output of lmms-eval, lm-eval or evalsink, or results files; the outbox
    too, if --state names one. Paths in the repository are as on disk, from the model's folder on. What is
    there already is not sent again, so pushing twice is harmless.

    The token comes from HF_TOKEN, from `hf auth login`, or from the file that the setting hub.token_file
    names; HF_ENDPOINT or hub.endpoint name another Hub. Exit code 7: something could not be archived.

    \b
    Example:
      evalsink push --state /var/lib/evalsink --hub-repo my-org/evaluations --dry-run
      evalsink push logs/ --hub-repo my-org/evaluations
      evalsink push --hub-repo my-org/evaluations --retry-parked
    """  # noqa: D301 - click wants the control character, not the two letters
    # The bar says what lines would.
    logs.configure(level=logging.WARNING if Console(stderr=True).is_terminal else logging.INFO)
    chosen = settings.load(
        flags={"state": state, "output": output, "hub.repo": hub_repo, "hub.public": hub_public},
        config=config,
    )
    if not chosen.hub.enabled:
        raise UsageError("name a repository: --hub-repo ORG/NAME, or the setting hub.repo")
    # With folders, the outbox too only if it was named: it may be of somebody else's worker.
    waiting = has_outbox(chosen.state_path)
    if not waiting and (state is not None or not paths):
        raise UsageError(
            f"no outbox in {chosen.state_path}, so nothing waits: name a worker's --state, or folders to push"
        )
    skipped: list[str] = []
    folders = [load for path in paths for load in _folders(path, chosen.hub, skipped)]
    stored = Outbox(chosen.state_path) if waiting and (state is not None or not paths) else None
    try:
        loads = ([_stored(stored, chosen, output)] if stored is not None else []) + folders
        if dry_run:
            _rehearse(loads, retry_parked=retry_parked)
            return
        with _sole_pusher(stored, chosen.state_path, retry_parked=retry_parked):
            if stored is not None:
                stored.recover()
            archived = sum(_empty(load, give_up_after_s=give_up_after, overwrite=overwrite) for load in loads)
        _conclude(loads, archived, skipped)
    finally:
        if stored is not None:
            stored.close()


def _stored(outbox: Outbox, chosen: Settings, output: str | None) -> _Load:
    place = outbox.fact(PLACE_FACT)
    if place is not None and place != place_of(chosen.hub):
        raise UsageError(
            f"the outbox in {chosen.state_path} is for another place ({place}); "
            "to push its runs elsewhere name their output folder as PATH"
        )
    folder = Path(output or outbox.fact(OUTPUT_FACT) or chosen.output)
    return _Load(outbox, folder, None, chosen.hub)


def _folders(path: Path, hub: Hub, skipped: list[str]) -> list[_Load]:
    """The runs below `path`, by the folder that their paths start from; others are `skipped`, with reason."""
    found = find_outputs(path)
    for notice in found.notices:
        say(notice)
    by_root: dict[Path, dict[str, Parcel]] = {}
    for one in found.outputs:
        root = _root(one, path)
        try:
            parcel = _parcel(one, root)
        except ParcelError as error:
            skipped.append(f"{error}; evalsink verify {one.results} says more")
        else:
            by_root.setdefault(root, {})[parcel.results] = parcel
    return [_memory(root, parcels, hub) for root, parcels in by_root.items()]


def _memory(root: Path, parcels: dict[str, Parcel], hub: Hub) -> _Load:
    """An outbox for this call alone: calling again finds what is still missing.

    These files are the user's: whatever the settings say of a worker's output, they stay.
    """
    hub = replace(hub, keep_files=True)
    outbox = Outbox(None)
    for results, parcel in parcels.items():
        outbox.enqueue(
            *(results, "archive"),
            run_id=parcel.run_id,
            status="complete",
            sha256=parcel.hashes[results],
            now=time.time(),
        )
    return _Load(outbox, root, lambda errand: parcels[errand.results], hub)


def _root(output: Output, path: Path) -> Path:
    """Where paths in the repository start: what was named, or above the model's folder if that was."""
    folder = output.results.parent
    start = path if path.is_dir() else folder
    model = msgspec.json.decode(output.document.get("model_name_sanitized", msgspec.Raw(b'""')))
    return folder.parent if start == folder and folder.name and folder.name == model else start


def _parcel(output: Output, root: Path) -> Parcel:
    results = output.results.relative_to(root).as_posix()
    content = output.results.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if _is_ours(content):
        return pack(root, results, sha256=sha256, render=metrics.render)
    samples = {task: file.relative_to(root).as_posix() for task, file in sorted(output.samples.items())}
    folder, _, name = results.rpartition("/")
    files = files_of_results(name, folder=folder) or RunFiles(folder, Path(name).stem, output.harness)
    document: dict[str, Any] = {key: msgspec.json.decode(raw) for key, raw in output.document.items()}
    rows = metrics.render(document, results, sha256, samples_files=samples)
    [path] = relative_paths(folder, [files.metrics])
    parcel = Parcel(
        results=results,
        run_id=results,
        files={path: rows, results: output.results},
        samples={name: root / name for name in samples.values()},
        metrics=path,
        hashes={results: sha256},
        folder=folder,
    )
    check_files(parcel, root)
    return parcel


class _Ours(Struct, frozen=True):
    evalsink: Evalsink


def _is_ours(content: bytes) -> bool:
    try:
        msgspec.json.decode(content, type=_Ours)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


@contextmanager
def _sole_pusher(outbox: Outbox | None, state: Path, *, retry_parked: bool) -> Iterator[None]:
    """Nobody else pushes from the outbox meanwhile."""
    if outbox is None:
        yield
        return
    retried = outbox.retry_parked(now=time.time()) if retry_parked else 0
    try:
        lock = PusherLock(state)
    except StateError as error:
        also = f"; {retried} parked runs were queued again for it" if retry_parked else ""
        raise StateError(f"{error}{also}") from error
    with lock:
        yield


def _rehearse(loads: list[_Load], *, retry_parked: bool) -> None:
    """Say what would go where."""
    states = {"queued", "pushing", "parked"} if retry_parked else {"queued", "pushing"}
    runs = size = 0
    for load in loads:
        for errand in load.outbox.waiting():
            if errand.state not in states or errand.kind != "archive":
                continue
            try:
                parcel = (load.packing or partial(pack_published, load.output))(errand)
            except ParcelError as error:
                say(f"{printable(errand.run_id)}: cannot be pushed: {error}")
                continue
            targets = " and ".join(dict.fromkeys(repositories(parcel.folder, load.hub)))
            files = len(parcel.files) + len(parcel.samples)
            amount = parcel.bytes_of()
            click.echo(f"{targets}  {printable(errand.results)}  {files} files, {decimal(amount)}")
            runs, size = runs + 1, size + amount
    click.echo(f"would push {runs} run{'s' * (runs != 1)}, {decimal(size)}; nothing was sent", err=True)


def _empty(load: _Load, *, give_up_after_s: float, overwrite: bool) -> int:
    """Push until nothing waits that time alone will bring there, or for too long nothing was taken.

    Returns how many runs were archived.
    """
    # Nobody else comes to share a commit.
    pusher = make_pusher(
        load.hub, load.outbox, load.output, packing=load.packing, linger_s=0.0, overwrite=overwrite
    )
    total = _left(load.outbox)
    archived = _archived(load.outbox)
    with _progress(total) as show:
        moved_at, left = time.monotonic(), total
        while True:
            wait_s = pusher.turn()
            before, left = left, _left(load.outbox)
            if not left:
                return _archived(load.outbox) - archived
            if left < before:
                moved_at = time.monotonic()
            still_s = time.monotonic() - moved_at
            show(total - left, wait_s or 0.0)
            if still_s > give_up_after_s:
                raise HubError(f"the Hub took nothing for {duration(still_s)}: {_why(load.outbox)}")
            time.sleep(min(wait_s or 0.0, _NAP_S))


def _archived(outbox: Outbox) -> int:
    return sum(errand.kind == "archive" and errand.state == "archived" for errand in outbox.all())


def _left(outbox: Outbox) -> int:
    depth = outbox.depth()
    return sum(depth.get(state, 0) for state in ("queued", "pushing", "clearing"))


def _why(outbox: Outbox) -> str:
    waiting = outbox.waiting()
    reasons = dict.fromkeys(errand.reason for errand in waiting if errand.reason)
    return f"{len(waiting)} left in the outbox; {'; '.join(reasons) or 'none was tried'}"


def _conclude(loads: list[_Load], archived: int, skipped: list[str]) -> None:
    parked = [errand for load in loads for errand in load.outbox.waiting() if errand.state == "parked"]
    if parked or skipped:
        reasons = dict.fromkeys([*(errand.reason for errand in parked), *skipped])
        number = len(parked) + len(skipped)
        raise HubError(
            f"{archived} archived, {number} not:\n  " + "\n  ".join(printable(reason) for reason in reasons)
        )
    click.echo(f"archived: {archived} run{'s' * (archived != 1)}, nothing waits")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, float], None]]:
    """A bar on a terminal; elsewhere the log lines say enough."""
    console = Console(stderr=True)
    if not console.is_terminal or not total:
        yield lambda _done, _wait_s: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("runs pushed", total=total)

        def show(done: int, wait_s: float) -> None:
            waits = f", next try in {duration(wait_s)}" if wait_s > 1 else ""
            progress.update(task, completed=done, description=f"runs pushed{waits}")

        yield show
