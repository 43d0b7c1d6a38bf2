"""What the pages name exists: commands and their options, make targets, links, exit codes, examples."""

import importlib
import json
import re
from pathlib import Path

import click
import msgspec
import pytest

from consumer import errors, liveness, pushing
from consumer.cli import COMMANDS, cli
from consumer.intake.decode import Rejection, decode
from consumer.settings import Settings, load
from schemas.results import Evalsink, TaskEntry
from tests.docs.pages import ROOT, anchors, blocks, code, links, read, rows

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))


def named(page, program):
    """Words after `program` wherever the page sets it as code."""
    return [
        piece.split()[1:] for piece in code(page) if piece.split()[0] == program and len(piece.split()) > 1
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT) if path else page), target


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_named_exists(page):
    targets = {word for words in named(page, "make") for word in words if re.fullmatch(r"[a-z-]+", word)}
    assert set() == targets - TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_every_command_named_exists_with_its_options(page):
    for name, *words in named(page, "evalsink"):
        if name == "COMMAND" or name.startswith("-"):
            continue
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = {option for parameter in parameters(command) for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in known | {"--help"}, f"{name} {word}"


def parameters(command):
    subcommands = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(one for subcommand in subcommands for one in subcommand.params)]


def test_the_readme_has_a_row_for_every_command():
    in_table = [words[1] for row in rows("README.md") if (words := row[0].split())[0] == "evalsink"]
    assert list(COMMANDS) == in_table


def test_the_readme_names_every_exit_code():
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EvalsinkError)
    ]
    expected = {
        0,
        liveness.EXIT_STUCK,
        liveness.EXIT_DRAIN_TIMEOUT,
        pushing.EXIT_OVERDUE,
        130,
        143,
        *(kind.exit_code for kind in kinds),
    }
    cells = [row[0] for row in rows("README.md") if re.fullmatch(r"[\d, ]+", row[0])]
    assert expected == {int(code) for cell in cells for code in cell.split(", ")}


@pytest.mark.parametrize(
    "line", [line for block in blocks("README.md", "jsonl") for line in block.splitlines()]
)
def test_every_event_in_the_readme_is_one(line):
    fields = json.loads(line)
    event = decode(line.encode(), fields["run_id"].encode(), "both")
    assert not isinstance(event, Rejection), event
    assert set(fields) - {"type"} <= {"samples", *event.__struct_fields__}


def test_what_the_readme_shows_of_the_key_evalsink_is_its_shape():
    [shown] = blocks("README.md", "json")
    own = msgspec.json.decode("{" + shown + "}", type=dict[str, Evalsink])["evalsink"]
    as_shown = json.loads("{" + shown + "}")["evalsink"]
    assert set(as_shown) <= set(Evalsink.__struct_fields__)
    assert set(as_shown["tasks"]["mme"]) == set(TaskEntry.__struct_fields__) - {"missing"}
    assert own.tasks["mme"].rows == 1


@pytest.mark.parametrize("page", ["README.md", "docs/SETTINGS.md"])
def test_every_settings_file_shown_is_taken(page, tmp_path):
    for block in blocks(page, "toml"):
        file = tmp_path / "settings.toml"
        file.write_text(block)
        chosen = load(config=file, environ={})
        assert chosen != Settings()


def test_the_commands_are_named_where_they_are_made():
    for name in COMMANDS:
        assert importlib.util.find_spec(f"consumer.cli.{name.replace('-', '_')}"), name


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_place_of_one_machine(page):
    assert [] == re.findall(r"/(?:home|root|work|Users)/\S*", read(page))


def test_the_changelog_knows_the_version_of_the_package():
    version = re.search(r'^version = "(.+)"$', Path(ROOT, "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert f"## [{version[1]}]" in read("CHANGELOG.md")
