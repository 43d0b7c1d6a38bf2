"""docs/RUNBOOK.md has a heading for every alert, and a row for every line that a worker can log."""

import ast

import yaml

from tests.docs.pages import ROOT, anchors, read, rows

RULES = ROOT / "deploy" / "prometheus" / "evalsink.rules.yml"
LEVELS = {"info", "warning", "error"}


def alerts():
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def logged():
    """(action, level) of every call of a logger with an action."""
    for path in (ROOT / "consumer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"_log", "log"}
            ):
                [action] = node.args
                yield ast.literal_eval(action), node.func.attr


def test_every_alert_has_its_heading_and_every_such_heading_its_alert():
    headings = [
        line.removeprefix("### ") for line in read("docs/RUNBOOK.md").splitlines() if line.startswith("### ")
    ]
    assert list(alerts()) == headings


def test_every_alert_says_what_it_is_how_bad_and_where_to_read_on():
    for name, rule in alerts().items():
        assert name.startswith("Evalsink")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        annotations = rule["annotations"]
        assert {"summary", "description", "runbook_url"} == set(annotations)
        assert all(annotations.values())
        page, anchor = annotations["runbook_url"].split("#")
        assert anchor in anchors(page)
        assert anchor == name.lower()


def test_every_action_logged_is_on_the_page_with_its_level_and_no_other():
    on_page = {(row[0], row[1]) for row in rows("docs/RUNBOOK.md") if len(row) == 3 and row[1] in LEVELS}
    assert set(logged()) == on_page
