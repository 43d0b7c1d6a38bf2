"""What tests of deploy/ stand on: a Helm, and the schemas of custom resources."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, unavailable
from tests.deploy.helm import Helm, find


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    """Helm, without a cluster."""
    program = find()
    if program is None:
        unavailable("there is no helm: make helm (needs Go), or put one into PATH")
    return Helm(program, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def crds():
    """Kind to JSON Schema of custom resources; EVALSINK_CRDS, else ../shared/reference/crds beside the checkout."""
    folder = Path(os.environ.get("EVALSINK_CRDS") or ROOT.parent / "shared" / "reference" / "crds")
    if not folder.is_dir():
        pytest.skip(f"no schemas of custom resources at {folder} (EVALSINK_CRDS)")
    return {path.name.split("_")[0]: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
