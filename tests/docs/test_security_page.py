"""docs/SECURITY.md names proofs: each of them exists, and every attempt and every secret has one."""

from tests.docs.pages import read, rows
from tests.docs.test_delivery_page import PROOF, functions

PAGE = "docs/SECURITY.md"


def test_every_test_named_exists():
    named = PROOF.findall(read(PAGE))
    assert len(named) > 50
    missing = [f"{file}::{name}" for file, name in named if name not in set(functions(file))]
    assert [] == missing


def test_every_attempt_and_every_secret_has_a_proof():
    tables = [row for row in rows(PAGE) if len(row) in {3, 4} and set(row[0]) != {"-"}]
    claims, heads = [], []
    for row in tables:
        (heads if row[-1] in {"proof", "must not have"} else claims).append(row)
    assert {"attempt", "secret", "who"} == {row[0] for row in heads}
    rights = {"producers", "workers", "the Hub token", "who reads published runs", "who watches"}
    unproved = [row[0] for row in claims if not PROOF.search(row[-1])]
    assert [] == [name for name in unproved if name not in rights and not name.startswith("who ")]
    assert len(claims) - len(unproved) > 40
