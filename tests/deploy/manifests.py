"""What of the Kubernetes parts of deploy/ is made from other files: ``python -m tests.deploy.manifests [--check]``.

Owns: deploy/chart/files/ (a chart can read nothing outside its folder, so rules and dashboards are copied there), the
part `settings` of deploy/chart/values.schema.json (from `consumer.settings`), and deploy/kubernetes/*.yaml (the chart,
rendered). Equal sources give equal bytes. ``--check`` writes nothing and exits with 1 where a file is out of step.

The rendered files are for people who do not use Helm, so what only Helm reads is taken out of them.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from consumer.settings import Settings
from tests.deploy.helm import CHART, EVERYTHING, Helm, find
from tests.docs.pages import ROOT

SCHEMA = CHART / "values.schema.json"
RENDERED = ROOT / "deploy" / "kubernetes"

GIVEN_BY_CHART = {
    "state",
    "output",
    "http",
    "group_instance_id",
    "security.ca_file",
    "security.certificate_file",
    "security.key_file",
    "security.key_password_file",
    "security.password_file",
    "hub.token_file",
}
"""Settings that are the chart's to set: users may not."""

NEVER_IN_A_FILE = {"security.password"}

_TOPIC = {"pattern": "^[a-zA-Z0-9._-]{1,249}$"}
_REPOSITORY = {"pattern": r"^([\w.-]+/[\w.{}-]+)?$"}
NARROWED = {
    # The NetworkPolicy takes the ports from here.
    "brokers": {
        "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/,@\[\]]+):[0-9]{1,5}( *, *(\[[0-9A-Fa-f:.]+\]|[^\s:/,@\[\]]+):[0-9]{1,5})*$"
    },
    "topics.samples": _TOPIC,
    "topics.aggregates": _TOPIC,
    "topics.receipts": _TOPIC,
    "topics.dead_letters": _TOPIC,
    "hub.repo": _REPOSITORY,
    "hub.samples_repo": _REPOSITORY,
}
"""Where evalsink itself looks closer than its types say; a cluster is to hear of it before a pod does."""

REQUIRED = ["brokers", "group", "durable", "drain_timeout_s", "session_timeout_ms"]
"""The chart computes with these, or names them."""

NOT_FOR_PEOPLE = re.compile(r"^ *(helm\.sh/chart: .*|app\.kubernetes\.io/managed-by: Helm)\n", re.MULTILINE)


def copies() -> dict[Path, str]:
    """Rules and dashboards, as the chart has them."""
    sources = [
        ROOT / "deploy/prometheus/evalsink.rules.yml",
        *sorted((ROOT / "deploy/grafana").glob("*.json")),
    ]
    return {CHART / "files" / source.name: source.read_text("utf-8") for source in sources}


def schema() -> str:
    """values.schema.json with its part `settings` made anew; the rest is written by hand there."""
    document = json.loads(SCHEMA.read_text("utf-8"))
    document["properties"]["settings"] = {**_schema_of(Settings, ""), "required": REQUIRED}
    return json.dumps(document, indent=2) + "\n"


def _schema_of(kind: Any, path: str) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind, include_extras=True)
        places = {name: f"{path}.{name}".lstrip(".") for name in kind.__struct_fields__}
        properties = {
            name: _schema_of(hints[name], place)
            for name, place in places.items()
            if place not in GIVEN_BY_CHART | NEVER_IN_A_FILE
        }
        found = {"type": "object", "additionalProperties": False, "properties": properties}
        needed = [field.name for field in msgspec.structs.fields(kind) if field.required]
        return found | ({"required": needed} if needed else {})
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema_of(get_args(kind)[0], f"{path}[]")}
    return msgspec.json.schema(kind) | NARROWED.get(path, {})


def rendered(helm: Helm) -> dict[Path, str]:
    """The manifests for those who have no Helm."""
    plain = "deploy/chart with its default values"
    whole = f"deploy/chart with {EVERYTHING.relative_to(ROOT)}"
    return {
        RENDERED / "evalsink.yaml": _headed(plain, helm.template()),
        RENDERED / "everything.yaml": _headed(whole, helm.template("--values", EVERYTHING)),
    }


def _headed(source: str, text: str) -> str:
    text = "\n".join(line.rstrip() for line in NOT_FOR_PEOPLE.sub("", text).splitlines()) + "\n"
    return (
        f"# Rendered from {source} by `make manifests`: change those, not this file.\n"
        "# Use: kubectl apply --namespace evalsink --filename THIS_FILE\n" + text
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is out of step, or say it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a file is out of step"
    )
    check = parser.parse_args(arguments).check
    program = find()
    if program is None:
        sys.exit("no helm: make helm (needs Go), or put one into PATH")
    stale = _bring_into_step(copies() | {SCHEMA: schema()}, write=not check)
    # Only now: what is rendered depends on them.
    with tempfile.TemporaryDirectory(prefix="evalsink-helm-") as home:
        stale += _bring_into_step(rendered(Helm(program, Path(home))), write=not check)
    for path in stale:
        sys.stdout.write(f"{'out of step' if check else 'written'}: {path.relative_to(ROOT)}\n")
    return 1 if check and stale else 0


def _bring_into_step(files: dict[Path, str], *, write: bool) -> list[Path]:
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale if write else ():
        path.write_text(files[path], "utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
