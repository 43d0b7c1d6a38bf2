"""GitHub's workflows: by GitHub's schema, and what this project asks of them besides."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
LINES = "{extends: default, rules: {line-length: {max: 120}, truthy: {check-keys: false}, document-start: disable}}"


def tool(name, *arguments):
    """Exit code and what it said."""
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def schema_check(path):
    return tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)


def steps(path):
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_are_workflows_for_the_tests_the_image_and_a_release():
    assert ["image.yml", "release.yml", "tests.yml"] == [path.name for path in WORKFLOWS]


@each_workflow
def test_a_workflow_is_as_github_reads_it(path):
    assert (0, "ok -- validation done\n") == schema_check(path)
    assert (0, "") == tool("yamllint", "--strict", "-d", LINES, path)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("tests.yml", "runs-on:", "run-on:"),
        ("tests.yml", "timeout-minutes: 60", "timeout-minutes: long"),
        ("tests.yml", "contents: read", "contents: raed"),
        ("image.yml", "pull_request:", "pull_requests:"),
        ("image.yml", "    steps:", "    stpes:"),
        ("release.yml", "id-token: write", "id-tokne: write"),
        ("release.yml", "needs: build", "need: build"),
        ("release.yml", "environment: release", "enviroment: release"),
    ],
)
def test_the_schema_finds_a_slip(name, right, wrong, tmp_path):
    text = (ROOT / ".github" / "workflows" / name).read_text("utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong), "utf-8")
    assert 0 != schema_check(tmp_path / name)[0]


@each_workflow
def test_a_job_may_read_and_only_who_publishes_may_more(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert {"contents": "read"} == workflow["permissions"]
    more = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    expected = {"publish": {"id-token": "write"}, "announce": {"contents": "write"}}
    assert (expected if path.stem == "release" else {}) == more


@each_workflow
def test_no_branch_of_an_action_is_run_and_no_job_lasts_for_hours(path):
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", step["uses"])
            assert "checkout" not in step["uses"] or step["with"] == {"persist-credentials": False}
    for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
        assert job["timeout-minutes"] <= 60


@each_workflow
def test_what_others_can_name_gets_into_no_script_by_substitution(path):
    """A branch called `$(…)` would be run: names come in as variables."""
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@each_workflow
def test_a_workflow_calls_what_there_is(path):
    scripts = "\n".join(step.get("run", "") for step in steps(path))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = {target for line in re.findall(r"\bmake ([a-z ]+)", scripts) for target in line.split()}
    assert called <= targets
    files = re.findall(r"(?<![\w/])(?:deploy|\.ci)/[\w/.-]+", scripts)
    for name in files:
        assert (ROOT / name).is_file()
    assert called or files


def test_the_version_that_a_tag_is_compared_with_is_the_project_s():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    said = subprocess.run(
        ["make", "--silent", "version"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"{version}\n" == said
