"""deploy/settings.example.toml is every setting with its default."""

import tomllib
from pathlib import Path

from consumer.settings import Hub, Security, Settings, Topics, load

EXAMPLE = Path(__file__).parents[2] / "deploy" / "settings.example.toml"

# Refused in a file: it comes from a file of its own, or from the environment.
NEVER_IN_A_FILE = {"password"}


def test_the_example_settings_are_the_defaults():
    assert Settings() == load(config=EXAMPLE, environ={})


def test_the_example_settings_leave_none_out():
    values = tomllib.loads(EXAMPLE.read_text("utf-8"))
    assert set(Settings.__struct_fields__) == set(values)
    assert set(Hub.__struct_fields__) == set(values["hub"])
    assert set(Topics.__struct_fields__) == set(values["topics"])
    assert set(Security.__struct_fields__) - NEVER_IN_A_FILE == set(values["security"])
