"""docs/SETTINGS.md is true: every setting, with its default, its range, its unit and its variable; and no other."""

import tomllib

import msgspec
import pytest

from consumer.cli.worker import command as worker
from consumer.settings import Hub, Security, Settings, Topics, load
from tests.docs.pages import code, rows

PARTS = {"topics": Topics, "security": Security, "hub": Hub}
ONLY_IN_A_FILE = {"hub.eval_results"}
PAGE = {
    row[0]: row
    for row in rows("docs/SETTINGS.md")
    if len(row) > 3 and row[0] != "setting" and set(row[0]) != {"-"}
}
"""Rows of the tables by their first cell."""


def fields():
    """(name on the page, field as msgspec sees it) of every setting."""
    for field in msgspec.inspect.type_info(Settings).fields:
        if field.name in PARTS:
            for inner in msgspec.inspect.type_info(PARTS[field.name]).fields:
                yield f"{field.name}.{inner.name}", inner
        else:
            yield field.name, field


FIELDS = dict(fields())


def test_the_page_lists_every_setting_and_nothing_else():
    assert set(FIELDS) == set(PAGE)


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_is_that_of_the_code(name):
    default = FIELDS[name].default
    shown = tomllib.loads(f"value = {PAGE[name][1]}")["value"]
    default = list(default) if isinstance(default, tuple) else default
    assert (default, type(default) in {int, float}) == (shown, type(shown) in {int, float})


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - ONLY_IN_A_FILE))
def test_the_environment_variable_sets_it(name):
    variable = f"EVALSINK_{name.upper().replace('.', '_')}"
    assert variable in PAGE[name]


@pytest.mark.parametrize("name", [name for name in FIELDS if "." not in name])
def test_unit_and_range_are_those_of_the_code(name):
    told, kind = PAGE[name][2], FIELDS[name].type
    units = {"_s": "seconds", "_ms": "milliseconds"}
    unit = next((unit for ending, unit in units.items() if name.endswith(ending)), None)
    assert unit is None or told.startswith(f"{unit}, ")
    for sign, limit in ((">", getattr(kind, "gt", None)), ("≥", getattr(kind, "ge", None))):
        assert (limit is not None) == (f"{sign} " in told)
        assert limit is None or told.endswith(f"{sign} {limit}")


@pytest.mark.parametrize(
    "name", [name for name in FIELDS if isinstance(FIELDS[name].type, msgspec.inspect.LiteralType)]
)
def test_every_choice_is_named(name):
    row = " ".join(PAGE[name])
    assert [] == [choice for choice in FIELDS[name].type.values if choice not in row]


def test_the_flags_named_are_options_of_the_worker():
    options = {option for parameter in worker.params for option in parameter.opts}
    assert {piece for piece in code("docs/SETTINGS.md") if piece.startswith("--")} <= options


def test_flag_variable_file_default_is_the_order(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('group = "file"\nbrokers = "file:1"\n')
    environ = {"EVALSINK_GROUP": "variable", "KAFKA_BOOTSTRAP_SERVERS": "kafka:1"}
    assert "flag" == load(flags={"group": "flag"}, config=file, environ=environ).group
    assert "variable" == load(flags={"group": None}, config=file, environ=environ).group
    assert "file" == load(config=file, environ={}).group
    assert "evalsink" == load(environ={}).group
    assert "kafka:1" == load(config=file, environ=environ).brokers
    assert "own:1" == load(config=file, environ=environ | {"EVALSINK_BROKERS": "own:1"}).brokers
