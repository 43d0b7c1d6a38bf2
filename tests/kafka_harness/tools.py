"""Kafka's own commands without their scripts: `kafka-acls.sh` and the like from the jars.

Owns: a file to execute for each, which becomes that command's JVM. Nothing is started here.
"""

import shlex
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
    jars = ensure_jars()
    call = [
        java() or "java",
        *_JVM,
        f"-Dlog4j2.configurationFile={HARNESS / 'log4j2.properties'}",
        "-cp",
        f"{jars}/*",
        CLASSES[name],
    ]
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(call)} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path
