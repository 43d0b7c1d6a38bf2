"""What the pages of the project say, taken apart for the tests that keep them true."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language=""):
    """The contents of the page's code blocks in `language`."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", read(page), re.DOTALL | re.MULTILINE)
    return [content for kind, content in found if kind == language]


def rows(page):
    """Cells of every row of every table, without the marks of code."""
    lines = re.findall(r"^\| (.*) \|$", read(page), re.MULTILINE)
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def code(page):
    """Everything the page sets as code: lines of unmarked blocks, and spans."""
    spans = re.findall(
        r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    )
    lines = [line.split("  #")[0] for block in blocks(page) for line in block.splitlines()]
    return [piece.strip() for piece in (*spans, *lines) if piece.strip()]


def links(page):
    """Targets of the page's links into the project, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", read(page)) + re.findall(
        r"^\[[^\]]+\]: (\S+)", read(page), re.MULTILINE
    )
    return [target for target in targets if "://" not in target]


def anchors(page):
    """Anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
