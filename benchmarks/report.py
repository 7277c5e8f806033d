"""Report: rows and verdicts as text: in the terminal, results.json, table.md."""

import json
from pathlib import Path
from typing import Any

from .rows import FIGURES, Row
from .targets import LOST_MAX, Verdict

WIDTH = 40


def heading(rows: list[Row]) -> str:
    case = rows[0].case
    return f"\n{case.work}, {case.what}"


def line(row: Row) -> str:
    case = row.case
    said = ", ".join([f"said yes when {case.promise}"] * bool(case.promise) + ["encrypted"] * case.encrypted)
    if not row.figures:
        return f"  {case.title:<{WIDTH}} {'no figure: ' + row.error}"
    ratio = f"{row.ratio:>7.2f} x" if row.ratio is not None else " " * 9
    return f"  {case.title:<{WIDTH}} {_main(row):<44} {ratio}  {'; '.join(filter(None, (_others(row), said)))}"


def _main(row: Row) -> str:
    median, low, high, values = row.figures[row.main]
    spread = f" ({shown(low)} to {shown(high)})" if len(values) > 1 else ""
    return f"{shown(median):>9} {FIGURES[row.main][0]}{spread}"


def _others(row: Row) -> str:
    return ", ".join(f"{name} {shown(figure[0])}" + _unit(name)
                     for name, figure in row.figures.items() if name != row.main)


def _unit(name: str) -> str:
    unit = FIGURES[name][0]
    return "" if "/s" in name else f" {unit}"


def shown(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(v: Verdict) -> str:
    """One target's line in the terminal."""
    return f"  {v.word:<13} {_seen(v):>9}  {_aim(v):<17} {_margin(v):<20} {v.target.what}"


def _aim(v: Verdict) -> str:
    return f"at {'most' if v.target.is_most else 'least'} {v.target.aim:g} {v.target.unit}"


def _seen(v: Verdict) -> str:
    return "" if v.seen is None else f"{shown(v.seen)} {v.target.unit}"


def _margin(v: Verdict) -> str:
    if v.margin is None:
        return ""
    if v.lost > LOST_MAX:
        return f"lost {shown(v.lost)} %"
    return f"{v.margin:.0%} to spare" if v.margin >= 0 else f"missed by {-v.margin:.0%}"


def to_json(groups: list[list[Row]], verdicts: list[Verdict], machine: dict[str, Any], left_out: dict[str, str],
            how: dict[str, Any]) -> str:
    return json.dumps({
        "how": how, "machine": machine, "left_out": left_out,
        "targets": [{"what": v.target.what, "aim": v.target.aim, "unit": v.target.unit,
                     "at": "most" if v.target.is_most else "least", "seen": v.seen, "verdict": v.word,
                     "margin": v.margin, "lost_percent": v.lost} for v in verdicts],
        "rows": [{
            "work": row.case.work, "what": row.case.what, "title": row.case.title, "promise": row.case.promise,
            "encrypted": row.case.encrypted, "main": row.main, "ratio": row.ratio, "error": row.error,
            "figures": {name: {"unit": FIGURES[name][0], "more_is_better": FIGURES[name][1], "median": figure[0],
                               "low": figure[1], "high": figure[2], "values": figure[3]}
                        for name, figure in row.figures.items()},
        } for rows in groups for row in rows],
    }, indent=1) + "\n"


def markdown(groups: list[list[Row]], verdicts: list[Verdict], machine: dict[str, Any]) -> str:
    """Targets first, then a table for each kind of work."""
    parts = [f"{machine['cores']} cores, {machine['processor']}, {machine['system']}, kernel {machine['kernel']},"
             f" {machine['filesystem']}, commit {machine['commit']}\n"]
    if verdicts:
        parts.append(targets_table(verdicts))
    works: dict[str, list[list[Row]]] = {}
    for rows in groups:
        works.setdefault(rows[0].case.work, []).append(rows)
    for title, some in works.items():
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{rows_table(some)}")
    return "\n".join(parts)


def targets_table(verdicts: list[Verdict]) -> str:
    lines = ["| target (200 B) | aim | seen | |", "| --- | --- | ---: | --- |"]
    lines += [f"| {v.target.what} | {_aim(v)} | {_seen(v)} | {v.word}{', ' if v.seen is not None else ''}{_margin(v)} |"
              .replace("missed, missed", "missed") for v in verdicts]
    return "\n".join(lines) + "\n"


def rows_table(groups: list[list[Row]]) -> str:
    """Groups of one kind of work as one table."""
    lines = ["| | system | median | lowest to highest | zbackbone is | also | said yes when | encrypted |",
             "| --- | --- | ---: | --- | ---: | --- | --- | --- |"]
    for rows in groups:
        for row in rows:
            case = row.case
            end = f"{case.promise or 'never says'} | {'yes' if case.encrypted else 'no'} |"
            if row.figures:
                median, low, high, _ = row.figures[row.main]
                ratio = f"{row.ratio:.1f} x" if row.ratio is not None else ""
                lines.append(f"| {case.what} | {case.title} | {shown(median)} {FIGURES[row.main][0]} |"
                             f" {shown(low)} to {shown(high)} | {ratio} | {_others(row)} | {end}")
            else:
                lines.append(f"| {case.what} | {case.title} | no figure | | | {row.error.replace('|', '/')} | {end}")
    return "\n".join(lines) + "\n"


def save(folder: Path, **files: str) -> list[Path]:
    """results_json="..." becomes results.json, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for name, text in files.items():
        path = folder / name.replace("_", ".")
        path.write_text(text, encoding="utf-8")
        out.append(path)
    return out
