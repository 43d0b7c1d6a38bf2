"""`python -m tests.kafka_harness start|stop|jars`: what the Makefile calls."""

import argparse
import sys

from tests.kafka_harness import laptop
from tests.kafka_harness.jars import HarnessError, ensure_jars, libs, version, why_not


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kafka_harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start a broker that stays; does nothing when it runs already")
    start.add_argument("--port", type=int, default=9092)
    stop = commands.add_parser("stop", help="stop it")
    stop.add_argument("--port", type=int, default=9092)
    stop.add_argument("--all", action="store_true", help="every broker started from this checkout")
    jars = commands.add_parser("jars", help="fetch the jars")
    jars.add_argument(
        "--if-possible",
        action="store_true",
        help="where it is not, say why and exit 0: the tests skip, or in CI fail",
    )
    arguments = parser.parse_args()
    try:
        if arguments.command == "start":
            _say_when_fetching()
            print(laptop.start(arguments.port))  # noqa: T201 - a command speaks
        elif arguments.command == "stop":
            for port in laptop.ports() if arguments.all else [arguments.port]:
                print(laptop.stop(port))  # noqa: T201 - likewise
        else:
            _say_when_fetching()
            ensure_jars()
    except HarnessError as error:
        if arguments.command == "jars" and arguments.if_possible:
            sys.stderr.write(f"without real Kafka: {error}\n")
            return
        sys.exit(f"make kafka: {error}")


def _say_when_fetching() -> None:
    if why_not() is None and not libs().is_dir():
        sys.stderr.write(f"Fetching Kafka {version()} with Maven, once (about 45 MB) …\n")


if __name__ == "__main__":
    main()
