"""`python -m tests.chaos --seed N`: the long run, its report on stdout, exit code 1 on any finding."""

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from tests.chaos.run import Plan, run_chaos

TARGETS = {
    "SIGKILL": 200,
    "rebalance": 20,
    "broker restart": 5,
    "wiped disk": 5,
    "zombie": 5,
    "full disk": 5,
    "left in order": 5,
}
MINUTES = 25.0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="decides what is sent and what is done; one at random if not given"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="longest time of faults (%(default)s)")
    parser.add_argument("--report", type=Path, help="write the report there, as JSON")
    parser.add_argument("--folder", type=Path, help="work there; a temporary folder if not given")
    parser.add_argument("--durable-hub", action="store_true", help="receipts only once a run is on the Hub")
    given = parser.parse_args()
    # Asked to end, it still takes its processes and mounts away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    click.echo(f"seed {seed}")
    folder = given.folder or Path(tempfile.mkdtemp(prefix=f"evalsink-chaos-{seed}-"))
    plan = Plan(
        seed,
        TARGETS,
        at_least_s=0.4 * given.minutes * 60,
        at_most_s=given.minutes * 60,
        durable="hub" if given.durable_hub else "output",
    )
    report = run_chaos(plan, folder.absolute(), click.echo)
    content = msgspec.json.format(msgspec.json.encode(report), indent=2)
    if given.report:
        given.report.write_bytes(content + b"\n")
    click.echo(content.decode())
    if report.findings:
        click.echo(f"{len(report.findings)} findings; everything is kept in {folder}")
        sys.exit(1)
    click.echo("no difference, and every record accounted for")


if __name__ == "__main__":
    main()
