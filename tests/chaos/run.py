"""One chaos run from its first process to its verdict.

The way: a broker and a Hub of its own -> evaluators publish, workers consume, the adversary strikes -> calm: the group
ends what is left by itself -> one worker of another group reads the same log, undisturbed -> judgement.

Invariant: whatever happens, no process and no mount is left. The folder is kept if there is a finding.
"""

import random
import shutil
import subprocess
import time
from collections import Counter

import msgspec
from msgspec import Struct

from consumer.vocabulary import TopicPartition
from tests.chaos import judgement
from tests.chaos.adversary import SESSION_S, Adversary
from tests.chaos.group import Group, Place
from tests.chaos.life import SMALL
from tests.chaos.sending import Evaluators
from tests.chaos.workload import Workload
from tests.conftest import Broker
from tests.hand_over.processes import published, write_config
from tests.hub_server import GOOD_TOKEN, HubServer
from tests.kafka_harness import RealKafka
from tests.observing import committed, read_all, until

REPO = "org/chaos"
PARTITIONS = 6
SPARE = "spare"


class Plan(Struct, frozen=True):
    """How long, how hard.

    Attributes:
        seed: Decides what is sent and what is done.
        targets: Kind of fault to how many there have to be.
        at_least_s: Shortest time of faults.
        at_most_s: Longest, whether or not all targets are met.
        era_s: How long members are static, or dynamic, before they change.
        run_every_s: Mean time between the starts of runs.
        run_s: Longest time from a run's first record to its last.
        abandon_after_s: When runs that fell silent are given up; None: there are no such runs.
        end_within_s: How long the group may take, once left in peace, to end everything.
        durable: Where a run has to be before its receipt: ``output`` or ``hub``.
    """

    seed: int
    targets: dict[str, int]
    at_least_s: float
    at_most_s: float
    era_s: float = 150.0
    run_every_s: float = 2.0
    run_s: float = 45.0
    abandon_after_s: float | None = 150.0
    end_within_s: float = 420.0
    durable: str = "output"


class Report(Struct):
    """What happened, and what was found."""

    seed: int
    durable: str
    findings: list[str] = []
    seconds: dict[str, float] = {}
    faults: dict[str, int] = {}
    killed_at: dict[str, int] = {}
    ends: dict[str, int] = {}
    errors_logged: dict[str, int] = {}
    runs: dict[str, int] = {}
    records: dict[str, int] = {}
    rows: dict[str, int] = {}
    files: int = 0
    receipts: dict[str, int] = {}
    dead_letters: dict[str, int] = {}
    hub: dict[str, int] = {}
    notes: list[str] = []


def run_chaos(plan, folder, say=print):
    """Run it in `folder`. Returns the report; with findings, the folder is kept."""
    chaos = _Chaos(plan, folder, say)
    try:
        chaos.run()
    except BaseException as error:
        chaos.report.findings.append(f"the chaos run itself failed: {type(error).__name__}: {error}")
        raise
    finally:
        chaos.close()
    return chaos.report


