"""Each protection removed, one at a time: for each at least one test must fail. ``make mutants`` runs the list.

A mutant is a piece of source text and what stands in its place, applied to a copy of the tree; nothing is changed here. The
text must occur exactly once, so that a mutant which no longer fits is noticed (`test_mutants.py` checks that in every build).
Before the mutants, the tests that are to fail are run on an unchanged copy: there they must pass.

Exit code 1: a mutant survived, no longer fits, or its tests fail without it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("consumer", "schemas", "tests", "pyproject.toml", "docs", "deploy")

GROUP = "tests/proof/test_worker_group.py"
FOUND = "tests/proof/test_found_faults.py"
ORDER = "tests/proof/test_order_of_steps.py"
TAKING_OVER = "tests/proof/test_taking_over.py"
MODEL = "tests/runs/test_model.py"

EXAMPLES = "150"
TIMEOUT_S = 600.0


class Mutant(NamedTuple):
    """One protection less.

    Attributes:
        name: What is missing now.
        path: The file.
        before: Text that occurs in it once.
        after: What stands there instead.
        tests: Arguments of pytest; at least one test of them must fail.
    """

    name: str
    path: str
    before: str
    after: str
    tests: Sequence[str]


MUTANTS = (
    # -- signals
    Mutant(
        "process 1 of a container does not heed SIGTERM before its loop begins",
        "consumer/cli/__init__.py",
        "        signal.signal(signal.SIGTERM, _end)\n",
        "        pass\n",
        ["tests/liveness/test_first_process.py"],
    ),
    # -- close-out and receipts
    Mutant(
        "the receipt does not wait for the dead letters of the run",
        "consumer/closing.py",
        "if acknowledged < step.letters or not self._is_durable(step.receipt):",
        "if not self._is_durable(step.receipt):",
        [ORDER],
    ),
    Mutant(
        "a run is forgotten before its receipt is acknowledged",
        "consumer/closing.py",
        "elif acknowledged >= step.receipt_ticket:",
        "else:",
        [ORDER],
    ),
    Mutant(
        "a receipt without published files",
        "consumer/runs/closeout.py",
        "        staging.publish()\n",
        "",
        [TAKING_OVER],
    ),
    Mutant(
        "a name taken by other bytes counts as published",
        "consumer/runs/publication.py",
        "if not self._disk.link_file(staged, target) and not _equal(staged, target):",
        "if not self._disk.link_file(staged, target) and False:",
        ["tests/runs/test_publication.py", "tests/runs/test_closeout.py"],
    ),
    Mutant(
        "a link in place of the staging folder is swept through",
        "consumer/runs/publication.py",
        "    if base.is_symlink():\n",
        "    if base.is_symlink() and not base:\n",
        ["tests/security/test_files.py"],
    ),
    Mutant(
        "a batch is unpacked to whatever it holds",
        "consumer/kafka_unpacking.py",
        "        if size > UNPACKED_BYTES_MAX:\n",
        "        if False:\n",
        ["tests/security/test_unpacking.py", "-k", "unpacks_to_too_much"],
    ),
    Mutant(
        "a log line ends where a name has a newline",
        "consumer/telemetry/logs.py",
        'return printable(f"{moment}',
        'return str(f"{moment}',
        ["tests/security/test_log_lines.py"],
    ),
    Mutant(
        "a rename in place of the link",
        "consumer/filesystem.py",
        "            os.link(source, target)\n",
        "            os.replace(source, target)\n",
        ["tests/runs/test_publication.py"],
    ),
    Mutant(
        "the results JSON is published first",
        "consumer/runs/publication.py",
        "        for staged, target in self._files:\n            self._disk.make_folder",
        "        for staged, target in reversed(self._files):\n            self._disk.make_folder",
        ["tests/runs/test_publication.py"],
    ),
    Mutant(
        "staged files are not synced before they are linked",
        "consumer/runs/publication.py",
        "        self._disk.sync_path(staged)\n",
        "",
        ["tests/runs/test_publication.py"],
    ),
    Mutant(
        "the folder is not synced after a name in it",
        "consumer/filesystem.py",
        "        # Also if it was there: who linked it may have died before this.\n"
        "        self.sync_path(target.parent)\n",
        "",
        [TAKING_OVER],
    ),
    Mutant(
        "rows are copied without their checksum",
        "consumer/runs/samples.py",
        "if list(map(len, found)) != lengths or list(map(crc32, found)) != checksums:",
        "if list(map(len, found)) != lengths:",
        ["tests/runs/test_samples.py"],
    ),
    Mutant(
        "a damaged spool is not given up",
        "consumer/closing.py",
        "            self._damaged.add(step.partition)\n",
        "",
        [TAKING_OVER],
    ),
    # -- cuts
    Mutant(
        "no late check while the run is open",
        "consumer/runs/book.py",
        "if cut is not None and record.offset > cut.offset:",
        "if False:",
        [MODEL],
    ),
    Mutant(
        "no late check once the run is closed",
        "consumer/worker.py",
        "if isinstance(event, RunExpired) or (same_topic and record.offset <= cut.offset):",
        "if True:",
        [TAKING_OVER],
    ),
    Mutant(
        "the aggregates cut is where reading happened to be",
        "consumer/runs/lifecycle.py",
        "            cut = Cut(aggregate.offset)\n",
        "            cut = Cut(run.aggregates[-1].offset)\n",
        [MODEL],
    ),
    Mutant(
        "a run closes with the counts of its ends, distinct or not",
        "consumer/runs/lifecycle.py",
        "        tally.checked, tally.distinct = tally.received, counts[key]\n",
        "        tally.checked, tally.distinct = tally.received, max(counts[key], stated)\n",
        ["tests/runs/test_lifecycle.py"],
    ),
    Mutant(
        "a higher attempt does not void the lower one's end",
        "consumer/runs/lifecycle.py",
        "state.attempt, state.end, state.tallies, state.short = attempt, None, {}, set()",
        "state.attempt, state.tallies, state.short = attempt, {}, set()",
        [MODEL, "tests/runs/test_lifecycle.py"],
    ),
    Mutant(
        "a run_expired overrules records that came before it",
        "consumer/runs/lifecycle.py",
        "    if event.last != run.last.get(record.topic, -1):\n        return False\n",
        "",
        [MODEL],
    ),
    Mutant(
        "a run is given up before the partition is read to its end",
        "consumer/expiry.py",
        "            if partition in ready:\n                if run.shards",
        "            if True:\n                if run.shards",
        ["tests/expiry/test_expiry.py"],
    ),
    Mutant(
        "both topics are asked at once whether a run has expired",
        "consumer/expiry.py",
        "topic = topics.samples if run.samples_cut is None else topics.aggregates",
        "topic = topics.samples if self._clock() % 2 < 1 else topics.aggregates",
        ["tests/expiry/test_expiry.py"],
    ),
    # -- checkpoint, commit, watermark
    Mutant(
        "watermarks pass runs that are closing",
        "consumer/saving.py",
        "for run in state.runs.values() if topic in run.first]",
        "for run in state.runs.values() if topic in run.first and run.aggregates_cut is None]",
        [ORDER, GROUP],
    ),
    Mutant(
        "watermarks pass questions about runs still to be opened",
        "consumer/saving.py",
        "                    if early.topic == topic\n",
        "                    if early.topic != topic\n",
        [FOUND],
    ),
    Mutant(
        "what expired a run does not pin the watermark",
        "consumer/runs/lifecycle.py",
        "        run.first.setdefault(record.topic, record.offset)\n    return effective",
        "        pass\n    return effective",
        ["tests/runs/test_lifecycle.py"],
    ),
    Mutant(
        "watermarks pass dead letters that are not acknowledged",
        "consumer/saving.py",
        "            if self._outbound.acknowledged() < snapshot.letters:\n                return\n",
        "",
        [ORDER],
    ),
    Mutant(
        "records are thanked for out of order",
        "consumer/intake/outbound.py",
        "        return self._acknowledged\n\n    def flush",
        "        return self._acknowledged + sum(one[2].is_done for one in self._pending)\n\n    def flush",
        [ORDER],
    ),
    Mutant(
        "the commit before the checkpoint",
        "consumer/saving.py",
        "            snapshot.job = self._executor.submit(",
        "            self._commit(snapshot, owned)\n            snapshot.job = self._executor.submit(",
        [ORDER],
    ),
    Mutant(
        "nothing is committed where nothing changed",
        "consumer/saving.py",
        "                self._finish(snapshot, owned, may_remove=may_remove)\n                return\n",
        "                self._snapshot, self._saved_at = None, self._clock()\n                return\n",
        [ORDER],
    ),
    Mutant(
        "the checkpoint before the sync",
        "consumer/runs/checkpoint.py",
        "    disk.sync_tree(state)\n    disk.replace_file(state / CHECKPOINT_FILE, content)\n",
        "    disk.replace_file(state / CHECKPOINT_FILE, content)\n    disk.sync_tree(state)\n",
        ["tests/runs/test_checkpoint.py"],
    ),
    Mutant(
        "the checkpoint is written over the former one",
        "consumer/filesystem.py",
        'temporary = path.with_name(path.name + ".tmp")',
        "temporary = path",
        ["tests/runs/test_checkpoint.py"],
    ),
    Mutant(
        "no length check at the start",
        "consumer/runs/checkpoint.py",
        "        if size < length:\n            return False\n",
        "",
        ["tests/runs/test_checkpoint.py"],
    ),
    Mutant(
        "longer spool files are not cut at the start",
        "consumer/runs/checkpoint.py",
        "            disk.truncate(path, length)\n",
        "            pass\n",
        ["tests/runs/test_checkpoint.py"],
    ),
    Mutant(
        "folders go while a checkpoint still lists their runs",
        "consumer/saving.py",
        "        self._garbage.append(folder)\n",
        "        self._disk.remove_tree(folder)\n",
        [ORDER],
    ),
    Mutant(
        "folders go while a close-out reads them",
        "consumer/saving.py",
        "        if not may_remove:\n            self._garbage += snapshot.folders\n            return\n",
        "",
        [ORDER],
    ),
    Mutant(
        "committed offsets fall",
        "consumer/saving.py",
        "self._floors[place] = max(self._floors.get(place, 0), snapshot.positions[place])",
        "self._floors[place] = snapshot.positions[place]",
        [TAKING_OVER],
    ),
    Mutant(
        "offsets of lost partitions are committed",
        "consumer/saving.py",
        "            if place.partition not in owned:\n                continue\n",
        "            if place.partition not in self._book.partitions:\n                continue\n",
        [TAKING_OVER],
    ),
    # -- taking over
    Mutant(
        "a closed run opens again",
        "consumer/worker.py",
        "elif (receipt := self._receipts.find(partition, event.run_id)) is not None:",
        "elif (receipt := None) is not None:",
        [TAKING_OVER],
    ),
    Mutant(
        "receipts of others are not read",
        "consumer/worker.py",
        "        self._receipts.catch_up(partition)\n",
        "",
        [TAKING_OVER],
    ),
    Mutant(
        "runs stay open that another closed meanwhile",
        "consumer/worker.py",
        "        for run in list(state.runs.values()):\n            if self._receipts.find",
        "        for run in list(state.runs.values()):\n            if False and self._receipts.find",
        [TAKING_OVER],
    ),
    Mutant(
        "receipts of another group count",
        "consumer/intake/receipts.py",
        'if key is None or not key.startswith(f"{self._group}/".encode()):\n            return\n'
        '        try:\n            receipt = _decoder.decode(value or b"")\n',
        "if key is None:\n            return\n        try:\n"
        "            receipt = _decoder.decode((value or b\"\").replace(b'\"other', f'\"{self._group}'.encode()))\n",
        [ORDER],
    ),
    Mutant(
        "local state behind the watermark is kept",
        "consumer/intake/resume.py",
        "watermarks.get(topic, 0) <= local[topic] <= ends[topic].end",
        "local[topic] <= ends[topic].end",
        ["tests/intake/test_resume.py"],
    ),
    Mutant(
        "a commit of another topic, or without our metadata, counts",
        "consumer/intake/resume.py",
        "    ours = all(one is not None for one in metadata.values())",
        "    ours = any(one is not None for one in metadata.values())",
        ["tests/intake/test_resume.py"],
    ),
    Mutant(
        "reading starts at the position, not at the watermark",
        "consumer/intake/resume.py",
        "else watermarks.get(topic, 0)\n        if wanted > end:",
        "else (committed[topic].offset if committed.get(topic) else 0)\n        if wanted > end:",
        [TAKING_OVER],
    ),
    # -- rows in bulk
    Mutant(
        "a row that comes again is taken again",
        "consumer/worker.py",
        "if offset >= state.positions[topic]:",
        "if True:",
        [TAKING_OVER, "tests/worker/test_lanes.py"],
    ),
    Mutant(
        "lanes stand while something else happens to their run",
        "consumer/worker.py",
        "        self._settle_up(self._book.release(run, event))\n",
        "",
        [GROUP, "tests/worker/test_lanes.py"],
    ),
    Mutant(
        "lanes stand while their shard starts anew",
        "consumer/runs/book.py",
        "if shard is None or (event.attempt <= shard.attempt and not shard.short):",
        "if True:",
        [GROUP, "tests/worker/test_lanes.py"],
    ),
    Mutant(
        "lanes stand while rows end the shortness of a shard",
        "consumer/runs/book.py",
        "event.attempt <= shard.attempt and not shard.short",
        "event.attempt <= shard.attempt",
        ["tests/worker/test_lanes.py"],
    ),
    Mutant(
        "rows are taken in bulk whatever they are",
        "consumer/runs/lanes.py",
        "    if not _are_plain(content, starts):\n",
        "    if False:\n",
        ["tests/worker/test_lanes.py"],
    ),
    Mutant(
        "rows on several lines are taken in bulk",
        "consumer/runs/lanes.py",
        "    return lines == 0\n",
        "    return True\n",
        ["tests/worker/test_lanes.py"],
    ),
    Mutant(
        "rows with carriage returns are taken in bulk",
        "consumer/runs/lanes.py",
        '            if b"\\r" in piece:\n                return False\n',
        "",
        ["tests/worker/test_lanes.py"],
    ),
    Mutant(
        "the broker is asked for quiet partitions while a busy one's records are at hand",
        "consumer/intake/fetching.py",
        "    return is_unknown or bool(state.position.offset < state.highwater)\n",
        "    return True\n",
        ["tests/intake/test_source.py"],
    ),
    Mutant(
        "rows are taken in bulk under any key",
        "consumer/worker.py",
        "if lane is not None and key == lane.key and topic == lane.topic:",
        "if lane is not None and topic == lane.topic:",
        ["tests/worker/test_lanes.py"],
    ),
    Mutant(
        "a record that comes again is applied again",
        "consumer/worker.py",
        "        if record.offset < positions[record.topic]:\n",
        "        if False:\n",
        [TAKING_OVER],
    ),
    Mutant(
        "a row that was half written is not written again",
        "consumer/runs/spool.py",
        "        while done < len(content):\n",
        "        if True:\n",
        ["tests/runs/test_spool.py"],
    ),
    Mutant(
        "nothing of a gap in the log is told",
        "consumer/intake/resume.py",
        "            tainted[topic] = end\n",
        "            pass\n",
        ["tests/intake/test_resume.py"],
    ),
    # -- what is no event
    Mutant(
        "a key that is not the run_id is taken",
        "consumer/intake/decode.py",
        "    if key != event.run_id.encode():\n",
        "    if False:\n",
        ["tests/wire/test_decoding_bad_input.py"],
    ),
    # -- the archive
    Mutant(
        "a run's receipt does not wait for the outbox to know it",
        "consumer/closing.py",
        "        if self._desk is not None:\n            self._desk.enter(",
        "        if False:\n            self._desk.enter(",
        [ORDER],
    ),
    Mutant(
        "with durable = hub the receipt does not wait for the Hub",
        "consumer/archive/desk.py",
        '        if errand is None or errand.state not in {"clearing", "archived", "dropped"}:\n            return False\n',
        "",
        [ORDER],
    ),
    Mutant(
        "what was committed is not looked at again",
        "consumer/archive/shelf.py",
        "if lost := self._hub.missing(repo, additions, head, hashes):",
        "if lost := []:",
        ["tests/archive/test_pusher.py", "-k", "not_seen_in_its_commit"],
    ),
    Mutant(
        "what the repository ignores is left out without a word",
        "consumer/archive/hub.py",
        "            if ignored:\n",
        "            if False:\n",
        ["tests/archive/test_pusher.py", "-k", "ignores"],
    ),
    Mutant(
        "a results JSON has any file sent",
        "consumer/archive/parcels.py",
        "            if entry.file != files.samples(task):\n",
        "            if False:\n",
        ["tests/archive/test_pusher.py", "-k", "other_files_sent"],
    ),
    Mutant(
        "links are followed wherever they lead",
        "consumer/archive/parcels.py",
        "            if not source.resolve().is_relative_to(inside):\n",
        "            if False:\n",
        ["tests/archive/test_pusher.py", "-k", "leads_elsewhere"],
    ),
    Mutant(
        "commits go as quickly as they can",
        "consumer/archive/pusher.py",
        "            ready_at = max(place.not_before, *(self._may_commit_at(repo) for repo in repos))\n",
        "            ready_at = place.not_before\n",
        ["tests/archive/test_pusher.py", "-k", "commits_of_an_hour"],
    ),
    Mutant(
        "a card is believed whoever edited it",
        "consumer/archive/front_matter.py",
        '        if seal != _seal(f"{content}\\n"):\n',
        "        if False:\n",
        ["tests/archive/test_card.py", "-k", "edited"],
    ),
    Mutant(
        "a public repository is written to unasked",
        "consumer/archive/hub.py",
        "            if not info.private and not wanted.public:\n",
        "            if False:\n",
        ["tests/archive/test_hub_calls.py", "-k", "public"],
    ),
    Mutant(
        "the card is committed whatever came meanwhile",
        "consumer/archive/hub.py",
        "parent_commit=parent, **where",
        "**where",
        ["tests/archive/test_pusher.py", "-k", "four_who_push"],
    ),
    Mutant(
        "other bytes on the Hub are overwritten",
        "consumer/archive/shelf.py",
        "            if differs and not overwrite:\n",
        "            if False:\n",
        ["tests/archive/test_pusher.py", "-k", "other_bytes"],
    ),
    Mutant(
        "what a pusher that died was at is forgotten",
        "consumer/archive/outbox.py",
        "\"reason = 'the process that pushed it ended' WHERE state = 'pushing'\"",
        "\"reason = 'the process that pushed it ended' WHERE state = 'nothing'\"",
        ["tests/archive/test_outbox.py"],
    ),
    Mutant(
        "the outbox forgets in a power cut",
        "consumer/archive/outbox.py",
        'database.execute("PRAGMA synchronous = FULL")',
        'database.execute("PRAGMA synchronous = OFF")',
        [ORDER],
    ),
)


class Verdict(NamedTuple):
    mutant: Mutant
    outcome: str
    detail: str
    seconds: float


def misfits() -> Iterator[str]:
    """Mutants whose text is not, exactly once, in their file."""
    for mutant in MUTANTS:
        found = (ROOT / mutant.path).read_text("utf-8").count(mutant.before)
        if found != 1:
            yield f"{mutant.name}: its text is {found} times in {mutant.path}"


def copy_tree(target: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis")
            )
        else:
            shutil.copy2(source, target / name)
    return target


def run_tests(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy, which comes first wherever Python looks."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env={
            **os.environ,
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "EVALSINK_PROOF_EXAMPLES": EXAMPLES,
            "EVALSINK_PROOF_MUTANT": "1",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def try_mutant(mutant: Mutant) -> Verdict:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = copy_tree(Path(folder))
        path = tree / mutant.path
        content = path.read_text("utf-8")
        if content.count(mutant.before) != 1:
            return Verdict(mutant, "DOES NOT FIT", mutant.path, 0.0)
        path.write_text(content.replace(mutant.before, mutant.after), "utf-8")
        compile(path.read_text("utf-8"), str(path), "exec")
        try:
            done = run_tests(tree, mutant.tests)
        except subprocess.TimeoutExpired:
            # On a busy machine a slow one looks like one that hangs: it proves nothing.
            return Verdict(mutant, "TIMED OUT", f"after {TIMEOUT_S} s", time.monotonic() - started)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    detail = failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else done.stdout[-200:]
    # 1: tests failed. Anything else, a collection error say, proves nothing.
    outcome = {0: "SURVIVED", 1: "caught"}.get(done.returncode, f"BROKEN (pytest: {done.returncode})")
    return Verdict(mutant, outcome, detail, time.monotonic() - started)


def check_unchanged(mutants: Sequence[Mutant]) -> str:
    """What fails without any mutant; "" if nothing does."""
    plain = {test for mutant in mutants if "-k" not in mutant.tests for test in mutant.tests}
    selected = {tuple(mutant.tests) for mutant in mutants if "-k" in mutant.tests}
    selections = [tuple(sorted(plain)), *sorted(selected)] if plain else sorted(selected)
    with tempfile.TemporaryDirectory(prefix="unchanged-") as folder:
        tree = copy_tree(Path(folder))
        for tests in selections:
            done = run_tests(tree, tests)
            if done.returncode:
                return f"{' '.join(tests)}\n{done.stdout[-2000:]}{done.stderr[-500:]}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--only", default="", help="mutants whose names contain this")
    parser.add_argument("--no-unchanged", action="store_true", help="spare the run without a mutant")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    started = time.monotonic()
    if not options.no_unchanged and (failing := check_unchanged(chosen)):
        sys.stdout.write(f"These tests fail without any mutant:\n{failing}\n")
        return 1
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = []
        for verdict in pool.map(try_mutant, chosen):
            verdicts.append(verdict)
            sys.stdout.write(
                f"{verdict.outcome:12} {verdict.seconds:5.0f} s  {verdict.mutant.name}\n"
                f"{'':21}{verdict.detail.strip()}\n"
            )
            sys.stdout.flush()
    missed = [verdict for verdict in verdicts if verdict.outcome != "caught"]
    caught = len(verdicts) - len(missed)
    sys.stdout.write(f"{caught} of {len(verdicts)} caught in {time.monotonic() - started:.0f} s\n")
    return 1 if missed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
