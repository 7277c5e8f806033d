"""Measure zbackbone beside what people would pick instead, on this machine.

Without options it measures everything against all peers that are installed, in under 15
minutes. README.md in this folder says how to read a row.
"""

import signal
import sys
import time
from pathlib import Path

import click

from . import machine, peers, plot, report, targets, work
from .bench import Bench
from .rows import Row
from .runner import choose, measure

PEERS = [name for name in peers.NAMES if name != "ours"]


def _names(known: list[str]) -> object:
    def read(_context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        names = [name.strip() for name in value.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return names
    return read


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--quick", is_flag=True, help="The throughput of 200-byte messages and little else; under a minute.")
@click.option("--against", callback=_names(PEERS), metavar="LIST", help=f"Peers, with commas: {','.join(PEERS)}.")
@click.option("--alone", is_flag=True, help="No peers.")
@click.option("--only", callback=_names(list(work.NAMES)), metavar="LIST",
              help=f"Kinds of work: {','.join(work.NAMES)}.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each is measured.  [default: 3, quick: 1]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", default=Path("bench-results"),
              show_default=True, help="Where results.json, plot.svg and table.md go.")
def main(quick: bool, against: list[str] | None, alone: bool, only: list[str] | None, rounds: int | None,
         out: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))      # so that every server is stopped
    began_s = time.monotonic()
    rounds = rounds or (1 if quick else 3)
    kinds = only or list(work.QUICK if quick else work.NAMES)
    ways, left_out = choose(["ours", *([] if alone else PEERS if against is None else against)])
    where = machine.machine()
    click.echo(f"{where['cores']} cores, {where['processor']}, {where['system']}, kernel {where['kernel']},"
               f" commit {where['commit']}, load {where['load_at_start']:.1f}")
    if where["load_at_start"] > 0.5:
        click.echo("The machine is busy with something else: these figures are worth little.")
    for title, lacks in left_out.items():
        click.echo(f"left out: {title}; to have it measured: {lacks}")
    with Bench(ways, quick) as bench:
        groups, kinds_s = measure(bench, kinds, rounds, lambda text: _progress(text, began_s), _finished)
    _progress("", began_s)
    verdicts = targets.judge(groups)
    click.echo("\ntargets")
    for verdict in verdicts:
        click.echo(report.verdict(verdict))
    took_s = time.monotonic() - began_s
    click.echo("\n" + ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in kinds_s.items()))
    how = {"quick": quick, "rounds": rounds, "kinds": {kind: round(seconds, 1) for kind, seconds in kinds_s.items()},
           "took_s": round(took_s, 1)}
    files = report.save(out, results_json=report.to_json(groups, verdicts, where, left_out, how),
                        table_md=report.markdown(groups, verdicts, where),
                        plot_svg=plot.svg(plot.panels(groups), where))
    click.echo(f"{took_s:.0f} s; {', '.join(map(str, files))}")


def _progress(text: str, began_s: float = 0.0) -> None:
    """One line that is written over; where nobody watches, only failures."""
    if sys.stderr.isatty():
        gone_s = int(time.monotonic() - began_s)
        line = f"{gone_s // 60}:{gone_s % 60:02d} {text}" if text else ""
        click.echo(f"\r\033[K{line[:110]}", err=True, nl=False)
    elif "] failed" in text:
        click.echo(text, err=True)


def _finished(rows: list[Row]) -> None:
    _progress("")
    click.echo(report.heading(rows))
    for row in rows:
        click.echo(report.line(row))


if __name__ == "__main__":
    main()
