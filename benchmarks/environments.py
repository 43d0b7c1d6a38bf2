"""What contenders run in, kept in ``.cache/bench/``: virtual environments from locks with hashes, and jars.

An environment is complete or absent: it is stamped with its lock's content at the end.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.broker import HOME

PEERS = Path(__file__).parent / "peers"
_POM = PEERS / "connect" / "pom.xml"
_FETCH_TIMEOUT_S = 600


def python_at(name: str) -> str:
    """The Python of the environment of ``peers/{name}.lock``, built if it is not there or differs."""
    lock = PEERS / f"{name}.lock"
    folder = HOME / f"venv-{name}"
    python, stamp = folder / "bin" / "python", folder / ".lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
        install = ["install", "--no-deps", "--no-compile", "--require-hashes", "-r", str(lock)]
        subprocess.run([*pip, *install], check=True)
        stamp.write_bytes(lock.read_bytes())
    return str(python)


def version_at(name: str, package: str) -> str:
    """The version of a package in that environment."""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [python_at(name), "-c", ask]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def connect_version() -> str:
    """Kafka Connect's, as the pom pins it."""
    found = re.search(r"<kafka\.version>([^<]+)<", _POM.read_text("utf-8"))
    assert found, "the pom names kafka.version"
    return found[1]


def connect_jars() -> Path:
    """The folder of Kafka Connect's jars, fetched by Maven if it is not there."""
    folder = HOME / f"connect-{connect_version()}"
    if folder.is_dir():
        return folder
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="fetch-") as scratch:
        command = ["mvn", "--quiet", "--batch-mode", "--file", str(_POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch}/libs"]
        subprocess.run(command, check=True, timeout=_FETCH_TIMEOUT_S, stdin=subprocess.DEVNULL)
        Path(scratch, "libs").rename(folder)
    return folder
