"""docs/DELIVERY.md names proofs: each of them exists, and every fault has one."""

import ast
import re

from tests.chaos.life import POINTS
from tests.docs.pages import ROOT, read, rows

PAGE = "docs/DELIVERY.md"
PROOF = re.compile(r"`?(tests/[\w/]+\.py)::(\w+(?:::\w+)?)`?")


def functions(file):
    """Names of the file's tests, those of classes with the class before them."""
    for node in ast.parse((ROOT / file).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef))


def test_every_test_named_exists():
    named = PROOF.findall(read(PAGE))
    assert len(named) > 60
    missing = [f"{file}::{name}" for file, name in named if name not in set(functions(file))]
    assert [] == missing


def test_every_fault_has_a_proof():
    faults = [row for row in rows(PAGE) if len(row) == 3 and row[0] != "fault" and set(row[0]) != {"-"}]
    assert len(faults) > 50
    assert [] == [row[0] for row in faults if not PROOF.search(row[2])]


def test_the_number_of_points_at_which_workers_are_killed_is_that_of_the_code():
    assert f"{len(POINTS)} named points" in " ".join(read(PAGE).split())
