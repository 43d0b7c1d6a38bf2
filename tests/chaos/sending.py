"""The evaluators of a chaos run: a thread that publishes what the workload says, when it says, and keeps account.

Invariant: the account holds every record that the broker acknowledged, with its place, and no other. A record that the
broker never takes ends the chaos run: then nobody knows what the log holds.
"""

import threading
import time

from kafka import KafkaProducer

from tests.chaos.workload import spread
from tests.observing import Place

ACKNOWLEDGED_WITHIN_S = 240


class Evaluators:
    """Publish from `start` until `finish`."""

    def __init__(self, broker, runs, dice, *, every_s):
        self._runs, self._dice, self._every_s = runs, dice, every_s
        self._producer = KafkaProducer(
            **broker.connect().settings,
            acks="all",
            linger_ms=5,
            enable_idempotence=True,
            # Longer than a broker is ever away.
            delivery_timeout_ms=ACKNOWLEDGED_WITHIN_S * 1000,
            max_block_ms=ACKNOWLEDGED_WITHIN_S * 1000,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="evaluators", daemon=True)
        self._sent = []
        self._failure = None
        self.runs = {}
        """Runs of which a record was sent, by run_id."""

    def start(self):
        self._thread.start()

    def finish(self):
        """Begin no more runs, send the rest of those that began, and wait for every acknowledgement.

        Returns (parcel, place) of every record.
        """
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        account = []
        for parcel, future in self._sent:
            done = future.get(timeout=ACKNOWLEDGED_WITHIN_S)
            account.append((parcel, Place(done.topic, done.partition, done.offset)))
        self._producer.close()
        return account

    def _publish(self):
        try:
            started = time.monotonic()
            for at_s, parcel, run in spread(
                self._runs, self._dice, every_s=self._every_s, is_over=self._over.is_set
            ):
                self._over.wait(max(0.0, started + at_s - time.monotonic()))
                self.runs[run.run_id] = run
                one = parcel.sending
                self._sent.append((parcel, self._producer.send(one.topic, key=one.key, value=one.value)))
        except Exception as error:  # noqa: BLE001 - told by `finish`, on the thread that asks
            self._failure = error
