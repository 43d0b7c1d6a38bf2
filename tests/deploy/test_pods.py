"""What the chart renders, run: each container's own arguments, variables and files, with folders for its volumes.

A process instead of a container: image, user and read-only root are the image's tests' business.
"""

import os
import signal
import subprocess
import sys

import pytest
import yaml

from consumer.settings import Topics
from tests.conftest import ROOT
from tests.monitoring.asking import Pages
from tests.observing import until
from tests.worker.conftest import Stage
from tests.worker.evaluation import Evaluation

pytestmark = [pytest.mark.system, pytest.mark.kafka]


class Pod:
    """The only container of a pod, as a process."""

    def __init__(self, name, spec, objects, volumes, folder):
        self.container = spec["containers"][0]
        self._name, self._volumes, self.folder = name, volumes, folder / name
        self.folder.mkdir()
        self._mounts = {}
        for mount in self.container["volumeMounts"]:
            self._mounts[mount["mountPath"]] = self._place(mount["name"], spec, objects)
        self.pages = Pages()

    def _place(self, volume, spec, objects):
        """A folder for the volume, filled as Kubernetes fills it."""
        described = next((one for one in spec["volumes"] if one["name"] == volume), {})
        if "persistentVolumeClaim" in described:
            place = self._volumes / described["persistentVolumeClaim"]["claimName"]
        elif volume == "state":
            place = self._volumes / f"state-{self._name}"
        else:
            place = self.folder / volume
        place.mkdir(exist_ok=True)
        if "configMap" in described:
            data = objects["ConfigMap", described["configMap"]["name"]]["data"]
            wanted = described["configMap"].get("items") or [{"key": key, "path": key} for key in data]
            for item in wanted:
                (place / item["path"]).write_text(data[item["key"]], "utf-8")
        return place

    def _translated(self, text):
        for path, place in sorted(self._mounts.items(), reverse=True):
            if text == path or text.startswith(f"{path}/"):
                return f"{place}{text.removeprefix(path)}"
        return text.replace("0.0.0.0:9464", f"127.0.0.1:{self.pages.port}")

    def __enter__(self):
        fields = {"metadata.name": self._name}
        environment = {
            one["name"]: self._translated(one["value"])
            if "value" in one
            else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in self.container.get("env", [])
        }
        self._log = (self.folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "consumer", *map(self._translated, self.container["args"])],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self.folder,
        )
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._log.close()

    def said(self):
        return (self.folder / "log").read_text("utf-8")

    def probe(self, kind):
        """Whether the probe succeeds."""
        try:
            return self.pages.status(self.container[f"{kind}Probe"]["httpGet"]["path"]) == 200
        except OSError:
            return False

    def until(self, condition, what):
        def step():
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.said()}"
            return condition()

        until(step, f"{self._name}: {what}")


def test_the_job_makes_the_topics_and_two_workers_publish_and_stop_in_time(helm, real, tmp_path):
    mark = real.name()
    topics = Topics(
        *(f"{mark}-{purpose}" for purpose in ("samples", "aggregates", "receipts", "dead-letters"))
    )
    values = {
        "partitions": 4,
        "replicas": 2,
        "settings": {
            "brokers": real.bootstrap,
            "group": mark,
            "topics": {name: getattr(topics, name) for name in Topics.__struct_fields__},
        },
        "topicsJob": {"enabled": True, "replication": 1, "minInsyncReplicas": 1, "retentionDays": 0.5},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    objects = helm.objects("--values", file)
    volumes = tmp_path / "volumes"
    volumes.mkdir()

    with Pod(
        "topics", objects["Job", "evalsink-topics"]["spec"]["template"]["spec"], objects, volumes, tmp_path
    ) as job:
        assert 0 == job.process.wait(60), job.said()
        assert 4 == job.said().count("created")

    spec = objects["StatefulSet", "evalsink"]["spec"]["template"]["spec"]
    with (
        Pod("evalsink-0", spec, objects, volumes, tmp_path) as first,
        Pod("evalsink-1", spec, objects, volumes, tmp_path) as second,
    ):
        for one in (first, second):
            one.until(lambda one=one: one.probe("startup"), "started")
            assert one.probe("liveness")
            one.until(lambda one=one: one.probe("readiness"), "ready")
        stage = Stage(real, volumes, topics)
        runs = [Evaluation(f"run-{number}") for number in range(8)]
        for run in runs:
            stage.send([*run.body(), *(run.ended(shard) for shard in range(run.shards))])
        first.until(lambda: len(stage.results("evalsink-output")) == len(runs), "all runs published")
        assert {"complete"} == {
            one["evalsink"]["status"] for one in stage.results("evalsink-output").values()
        }
        for one in (first, second):
            one.process.send_signal(signal.SIGTERM)
        for one in (first, second):
            assert 0 == one.process.wait(spec["terminationGracePeriodSeconds"]), one.said()
            # Each had a share, and kept its files to itself.
            assert '"run_closed"' in one.said()
        assert (volumes / "state-evalsink-0" / "lock").is_file()
        assert (volumes / "state-evalsink-1" / "lock").is_file()
        # Nothing was written but into volumes.
        for one in (first, second):
            assert {"log", "settings", "tmp"} == {path.name for path in one.folder.iterdir()}
