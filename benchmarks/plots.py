"""Plots as SVG, from numbers alone: bars, and the spread of latencies. Equal numbers give equal bytes.

Written out by hand, since bars and steps are all there is: no package to lock, and a test compares the files.
Text and background have colours of their own, so that a dark page shows them too.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

INK, PALE, GRID = "#1f2328", "#57606a", "#d0d7de"
OURS, OTHERS, GOAL = "#0969da", "#9aa4b0", "#cf222e"
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_WIDTH, _LABELS, _MARGIN = 760, 190, 16
_BAR, _GAP = 18, 8


class Bar(NamedTuple):
    """One bar; `shown` is what stands at its end."""

    label: str
    value: float
    shown: str
    is_ours: bool = False


class Panel(NamedTuple):
    """Bars that share a scale, under a heading; `goal` is a value to draw a line at, and its name."""

    heading: str
    bars: Sequence[Bar]
    goal: tuple[float, str] | None = None


def bars(title: str, panels: Sequence[Panel]) -> str:
    """Horizontal bars, a panel below the other."""
    parts: list[str] = []
    y = 44
    for panel in panels:
        parts.append(_text(_MARGIN, y + 14, panel.heading, size=13, weight="600"))
        y += 26
        top = y
        room = _WIDTH - _LABELS - 130
        highest = max([*(bar.value for bar in panel.bars), panel.goal[0] if panel.goal else 0.0]) or 1.0
        if panel.goal:
            bottom = top + len(panel.bars) * (_BAR + _GAP)
            parts.append(_goal_line(_LABELS + panel.goal[0] / highest * room, top - 4, bottom - 2))
        for bar in panel.bars:
            width = max(1.0, bar.value / highest * room)
            colour = OURS if bar.is_ours else OTHERS
            weight = "600" if bar.is_ours else "400"
            parts += [
                _text(_LABELS - 8, y + 13, bar.label, anchor="end", weight=weight),
                f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
                _text(_LABELS + width + 6, y + 13, bar.shown, weight=weight),
            ]
            y += _BAR + _GAP
        if panel.goal:
            value, name = panel.goal
            x = _LABELS + value / highest * room
            parts.append(_text(x, y + 12, name, colour=GOAL, anchor="middle", size=11))
            y += 16
        y += 16
    return _page(title, y, parts)


def steps(title: str, values: Sequence[float], *, unit: str, goal: float, marks: Sequence[int]) -> str:
    """The share of values that are not above x, with some ranks marked and a goal."""
    left, top, width, height = 60, 56, _WIDTH - 60 - 40, 240
    ordered = sorted(values)
    highest = max(ordered[-1], goal) * 1.08

    def across(value: float) -> float:
        return left + value / highest * width

    def up(share: float) -> float:
        return top + height - share * height

    parts = []
    for quarter in range(5):
        y = up(quarter / 4)
        parts += [
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="{GRID}"/>',
            _text(left - 8, y + 4, f"{quarter * 25}%", anchor="end", colour=PALE),
        ]
    for value in _ticks(highest):
        parts.append(_text(across(value), top + height + 20, f"{value:.0f}", anchor="middle", colour=PALE))
    parts.append(_text(left + width / 2, top + height + 40, unit, anchor="middle", colour=PALE))
    path = f"M{left:.1f},{up(0):.1f}"
    for number, value in enumerate(ordered, 1):
        path += f"H{across(value):.1f}V{up(number / len(ordered)):.1f}"
    parts.append(f'<path d="{path}" fill="none" stroke="{OURS}" stroke-width="2"/>')
    parts += [
        _goal_line(across(goal), top, top + height),
        _text(across(goal), top - 6, f"goal for p99: {goal:.0f}", colour=GOAL, anchor="middle", size=11),
    ]
    for rank in marks:
        value = ordered[max(0, -(-rank * len(ordered) // 100) - 1)]
        x, y = across(value), up(rank / 100)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{OURS}"/>',
            _text(x + 8, y + 16, f"p{rank}: {value:.0f}", weight="600"),
        ]
    return _page(title, top + height + 52, parts)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "400",
    colour: str = INK,
) -> str:
    look = f'font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {look}>{escape(text)}</text>'


def _ticks(highest: float) -> list[float]:
    """Round numbers from 0, four to ten of them."""
    step = 10.0 ** math.floor(math.log10(highest))
    while highest / step < 4:
        step /= 2
    return [step * number for number in range(int(highest / step) + 1)]


def _goal_line(x: float, top: float, bottom: float) -> str:
    dashes = f'stroke="{GOAL}" stroke-width="1.5" stroke-dasharray="4 3"'
    return f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" {dashes}/>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height:.0f}"'
    head += f' font-family="{_FONT}" role="img" aria-label="{escape(title)}">'
    background = f'<rect {size} fill="#ffffff"/>'
    heading = _text(_MARGIN, 28, title, size=15, weight="600")
    return "\n".join([head, background, heading, *parts, "</svg>\n"])
