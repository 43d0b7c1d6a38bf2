"""The SBOM: everything that the lock names, with version and hashes, valid, and the same bytes each time.

`system`, because what writes it is an environment of its own, which is fetched when it is not there.
"""

import json
import os
import re
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(error.data if error else "") or 0)
"""


def make_sbom(path, **environment):
    subprocess.run(
        ["make", "sbom", f"SBOM={path}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={
            **{name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"},
            **environment,
        },
    )
    return path.read_bytes()


def complaint(text):
    """What CycloneDX's own schema says against it."""
    python = ROOT / ".cache" / "sbom" / "bin" / "python"
    return subprocess.run(
        [python, "-c", VALIDATE], input=text, capture_output=True, text=True, check=False
    ).stderr.strip()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return make_sbom(tmp_path_factory.mktemp("sbom") / "one.cdx.json")


def locked():
    """(name, version) to hashes, of each line of the lock."""
    text = (ROOT / "requirements" / "run.lock").read_text("utf-8")
    entries = re.findall(
        r"^([a-z0-9-]+)(?:\[[\w,-]+\])?==([^ ;\\]+)((?:.*\\\n)(?:    --hash=.*\n?)+)", text, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    return {
        (name, version): set(re.findall(r"sha256:([0-9a-f]{64})", rest)) for name, version, rest in entries
    }


def test_every_locked_package_is_in_it_with_version_and_hashes(written):
    components = json.loads(written)["components"]
    found = {
        (one["name"], one["version"]): {
            item["content"] for reference in one["externalReferences"] for item in reference.get("hashes", [])
        }
        for one in components
    }
    assert len(found) > 30
    assert locked() == found
    assert {f"pkg:pypi/{name}@{version}" for name, version in found} == {one["purl"] for one in components}


def test_it_is_of_evalsink_and_valid_by_cyclonedx_s_own_schema(written):
    sbom = json.loads(written)
    subject = sbom["metadata"]["component"]
    version = subprocess.run(
        ["make", "-s", "version"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert ("evalsink", version.strip()) == (subject["name"], subject["version"])
    assert ("CycloneDX", "1.6") == (sbom["bomFormat"], sbom["specVersion"])
    assert "" == complaint(written.decode())


def test_the_schema_finds_a_slip(written):
    assert complaint(written.decode().replace('"alg": "SHA-256"', '"alg": "SHA-265"', 1))


def test_it_is_the_same_wherever_and_whenever_it_is_made(written, tmp_path):
    assert written == make_sbom(tmp_path / "two.cdx.json")
    dated = make_sbom(tmp_path / "three.cdx.json", SOURCE_DATE_EPOCH="1700000000")
    assert json.loads(dated)["metadata"].pop("timestamp").startswith("2023-11-14T22:13:20")
