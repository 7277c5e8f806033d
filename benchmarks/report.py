"""Report: the table in the terminal, and results.json."""

import json
from pathlib import Path
from typing import Any

from .rows import FIGURES, Row

WIDTH = 40


def heading(rows: list[Row]) -> str:
    case = rows[0].case
    return f"\n{case.work}, {case.what}"


def line(row: Row) -> str:
    case = row.case
    said = (f"said yes when {case.promise}" if case.promise else "") + (", encrypted" if case.encrypted else "")
    if not row.figures:
        return f"  {case.title:<{WIDTH}} {'no figure: ' + row.error}"
    ratio = f"{row.ratio:>7.2f} x" if row.ratio is not None else " " * 9
    return f"  {case.title:<{WIDTH}} {_main(row):<44} {ratio}  {_others(row)}{'; ' if said else ''}{said.lstrip(', ')}"


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


def to_json(groups: list[list[Row]], machine: dict[str, Any], left_out: dict[str, str], how: dict[str, Any]) -> str:
    return json.dumps({
        "how": how, "machine": machine, "left_out": left_out,
        "rows": [{
            "work": row.case.work, "what": row.case.what, "title": row.case.title, "promise": row.case.promise,
            "encrypted": row.case.encrypted, "main": row.main, "ratio": row.ratio, "error": row.error,
            "figures": {name: {"unit": FIGURES[name][0], "more_is_better": FIGURES[name][1], "median": figure[0],
                               "low": figure[1], "high": figure[2], "values": figure[3]}
                        for name, figure in row.figures.items()},
        } for rows in groups for row in rows],
    }, indent=1) + "\n"


def markdown(groups: list[list[Row]], works: dict[str, str]) -> str:
    """The rows of these groups as a table; works: (work, what) that people look for first, by heading."""
    lines = ["| work | system | median | lowest to highest | zbackbone is | said yes when | encrypted |",
             "| --- | --- | ---: | --- | ---: | --- | --- |"]
    for rows in groups:
        case = rows[0].case
        if works and f"{case.work}, {case.what}" not in works:
            continue
        for row in rows:
            if row.figures:
                median, low, high, _ = row.figures[row.main]
                ratio = f"{row.ratio:.1f} x" if row.ratio is not None else ""
                lines.append(f"| {case.work}, {case.what} | {row.case.title} | {shown(median)} {FIGURES[row.main][0]} |"
                             f" {shown(low)} to {shown(high)} | {ratio} | {row.case.promise or 'never says'} |"
                             f" {'yes' if row.case.encrypted else 'no'} |")
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
