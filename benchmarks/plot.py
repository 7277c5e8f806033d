"""Plot: the picture people put on a slide: one bar a system, a panel a kind of work. SVG, written by hand."""

from typing import Any
from xml.sax.saxutils import escape

from . import targets
from .report import shown
from .rows import Row

WIDTH, LEFT, RIGHT, TOP, BAR, GAP, PANEL_GAP, FOOT = 1120, 310, 300, 76, 26, 10, 52, 40
OURS, OTHERS, INK, FAINT, RULE = "#0b6e4f", "#9fb3c8", "#1b1f24", "#5c6670", "#d7dde3"
FONT = "font-family='Helvetica,Arial,sans-serif'"
PANELS = {
    (targets.LIVE, "200 B"): "Live, one Python publisher to one Python listener",
    (targets.BATCHES, "200 B"): "Live in batches, beside a nats-server that is fed bytes packed beforehand",
    (targets.DURABLE, "200 B"): "Durable, one Python sender to one Python receiver, with receipts and acknowledgements",
    (targets.FANIN, targets.CLIENTS): "Durable lone messages from 1,000 clients that each await their receipt",
}


def panels(groups: list[list[Row]]) -> list[tuple[str, list[Row]]]:
    """Those of these groups that are on the picture."""
    of = {(rows[0].case.work, rows[0].case.what): rows for rows in groups}
    return [(title, of[at]) for at, title in PANELS.items() if at in of]


def svg(panels: list[tuple[str, list[Row]]], machine: dict[str, Any]) -> str:
    """panels: a heading, and the rows that are compared. Bars are on one linear scale a panel."""
    panels = [(title, [r for r in rows if r.figures]) for title, rows in panels]
    panels = [(title, rows) for title, rows in panels if rows]
    parts, y = [], TOP
    for title, rows in panels:
        block, y = _panel(title, rows, y)
        parts += block
    where = (f"{machine['cores']} cores, {machine['processor']}, {machine['system']}, {machine['filesystem']};"
             f" commit {machine['commit']}. Medians, lowest to highest; loopback, server on the same machine.")
    height = y - PANEL_GAP + GAP + FOOT
    return "\n".join([
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        _text(32, 38, "Messages a second, 200 bytes each", 20, INK, "bold"),
        _text(32, 58, "Longer is better. The same bytes between the same processes, in turns; below each figure, what"
                      " its sender was promised, and whether it was encrypted.", 12, FAINT),
        *parts, _text(32, height - 14, where, 11, FAINT), "</svg>"]) + "\n"


def _panel(title: str, rows: list[Row], y: int) -> tuple[list[str], int]:
    room = WIDTH - LEFT - RIGHT
    most = max(row.figures[row.main][2] for row in rows)         # the longest whisker fits
    parts = [_text(32, y + 18, title, 15, INK, "bold")]
    y += 34
    top = y
    for row in sorted(rows, key=lambda r: -r.figures[r.main][0]):
        median, low, high, _ = row.figures[row.main]
        ours = row.case.title.startswith("zbackbone")
        end = LEFT + room * high / most
        parts += [
            _text(LEFT - 12, y + 17, row.case.title, 13, INK, "bold" if ours else "normal", "end"),
            f"<rect x='{LEFT}' y='{y}' width='{max(1.0, room * median / most):.1f}' height='{BAR}' rx='3'"
            f" fill='{OURS if ours else OTHERS}'/>",
            _whisker(LEFT + room * low / most, end, y + BAR / 2),
            _text(end + 8, y + 12, shown(median), 13, INK, "bold"),
            _text(end + 8, y + 25, said(row), 10, FAINT),
        ]
        y += BAR + GAP
    parts.append(f"<line x1='{LEFT}' y1='{top - 4}' x2='{LEFT}' y2='{y - GAP + 4}' stroke='{RULE}'/>")
    return parts, y + PANEL_GAP - GAP


def said(row: Row) -> str:
    """What the sender was promised, who could read it on the way, and what didn't arrive."""
    lost = row.figures["lost %"][0] if "lost %" in row.figures else 0.0
    return (f"{row.case.promise or 'nothing promised'}; {'encrypted' if row.case.encrypted else 'plain text'}"
            + (f"; {shown(lost)} % lost" if lost else ""))


def _whisker(low: float, high: float, y: float) -> str:
    """Lowest to highest of the rounds."""
    if high - low < 2:
        return ""
    return (f"<path d='M{low:.1f} {y - 4}V{y + 4}M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}V{y + 4}'"
            f" stroke='{INK}' stroke-opacity='.45' fill='none'/>")


def _text(x: float, y: float, text: str, size: int, colour: str, weight: str = "normal", anchor: str = "start") -> str:
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='{colour}'"
            f" text-anchor='{anchor}' {FONT}>{escape(text)}</text>")
