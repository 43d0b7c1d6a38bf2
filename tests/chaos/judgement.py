"""What is left of a chaos run, judged: against one undisturbed worker, and against what was sent.

Nothing here asks evalsink: the log, the receipts, the dead letters and the files are read as they lie, and counted by
what the producer knows of its records. Every finding is a sentence; none is what everybody hopes for.
"""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from schemas.state import Receipt
from tests.observing import Place, read_all

PARTIAL = "partial"


def tree(root):
    """Path to content of every published file."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file() and not {".evalsink", PARTIAL} & set(path.relative_to(root).parts)
    }


def left_below(root, folder):
    """Files below a folder of the output, in which nothing should be left."""
    return sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file())


def differences_of_trees(one, other):
    """Paths that are in one alone, or with other bytes."""
    digests = [
        {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
        for found in (one, other)
    ]
    found = [f"{name}: published by the group alone" for name in sorted(one.keys() - other)]
    found += [f"{name}: published by the undisturbed worker alone" for name in sorted(other.keys() - one)]
    found += [
        f"{name}: other bytes than those of the undisturbed worker"
        for name in sorted(one.keys() & other)
        if digests[0][name] != digests[1][name]
    ]
    return found


def documents(files):
    """The results JSONs by run_id, each with its path."""
    found = {}
    for name, content in files.items():
        if name.endswith("_results.json"):
            document = json.loads(content)
            found[document["evalsink"]["run_id"]] = (name, document)
    return found


def letters_of(records):
    """Place of the source to (reason, value, headers); a letter that was written again must say the same."""
    found, differing = {}, []
    for record in records:
        headers = dict(record.headers)
        place = Place(headers["topic"].decode(), int(headers["partition"]), int(headers["offset"]))
        letter = (headers["reason"].decode(), record.value, tuple(record.headers), record.key)
        if found.setdefault(place, letter) != letter:
            differing.append(f"{place}: two dead letters that differ")
    return found, differing


def read_receipts(broker, topic, group):
    """(receipts by run_id, how many were written, findings)."""
    found, written, findings = {}, 0, []
    for record in read_all(broker, topic):
        receipt = msgspec.json.decode(record.value, type=Receipt)
        if receipt.group != group:
            continue
        written += 1
        if found.setdefault(receipt.run_id, (record.partition, receipt)) != (record.partition, receipt):
            findings.append(f"{receipt.run_id}: two receipts of {group} that differ")
    return found, written, findings


class Account:
    """Where every record that was sent has gone."""

    def __init__(self, sent, log, *, letters, receipts, files, topics):
        self._topics = topics
        self._letters = letters
        self._receipts = receipts
        self._documents = documents(files)
        self._files = files
        self.findings = []
        self.records = Counter()
        """Where the records went: a kind, or the reason of a dead letter, to their number."""
        self.rows = Counter()
        self.statuses = Counter(document["evalsink"]["status"] for _, document in self._documents.values())
        self._good = defaultdict(Counter)
        self._identities = defaultdict(lambda: defaultdict(set))
        self._bad = defaultdict(lambda: defaultdict(set))
        self._check_log(sent, log)
        for parcel, place in sent:
            self._place(parcel, place)
        self._check_letters(sent)
        self._check_runs({parcel.run_id for parcel, _ in sent if parcel.run_id})
        if sum(self.records.values()) != len(log):
            self.findings.append(f"{len(log)} records in the log, {sum(self.records.values())} accounted for")

    def _check_log(self, sent, log):
        """The log holds what was sent, where it was acknowledged, and what workers write, and nothing else."""
        there = {Place(record.topic, record.partition, record.offset): record for record in log}
        for parcel, place in sent:
            record = there.pop(place, None)
            if record is None or (record.key, record.value) != (parcel.sending.key, parcel.sending.value):
                self.findings.append(f"{place}: acknowledged, but not in the log")
        for place, record in there.items():
            try:
                event = json.loads(record.value or b"")
            except ValueError:
                event = None
            if not isinstance(event, dict) or event.get("type") != "run_expired":
                self.findings.append(f"{place}: nobody sent it")
            self.records["run_expired, written by workers"] += 1

    def _place(self, parcel, place):
        letter = self._letters.get(place)
        reason = letter[0] if letter is not None else None
        if parcel.kind == "garbage":
            if reason in {None, "late", "unexpected", "bad-rows"}:
                self.findings.append(f"{place}: garbage, and {reason or 'no dead letter'}")
            self.records[f"dead letter: {reason}"] += 1
            return
        partition, receipt = self._receipts.get(parcel.run_id, (None, None))
        if receipt is None:
            self.findings.append(f"{place}: of {parcel.run_id!r}, which has no receipt")
            return
        if partition != place.partition:
            self.findings.append(
                f"{place}: of {parcel.run_id!r}, whose receipt lies in partition {partition}"
            )
        cut = receipt.aggregates if place.topic == self._topics.aggregates else receipt.samples
        told, expected = self._fate(parcel, reason, is_late=place.offset > cut.offset)
        self.records[told] += 1
        if reason != expected:
            self.findings.append(
                f"{place}: {parcel.kind} of {parcel.run_id!r}, whose cut is {cut.offset}: "
                f"{reason or 'no dead letter'}, and not {expected or 'none'}"
            )

    def _fate(self, parcel, reason, *, is_late):
        """Where a record goes, as the report says it, and the reason of the dead letter that there has to be."""
        if is_late:
            return "dead letter: late", "late"
        if parcel.kind == "rows":
            self._count_rows(parcel)
            if parcel.bad:
                return "rows in a run, and a dead letter for the bad ones", "bad-rows"
        elif parcel.kind == "aggregate" and reason == "unexpected":
            return "dead letter: unexpected", "unexpected"
        return f"{parcel.kind} in a run", None

    def _count_rows(self, parcel):
        for row in parcel.good:
            self._good[parcel.run_id][row.task] += 1
            self._identities[parcel.run_id][row.task].add(row)
        for row in parcel.bad:
            self._bad[parcel.run_id][row.task].add(row)

    def _check_letters(self, sent):
        values = {place: parcel.sending for parcel, place in sent}
        for place, (_, value, headers, _) in self._letters.items():
            sending = values.get(place)
            if sending is None:
                self.findings.append(f"{place}: a dead letter of a record that nobody sent")
            elif (sending.value or b"") != value or sending.key != dict(headers).get("key"):
                self.findings.append(f"{place}: a dead letter that does not hold its record")

    def _check_runs(self, run_ids):
        """Each run was published once, and its counts are those of the records up to its cuts."""
        for run_id in sorted(run_ids ^ self._documents.keys()):
            self.findings.append(f"{run_id}: {'not published' if run_id in run_ids else 'nobody sent it'}")
        for run_id in sorted(run_ids ^ self._receipts.keys()):
            self.findings.append(
                f"{run_id}: {'no receipt' if run_id in run_ids else 'a receipt, and nobody sent it'}"
            )
        for run_id in sorted(run_ids & self._documents.keys()):
            name, document = self._documents[run_id]
            if (
                run_id in self._receipts
                and self._receipts[run_id][1].sha256 != hashlib.sha256(self._files[name]).hexdigest()
            ):
                self.findings.append(f"{run_id}: its receipt names other bytes than those of {name}")
            self._check_run(run_id, name, document["evalsink"]["tasks"])

    def _check_run(self, run_id, name, tasks):
        folder = name.rpartition("/")[0]
        for task in sorted(tasks.keys() | self._good[run_id].keys()):
            entry = tasks.get(task)
            if entry is None:
                self.findings.append(f"{run_id}: no entry for {task}")
                continue
            counts = {
                key: entry[key] for key in ("rows", "duplicates", "conflicts", "superseded", "rejected")
            }
            self.rows.update(counts)
            sent = self._good[run_id][task]
            if sent != sum(counts.values()) - counts["rejected"]:
                self.findings.append(f"{run_id}: {sent} rows of {task} up to its cut, counted {counts}")
            identities = self._identities[run_id][task]
            if len(identities) != counts["rows"]:
                self.findings.append(
                    f"{run_id}: {len(identities)} samples of {task} up to its cut, {counts['rows']} published"
                )
            rejected = len(self._bad[run_id][task] - identities)
            if rejected != counts["rejected"]:
                self.findings.append(
                    f"{run_id}: {rejected} samples of {task} never came good, {counts['rejected']} counted"
                )
            if entry["file"] is not None:
                content = self._files.get(f"{folder}/{entry['file']}" if folder else entry["file"], b"")
                if (
                    hashlib.sha256(content).hexdigest() != entry["sha256"]
                    or content.count(b"\n") != counts["rows"]
                ):
                    self.findings.append(f"{run_id}: {entry['file']} is not what the results JSON says")


def findings_on_the_hub(repository, files, *, of_every_status):
    """The repository holds the files of every complete run, each put there once, and its card names them all.

    With `of_every_status` those of the others too.
    """
    stems = {
        name.removesuffix("_results.json").rpartition("/")[2]
        for name, document in documents(files).values()
        if of_every_status or document["evalsink"]["status"] == "complete"
    }
    expected = {path: content for path, content in files.items() if any(stem in path for stem in stems)}
    there = {path: content for path, content in repository.files().items() if path != "README.md"}
    found = [f"{path}: not on the Hub" for path in sorted(expected.keys() - there)]
    found += [f"{path}: on the Hub, and should not be" for path in sorted(there.keys() - expected)]
    found += [
        f"{path}: other bytes on the Hub"
        for path in sorted(expected.keys() & there)
        if expected[path] != there[path]
    ]
    found += [f"commit {commit.oid}: changed nothing" for commit in repository.empty_commits]
    times = Counter(path for commit in repository.commits for path in commit.changed if path != "README.md")
    found += [f"{path}: changed by {number} commits" for path, number in sorted(times.items()) if number != 1]
    card = repository.files().get("README.md", b"").decode()
    found += [f"{stem}: not in the card" for stem in sorted(stems) if stem not in card]
    return found