class _Chaos:
    def __init__(self, plan, folder, say):
        self._plan, self._folder, self._say = plan, folder, say
        self.report = Report(plan.seed, plan.durable)
        self._began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._kafka = RealKafka(folder / "kafka")
        self._hub = HubServer(xet=False)
        self._group = None
        self._alone = None
        self._output, self._undisturbed = folder / "output", folder / "undisturbed"

    def run(self):
        plan = self._plan
        self._kafka.start()
        self._hub.up()
        self._broker = Broker(self._kafka.bootstrap, embedded=False)
        self._topics = self._broker.topics(partitions=PARTITIONS)
        config = write_config(
            self._folder / "settings.toml",
            self._kafka.bootstrap,
            self._topics,
            session_timeout_ms=int(SESSION_S * 1000),
            checkpoint_interval_s=0.3,
            poll_timeout_ms=100,
            poll_records_max=40,
            grace_s=min(30.0, plan.abandon_after_s or 30.0),
            abandon_after_s=plan.abandon_after_s or 86_400.0,
        )
        self._worker = ["worker", "--config", str(config)]
        self._group = Group(
            self._folder,
            ["one", "two", "three", SPARE],
            [*self._worker, "--group", "chaos", "--output", str(self._output)],
            self._archive_settings(),
        )
        targets = dict(plan.targets)
        if not all(place.disk.is_small for place in self._group.places):
            targets.pop("full disk", None)
            self.report.notes.append("no disk was ever full: small ones need the right to mount a tmpfs")
        dice = random.Random(plan.seed)
        workload = Workload(
            self._topics,
            random.Random(dice.random()),
            duration_s=plan.run_s,
            silent=plan.abandon_after_s is not None,
        )
        evaluators = Evaluators(
            self._broker, workload.runs(), random.Random(dice.random()), every_s=plan.run_every_s
        )
        adversary = Adversary(
            self._group, self._kafka, self._hub, dice, era_s=plan.era_s, static_first=bool(plan.seed % 2)
        )
        evaluators.start()
        self._progress("publishing, and striking")
        self._time(
            "faults",
            lambda: adversary.strike(targets, at_least_s=plan.at_least_s, at_most_s=plan.at_most_s),
        )
        self._progress(f"faults: {_told(adversary.counted())}")
        sent = evaluators.finish()
        adversary.calm_down()
        self._time("left in peace", lambda: self._end(evaluators.runs))
        self._note_faults(adversary, targets)
        of_group = read_all(self._broker, self._topics.dead_letters)
        self._time("undisturbed worker", self._work_alone)
        self._time("judgement", lambda: self._judge(sent, evaluators.runs, of_group))

    def close(self):
        report = self.report
        keep = bool(report.findings)
        if self._group is not None:
            self._group.close(keep=keep)
        if self._alone is not None:
            if self._alone.runs:
                self._alone.kill()
            self._alone.disk.close(keep=keep)
        self._hub.close()
        self._kafka.stop()
        report.seconds["in all"] = round(time.monotonic() - self._began, 1)
        if not keep:
            shutil.rmtree(self._folder)

    def _archive_settings(self):
        home = self._folder / "hf"
        return {
            SMALL: "1",
            "HF_TOKEN": GOOD_TOKEN,
            "HF_HOME": str(home),
            "EVALSINK_DURABLE": self._plan.durable,
            "EVALSINK_HUB_REPO": REPO,
            "EVALSINK_HUB_ENDPOINT": self._hub.endpoint,
            "EVALSINK_HUB_XET": "false",
            "EVALSINK_HUB_LINGER_S": "2",
            "EVALSINK_HUB_COMMITS_PER_HOUR": "3600",
            "EVALSINK_HUB_TIMEOUT_S": "20",
            "EVALSINK_HUB_UPLOAD_TIMEOUT_S": "60",
            "EVALSINK_HUB_PARKED_RETRY_S": "5",
        }

    def _end(self, runs):
        """The group closes and archives everything by itself."""
        self._group.stop()
        places = [place for place in self._group.places if place.name != SPARE]
        for place in places:
            place.start()

        def closed():
            assert not (gone := self._group.reap()), f"{[one.name for one in gone]} ended in peace"
            return published(self._output) >= len(runs)

        try:
            until(closed, "every run published", timeout_s=self._plan.end_within_s, every_s=0.5)
        except AssertionError as error:
            self.report.findings.append(f"left in peace: {error}")
        self._group.stop()
        # Every place once more, the spare one too: what its outbox holds has to reach the Hub as well.
        for place in self._group.places:
            self._work_until_idle(place)

    def _work_until_idle(self, place):
        place.start(more=("--exit-when-idle", "2"))
        try:
            code = place.process.wait(self._plan.end_within_s)
        except subprocess.TimeoutExpired:
            self.report.findings.append(f"{place.name} does not come to rest: {place.said()[-3:]}")
            return
        place.process = None
        if code != 0:
            self.report.findings.append(f"{place.name} ended with {code} at the end")

    def _work_alone(self):
        """One worker of another group, to which nothing happens."""
        self._alone = Place(
            "alone", self._folder, [*self._worker, "--group", "alone", "--output", str(self._undisturbed)], {}
        )
        self._work_until_idle(self._alone)

    def _note_faults(self, adversary, targets):
        report, group = self.report, self._group
        report.faults = dict(sorted(adversary.counted().items()))
        report.killed_at = dict(sorted(group.killed_at.items()))
        report.ends = dict(sorted(group.ends.items()))
        report.errors_logged = dict(sorted(group.errors().items()))
        report.findings += group.unexplained
        report.findings += [
            f"{action}: {number} times in the log"
            for action, number in report.errors_logged.items()
            if action
            in {"determinism_violation", "close_out_crashed", "spool_damaged", "push_crashed", "traceback"}
        ]
        report.findings += [
            f"{name}: {report.faults.get(name, 0)} of {number}"
            for name, number in targets.items()
            if report.faults.get(name, 0) < number
        ]

    def _judge(self, sent, runs, of_group):
        report = self.report
        files, alone = judgement.tree(self._output), judgement.tree(self._undisturbed)
        report.files = len(files)
        report.findings += judgement.differences_of_trees(files, alone)
        letters, differing = judgement.letters_of(of_group)
        known = {(record.partition, record.offset) for record in of_group}
        of_alone, more = judgement.letters_of(
            record
            for record in read_all(self._broker, self._topics.dead_letters)
            if (record.partition, record.offset) not in known
        )
        report.findings += differing + more
        report.findings += [
            f"{place}: a dead letter of one group that the other does not have"
            for place in sorted(dict(letters.items() ^ of_alone.items()))
        ]
        report.dead_letters = {"records": len(letters), "written": len(of_group)}
        log = read_all(self._broker, *self._topics.inputs)
        receipts, written, findings = judgement.read_receipts(self._broker, self._topics.receipts, "chaos")
        alone_receipts, _, more = judgement.read_receipts(self._broker, self._topics.receipts, "alone")
        report.findings += findings + more
        if {one: (p, r.sha256, r.samples, r.aggregates) for one, (p, r) in receipts.items()} != {
            one: (p, r.sha256, r.samples, r.aggregates) for one, (p, r) in alone_receipts.items()
        }:
            report.findings.append("the receipts of the two groups differ")
        report.receipts = {"runs": len(receipts), "written": written}
        account = judgement.Account(
            sent, log, letters=letters, receipts=receipts, files=files, topics=self._topics
        )
        report.findings += account.findings
        report.records = {"in the log": len(log), **dict(sorted(account.records.items()))}
        report.rows = dict(account.rows)
        report.runs = {"sent": len(runs), **dict(account.statuses)}
        documents = judgement.documents(files)
        report.findings += [
            f"{run_id}: should be complete, is {document['evalsink']['status']}: {document['evalsink']['why']}"
            for run_id, (_, document) in documents.items()
            if run_id in runs and runs[run_id].complete and document["evalsink"]["status"] != "complete"
        ]
        repository = self._hub.repo(REPO)
        report.findings += judgement.findings_on_the_hub(
            repository, files, of_every_status=self._plan.durable == "hub"
        )
        report.hub = {
            "files": len(repository.files()),
            "commits": len(repository.commits),
            "empty commits": len(repository.empty_commits),
            "requests": len(self._hub.requests),
            "calls it does not know": len(self._hub.unknown),
        }
        if left := judgement.left_below(self._output, judgement.PARTIAL):
            report.notes.append(f"left below partial/: {len(left)} files, such as {left[0]}")
        if left := judgement.left_below(self._output, ".evalsink"):
            report.notes.append(f"left below .evalsink/: {len(left)} files, such as {left[0]}")
        self._check_commits()

    def _check_commits(self):
        """Both groups have committed the whole log, and no watermark lies behind."""
        places = [
            TopicPartition(topic, number) for topic in self._topics.inputs for number in range(PARTITIONS)
        ]
        for group in ("chaos", "alone"):
            for place, found in committed(self._broker, group, places).items():
                watermark = None if found is None else msgspec.json.decode(found.metadata)["w"]
                if found is None or watermark != found.offset:
                    self.report.findings.append(f"{group} {place}: committed {found}, and not all of it")

    def _time(self, name, action):
        began = time.monotonic()
        action()
        self.report.seconds[name] = round(time.monotonic() - began, 1)
        self._progress(f"{name}: {self.report.seconds[name]:.0f} s")

    def _progress(self, text):
        self._say(f"[{time.monotonic() - self._began:6.0f} s] {text}")


def _told(counted):
    return ", ".join(f"{number} {name}" for name, number in sorted(Counter(counted).items()))
