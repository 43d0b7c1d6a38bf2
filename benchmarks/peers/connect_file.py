"""Kafka Connect's FileStreamSink, stand-alone: a line of one file for each event, as it stands.

It decodes nothing and knows no tasks: less than the equal work. This program starts the JVM and watches the
file. It ends when that holds BENCH_BYTES; its rows are counted from the lines, of BENCH_BATCH rows each.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from stamps import commit_every_s, session_ms, wanted

LOOK_S = 0.005
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def configure(folder: Path) -> list[str]:
    """Write both files of settings. Returns the command."""
    brokers, topic, group, _, _ = wanted()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = "org.apache.kafka.connect.storage.StringConverter"
    libs = os.environ["BENCH_LIBS"]
    worker = {
        "bootstrap.servers": brokers,
        "key.converter": text,
        "value.converter": text,
        "offset.storage.file.filename": folder / "offsets",
        "offset.flush.interval.ms": round(commit_every_s() * 1000),
        "plugin.path": libs,
        "plugin.discovery": "service_load",
        "listeners": f"HTTP://127.0.0.1:{port}",
        "consumer.auto.offset.reset": "earliest",
        "consumer.max.poll.records": 5000,
    }
    if session_ms():
        worker["consumer.session.timeout.ms"] = session_ms()
    sink = {
        "name": group,
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "tasks.max": 1,
        "topics": topic,
        "file": folder / "events.jsonl",
    }
    for name, settings in (("worker", worker), ("sink", sink)):
        lines = [f"{key}={value}\n" for key, value in settings.items()]
        (folder / f"{name}.properties").write_text("".join(lines), "utf-8")
    logging = Path(__file__).parents[2] / "tests" / "kafka_harness" / "log4j2.properties"
    return [
        *(os.environ["BENCH_JAVA"], "-Xms256m", "-Xmx1g", f"-Dlog4j2.configurationFile={logging}"),
        *("-cp", f"{libs}/*", "org.apache.kafka.connect.cli.ConnectStandalone"),
        *(str(folder / "worker.properties"), str(folder / "sink.properties")),
    ]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def main() -> None:
    folder = Path(os.environ["BENCH_OUTPUT"])
    enough = int(os.environ["BENCH_BYTES"])
    java = subprocess.Popen(configure(folder), stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: java.terminate())
    file = folder / "events.jsonl"
    first = size = before = 0
    began = {}
    while java.poll() is None:
        size = file.stat().st_size if file.exists() else 0
        if size and not began:
            began, before = {"at": time.monotonic(), "cpu": cpu_s(java.pid)}, size
        if size >= enough:
            break
        time.sleep(LOOK_S)
    if size < enough:
        sys.exit(java.returncode)
    read = {"at": time.monotonic(), "cpu": cpu_s(java.pid)}
    java.terminate()  # it commits before it ends; that is not in its time
    java.wait()
    with file.open("rb") as content:
        first = content.read(before).count(b"\n")
        lines = first + content.read(size - before).count(b"\n")
    batch = int(os.environ["BENCH_BATCH"])
    told = {"ready": began, "first": began, "read": read, "done": read}
    told |= {"rows": lines * batch, "rows_before_first": first * batch}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
