"""`python -m tests.fuzz --inputs 1000000`: every reader, with inputs shared out among them; findings are printed, and fail it."""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutate
from tests.fuzz.subjects import subjects


def fuzz(inputs: int, seed: int, *, only: str = "") -> tuple[Counter, dict[str, str]]:
    """How many inputs each reader took, and what it raised: reader and place to an input with its traceback."""
    dice = Random(seed)
    taken, findings = Counter(), {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        chosen = {name: one for name, one in subjects(Path(folder)).items() if only in name}
        whole = sum(one.share for one in chosen.values()) or 1
        for name, subject in chosen.items():
            # Those without a share touch a database for each input: a few thousand of them say enough.
            number = max(1, inputs * subject.share // whole) if subject.share else min(inputs // 200, 5000)
            for _ in range(number):
                content = mutate(dice, subject.examples)
                try:
                    subject.take(content)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    key = f"{name}: {type(error).__name__} at {place.filename}:{place.lineno}"
                    findings.setdefault(key, f"{content!r}\n{traceback.format_exc()}")
                taken[name] += 1
    return taken, findings


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="", help="readers whose names contain this")
    options = parser.parse_args()
    logging.disable()  # most inputs are logged as damaged
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    started = time.monotonic()
    taken, findings = fuzz(options.inputs, seed, only=options.only)
    for name, number in taken.items():
        say(f"{number:10,}  {name}")
    say(f"{taken.total():10,}  in all, seed {seed}, {time.monotonic() - started:.0f} s")
    for key, detail in findings.items():
        say(f"\nFOUND {key}\n{detail}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
