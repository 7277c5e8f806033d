"""Plot: the picture people put on a slide: one bar a system, live and durable. SVG, written by hand."""

from typing import Any
from xml.sax.saxutils import escape

from .report import shown
from .rows import Row

WIDTH, LEFT, RIGHT, TOP, BAR, GAP, PANEL_GAP = 960, 300, 210, 76, 26, 10, 58
OURS, OTHERS, INK, FAINT, RULE = "#0b6e4f", "#9fb3c8", "#1b1f24", "#5c6670", "#d7dde3"
FONT = "font-family='Helvetica,Arial,sans-serif'"


def svg(panels: list[tuple[str, list[Row]]], machine: dict[str, Any]) -> str:
    """panels: a heading, and the rows that are compared. Bars are on one linear scale a panel."""
    panels = [(title, [r for r in rows if r.figures]) for title, rows in panels]
    panels = [(title, rows) for title, rows in panels if rows]
    parts, y = [], TOP
    for title, rows in panels:
        block, y = _panel(title, rows, y)
        parts += block
    where = f"{machine['cores']} cores, {machine['processor']}, {machine['system']}, commit {machine['commit']}"
    height = y + 4
    return "\n".join([
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        _text(32, 38, "Messages a second, from a Python sender to a Python receiver", 20, INK, "bold"),
        _text(32, 58, "Longer is better. The same bytes between the same two processes, in turns.", 12, FAINT),
        *parts, _text(32, height - 14, where, 11, FAINT), "</svg>"]) + "\n"


def _panel(title: str, rows: list[Row], y: int) -> tuple[list[str], int]:
    room = WIDTH - LEFT - RIGHT
    most = max(row.figures[row.main][0] for row in rows)
    parts = [_text(32, y + 18, title, 15, INK, "bold")]
    y += 34
    top = y
    for row in sorted(rows, key=lambda r: -r.figures[r.main][0]):
        median, low, high, _ = row.figures[row.main]
        width = max(1.0, room * median / most)
        ours = row.case.title.startswith("zbackbone")
        parts += [
            _text(LEFT - 12, y + 17, row.case.title, 13, INK, "bold" if ours else "normal", "end"),
            f"<rect x='{LEFT}' y='{y}' width='{width:.1f}' height='{BAR}' rx='3' fill='{OURS if ours else OTHERS}'/>",
            _whisker(LEFT + room * low / most, LEFT + min(1.12, high / most) * room, y + BAR / 2),
            _text(LEFT + max(width, min(1.12, high / most) * room) + 8, y + 12, shown(median), 13, INK, "bold"),
            _text(LEFT + max(width, min(1.12, high / most) * room) + 8, y + 25, _said(row), 10, FAINT),
        ]
        y += BAR + GAP
    parts.append(f"<line x1='{LEFT}' y1='{top - 4}' x2='{LEFT}' y2='{y - GAP + 4}' stroke='{RULE}'/>")
    return parts, y + PANEL_GAP - GAP


def _said(row: Row) -> str:
    return ", ".join(part for part in (row.case.promise, "encrypted" if row.case.encrypted else "plain text") if part)


def _whisker(low: float, high: float, y: float) -> str:
    """Lowest to highest of the rounds."""
    if high - low < 2:
        return ""
    return (f"<path d='M{low:.1f} {y - 4}V{y + 4}M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}V{y + 4}'"
            f" stroke='{INK}' stroke-opacity='.45' fill='none'/>")


def _text(x: float, y: float, text: str, size: int, colour: str, weight: str = "normal", anchor: str = "start") -> str:
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='{colour}'"
            f" text-anchor='{anchor}' {FONT}>{escape(text)}</text>")
