"""Kafka's own commands without their scripts: `kafka-acls.sh` and the like from the jars.

Owns: a file to execute for each, which becomes that command's JVM; and what its clients can be told.
"""

import re
import shlex
import subprocess
from pathlib import Path

from tests.kafka_harness.jars import HARNESS, ensure_jars, java

CLASSES = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
}

# As short a life as a JVM can have.
_JVM = (
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:ActiveProcessorCount=1",
    "-Xshare:auto",
)


def make_command(folder: Path, name: str) -> Path:
    """`folder`/`name`, to be called as Kafka's script of that name.

    Raises:
        HarnessError: no Java, or no jars.
    """
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(_call(CLASSES[name]))} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path


def known_settings(client: str) -> set[str]:
    """The names of all that `producer.ProducerConfig` or another such class of Kafka's clients takes.

    They pass over what they do not know without a word.

    Raises:
        HarnessError: no Java, or no jars.
    """
    page = subprocess.run(
        _call(f"org.apache.kafka.clients.{client}"), capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r'<a id="([\w.]+)"', page))


def _call(main: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={HARNESS / 'log4j2.properties'}"
    return [java() or "java", *_JVM, logging, "-cp", f"{ensure_jars()}/*", main]
