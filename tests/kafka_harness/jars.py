"""What a real Kafka needs on this machine: Java 17 or newer, Maven, and the jars that Maven fetches once.

Owns `.kafka/libs-VERSION-DIGEST/` at the root of the checkout. The folder appears by one rename, so it is complete
or absent, also when two test runs fetch at a time. The digest is the pom's: other jars lie in another folder.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HARNESS = Path(__file__).parent
HOME = HARNESS.parents[1] / ".kafka"
"""Everything the harness downloads or keeps between calls; ignored by git."""

JAVA_MIN = 17
FETCH_TIMEOUT_S = 600


class HarnessError(Exception):
    """Kafka cannot be fetched, started or stopped; the message says why. No process is left behind."""


def version() -> str:
    """Kafka's version, as the pom pins it."""
    found = re.search(r"<kafka\.version>([^<]+)<", (HARNESS / "pom.xml").read_text("utf-8"))
    assert found, "pom.xml names kafka.version"
    return found[1]


def libs() -> Path:
    """Where the jars are once they have been fetched."""
    digest = hashlib.sha256((HARNESS / "pom.xml").read_bytes()).hexdigest()
    return HOME / f"libs-{version()}-{digest[:8]}"


def java() -> str | None:
    """The Java to run: that of JAVA_HOME, else the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")


def java_version() -> int:
    """Major version of `java()`; 0 when there is none or it does not say."""
    command = java()
    if command is None:
        return 0
    said = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def why_not() -> str | None:
    """Why a real Kafka cannot run here, as a sentence for the reader; None when it can."""
    if java() is None:
        return (
            f"a real Kafka needs Java {JAVA_MIN} or newer, and there is no `java` on the PATH or in JAVA_HOME"
        )
    if (found := java_version()) < JAVA_MIN:
        return (
            f"a real Kafka needs Java {JAVA_MIN} or newer; `{java()}` is Java {found or 'of unknown version'}"
        )
    if not libs().is_dir() and shutil.which("mvn") is None:
        return "the jars of a real Kafka are fetched with Maven, and there is no `mvn` on the PATH"
    return None


def ensure_jars() -> Path:
    """The folder with the jars, fetched if it is not there.

    Raises:
        HarnessError: Java or Maven missing, or the download failed.
    """
    if reason := why_not():
        raise HarnessError(reason)
    if libs().is_dir():
        return libs()
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="fetch-") as scratch:
        fetched = Path(scratch) / "libs"
        command = ["mvn", "--quiet", "--batch-mode", "--file", str(HARNESS / "pom.xml")]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=FETCH_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise HarnessError(
                f"Maven did not finish within {FETCH_TIMEOUT_S} s: {' '.join(command)}"
            ) from error
        if done.returncode or not any(fetched.glob("kafka_*.jar")):
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise HarnessError(f"Maven could not fetch Kafka {version()} (network?):\n{said}")
        try:
            fetched.rename(libs())
        except OSError:
            # Somebody else was quicker; theirs is as good.
            if not libs().is_dir():
                raise
    return libs()
