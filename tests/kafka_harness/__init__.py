"""A real Apache Kafka on loopback, from published jars and the machine's Java: for `make kafka` and the tests.

`jars` says whether this machine can run one and fetches what it needs; `broker` runs one and never leaves a JVM
behind; `keeper` shares one among the processes of a test session; `laptop` keeps one running for a person; `python -m tests.kafka_harness` is the door for the Makefile.
"""

from tests.kafka_harness.broker import RealKafka, free_ports
from tests.kafka_harness.jars import HarnessError, ensure_jars, libs, why_not
from tests.kafka_harness.keeper import Keeper, ask

__all__ = ["HarnessError", "Keeper", "RealKafka", "ask", "ensure_jars", "free_ports", "libs", "why_not"]
