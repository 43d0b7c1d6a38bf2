"""deploy/kubernetes/: in step with the chart, and what a cluster of any allowed version takes."""

import re
from copy import deepcopy

import jsonschema
import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.deploy import manifests
from tests.deploy.helm import CHART, EVERYTHING, KUBERNETES, parse
from tests.docs.pages import ROOT, read

FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
RENDERED = [path for path in FILES if path != EVERYTHING]
NATIVE = {"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"}

LINT = YamlLintConfig(
    """
    extends: default
    rules:
      document-start: disable
      truthy: {check-keys: false}
      line-length: {max: 140}
      braces: {max-spaces-inside: 0}
      brackets: {max-spaces-inside: 0}
      # Helm's toYaml does not indent them, or does: that depends on its version.
      indentation: {indent-sequences: whatever}
      # `[a,b]` is how Helm writes JSON.
      commas: {min-spaces-after: 0}
      quoted-strings: {quote-type: double, required: false}
    """
)
LINT_RENDERED = YamlLintConfig(
    # Rules and dashboards are judged elsewhere, and their lines are long.
    "extends: default\nrules: {document-start: disable, line-length: disable, indentation: {indent-sequences: whatever},"
    " comments-indentation: disable, commas: {min-spaces-after: 0}}"
)


OBJECTS = {path: parse(path.read_text("utf-8")) for path in RENDERED}


def each(*, native):
    """Every object that is rendered, of Kubernetes' own kinds or of others'."""
    return [
        pytest.param(one, id=f"{path.stem} {one['kind']} {one['metadata']['name']}")
        for path in RENDERED
        for one in OBJECTS[path]
        if native == (one["apiVersion"] in NATIVE)
    ]


# -- in step ----------------------------------------------------------------------------------------------------------


def test_rules_and_dashboards_in_the_chart_are_those_of_deploy():
    made = manifests.copies()
    assert {path.name for path in made} == {path.name for path in (CHART / "files").iterdir()}
    for path, text in made.items():
        assert text == path.read_text("utf-8"), f"make manifests: {path.name} is out of step"


def test_the_values_schema_knows_the_settings_that_evalsink_knows():
    assert manifests.schema() == manifests.SCHEMA.read_text("utf-8"), "make manifests"


@pytest.mark.system
def test_rendered_manifests_are_those_that_the_chart_gives(helm):
    made = manifests.rendered(helm)
    assert set(made) == set(RENDERED)
    for path, text in made.items():
        assert text == path.read_text("utf-8"), f"make manifests: {path.name} is out of step"


@pytest.mark.system
def test_check_tells_what_is_out_of_step_and_writes_nothing(helm, monkeypatch, capsys):
    before = manifests.SCHEMA.read_bytes()
    assert 0 == manifests.main(["--check"])
    monkeypatch.setattr(manifests, "REQUIRED", ["brokers"])
    assert 1 == manifests.main(["--check"])
    assert "out of step: deploy/chart/values.schema.json" in capsys.readouterr().out
    assert before == manifests.SCHEMA.read_bytes()


def test_the_chart_is_for_this_version_of_evalsink():
    chart = yaml.safe_load(read("deploy/chart/Chart.yaml"))
    assert re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)[1] == chart["appVersion"]
    assert f">={KUBERNETES[0]}-0" == chart["kubeVersion"]


# -- judged by schemas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("one", each(native=True))
def test_kubernetes_takes_every_object_strictly(one, version):
    kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("one", each(native=False))
def test_operators_take_their_custom_resources_strictly(one, crds):
    schema = crds[one["kind"].lower()]
    # The schemas themselves are others' business: a pattern in one is Go's alone.
    jsonschema.Draft202012Validator(schema | {"additionalProperties": False}).validate(one)


def test_the_schemas_would_notice_a_typo():
    worker = deepcopy(next(one for one in OBJECTS[RENDERED[0]] if one["kind"] == "StatefulSet"))
    worker["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(worker, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    "path", [EVERYTHING, CHART / "values.yaml", CHART / "Chart.yaml"], ids=lambda path: path.name
)
def test_yamllint_has_nothing_to_say_about_what_people_write(path):
    assert [] == [str(problem) for problem in linter.run(path.read_text("utf-8"), LINT)]


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_yamllint_has_nothing_to_say_about_what_is_rendered(path):
    assert [] == [str(problem) for problem in linter.run(path.read_text("utf-8"), LINT_RENDERED)]
