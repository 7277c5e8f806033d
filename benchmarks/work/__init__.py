"""Work: one file each; this one says what such a file has.

    groups(bench)    lists of cases; those of one list are compared, and take turns

NAMES are in the order in which they run: what the others build upon first, the heavy ones last.
"""

import importlib
from typing import Any

NAMES = ("live", "batches", "durable", "receipt", "fanout", "inboxes", "fanin", "latency", "sizes", "bytes",
         "ceilings", "storm", "growth")
QUICK = ("live", "batches", "durable", "receipt", "fanout", "ceilings")


def work(name: str) -> Any:
    return importlib.import_module(f"benchmarks.work.{name}")
