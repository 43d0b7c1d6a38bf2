"""A real Apache Kafka on loopback, from published jars and the machine's Java: for `make kafka` and the tests.

`jars` says whether this machine can run one and fetches what it needs; `broker` runs one and never leaves a JVM
behind; `laptop` keeps one running for a person; `python -m tests.kafka_harness` is the door for the Makefile.
"""

from tests.kafka_harness.broker import RealKafka, free_ports
from tests.kafka_harness.jars import HarnessError, ensure_jars, libs, why_not

__all__ = ["HarnessError", "RealKafka", "ensure_jars", "free_ports", "libs", "why_not"]
