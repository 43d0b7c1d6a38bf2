"""The list of mutants fits the sources, and what runs it tells a caught one from a surviving one."""

from tests.proof import mutants


def test_every_mutant_still_fits_its_source():
    assert [] == list(mutants.misfits())
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 20


def test_a_mutant_that_a_test_sees_is_caught_and_another_survives():
    seen = mutants.Mutant(
        "files appear in another order",
        "consumer/runs/publication.py",
        "for staged, target in self._files:\n            self._disk.make_folder",
        "for staged, target in reversed(self._files):\n            self._disk.make_folder",
        ["tests/runs/test_publication.py"],
    )
    assert "caught" == mutants.try_mutant(seen).outcome
    unseen = seen._replace(tests=["tests/runs/test_fields.py"])
    assert "SURVIVED" == mutants.try_mutant(unseen).outcome
    assert "DOES NOT FIT" == mutants.try_mutant(seen._replace(before="no such text anywhere")).outcome
    broken = mutants.try_mutant(seen._replace(tests=["tests/nowhere.py"]))
    assert broken.outcome.startswith("BROKEN")
