"""Helm as the tests call it: the one in PATH, else the one that `make helm` built.

What the chart says about a call is told by its exit code and its text; nothing here interprets them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.docs.pages import ROOT, read

CHART = ROOT / "deploy" / "chart"
EVERYTHING = ROOT / "deploy" / "kubernetes" / "everything.values.yaml"


KUBERNETES = ("1.27.0", "1.37.0")
"""The oldest that the chart allows, and the newest whose schemas the tests have."""


def find():
    """Path of a helm to use, None where there is none."""
    version = re.search(r"^HELM_VERSION := (\S+)$", read("Makefile"), re.MULTILINE)[1]
    built = ROOT / ".cache" / f"helm-{version}" / "helm"
    return shutil.which("helm") or (str(built) if built.is_file() else None)


def parse(text):
    """Every object of a YAML text. With libyaml: dashboards are long."""
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None]


class RefusedError(Exception):
    """Helm did not do it; the text is what it says."""


class Helm:
    """A helm that knows no cluster, and nothing of the user's own set-up."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [self._program, *map(str, arguments)],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RefusedError(done.stderr + done.stdout)
        return done.stdout

    def template(self, *options: str | Path, chart: Path = CHART, release: str = "evalsink") -> str:
        """What would be installed."""
        # Which cluster it thinks of by itself depends on how it was built.
        place = ("--namespace", "evalsink", "--kube-version", KUBERNETES[-1])
        return self("template", release, chart, *place, *options)

    def objects(self, *options: str | Path, chart: Path = CHART, release: str = "evalsink"):
        """The same, parsed: (kind, name) to object. Two of one name are refused, as a cluster would not."""
        found = {}
        for one in parse(self.template(*options, chart=chart, release=release)):
            key = one["kind"], one["metadata"]["name"]
            assert key not in found, f"two objects are {key}"
            found[key] = one
        return found
