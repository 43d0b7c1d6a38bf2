"""A slice of the fuzzing in every build; the whole is `python -m tests.fuzz --inputs 1000000`."""

from tests.fuzz.__main__ import fuzz

SLICE = 6_000


def test_no_reader_raises_what_it_does_not_promise_and_no_path_leaves_the_folder():
    taken, findings = fuzz(SLICE, seed=20260101)
    assert {} == findings
    assert taken.total() >= SLICE
    assert all(number >= 1 for number in taken.values())


def test_what_a_reader_raises_is_found():
    _, findings = fuzz(300, seed=1, only="names")
    assert {} == findings
    from tests.fuzz import subjects

    def broken(content):
        raise KeyError(content)

    before, subjects.take_name = subjects.take_name, broken
    try:
        _, findings = fuzz(3, seed=1, only="names")
    finally:
        subjects.take_name = before
    [key] = findings
    assert key.startswith("names: KeyError at ")
