"""Rows as lines of a table, and on their way from another process."""

import dataclasses
import json

from crowd.ledger import Tally
from stage import Row

_COLUMNS = [
    ("scenario", -17), ("conns", 7), ("expected", 9), ("got", 9), ("missing", 8), ("doubled", 8), ("disordered", 11),
    ("misrouted", 10), ("damaged", 8), ("untrue", 7), ("memory KiB", 16), ("descriptors", 12), ("s", 6),
]
HEAD = "".join(f"{name:{'<' if width < 0 else '>'}{abs(width)}}" for name, width in _COLUMNS) + "  notes"


def line(row):
    """The memory is RssAnon at the start, at its peak, and when all have gone."""
    if row.skipped:
        return f"{row.name:<17}skipped: {row.skipped}"
    tally = row.tally or Tally()
    values = [
        row.name, row.connections, tally.expected, tally.got, tally.missing, tally.doubled, tally.disordered,
        tally.misrouted, tally.damaged, tally.untrue, "/".join(map(str, row.memory_kib)), "{} -> {}".format(*row.descriptors),
        f"{row.seconds:.1f}",
    ]
    cells = "".join(
        f"{value:{'<' if width < 0 else '>'}{abs(width)}}" for value, (_, width) in zip(values, _COLUMNS)
    )
    return f"{cells}  {'FAILED' if row.failures else row.note}"


def dumps(row):
    return json.dumps(dataclasses.asdict(row))


def loads(text):
    row = Row(**json.loads(text))
    if row.tally is not None:
        row.tally = Tally(**row.tally)
    return row
