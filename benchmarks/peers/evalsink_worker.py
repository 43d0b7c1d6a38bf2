"""evalsink's own worker as its command runs it, metrics, watchdog and log included.

Ends when BENCH_ROWS rows are read, or BENCH_CLOSED runs closed, and all is saved; or on SIGTERM. The one
contender that runs in the project's environment, and imports the project.
"""

import os
from pathlib import Path

from stamps import Stamps, commit_every_s, session_ms, wanted

from consumer import assembly
from consumer.cli.worker import collect_garbage_less_often
from consumer.liveness import Watchdog, stop_on_signals
from consumer.monitoring import Monitor, no_outbox
from consumer.settings import Settings, Topics
from consumer.telemetry import logs


def main() -> None:
    brokers, topic, group, output, _ = wanted()
    rows, runs = int(os.environ["BENCH_ROWS"]), int(os.environ["BENCH_CLOSED"])
    name = topic.removesuffix(".samples")
    logs.configure()
    settings = Settings(
        brokers=brokers,
        group=group,
        output=str(Path(output, "output")),
        state=str(Path(output, "state")),
        topics=Topics(topic, f"{name}.aggregates", f"{name}.receipts", f"{name}.dead-letters"),
        http=os.environ["BENCH_HTTP"],
        checkpoint_interval_s=commit_every_s(),
        **({"session_timeout_ms": session_ms()} if session_ms() else {}),
    )
    stamps = Stamps()
    monitor = Monitor(settings)
    with (
        monitor.listening(insist=True),
        assembly.worker(settings, observe=monitor.observe, window=monitor.window) as worker,
    ):
        monitor.attach(worker, no_outbox)
        collect_garbage_less_often()

        read = 0

        def look() -> None:
            nonlocal read
            if runs and worker.counts.closed >= runs:
                stamps.mark("read")
                worker.stop()
            if worker.counts.rows == read:
                return
            read = worker.counts.rows
            stamps.first(read)
            stamps.mark("read")
            if read >= rows and not runs:
                worker.stop()

        stop_on_signals(worker, settings.drain_timeout_s)
        stamps.mark("ready")
        with Watchdog(lambda: worker.turns, settings.watchdog_s):
            worker.run(on_tick=look)  # returns after the last checkpoint and commit
        stamps.tell(worker.counts.rows)


if __name__ == "__main__":
    main()
