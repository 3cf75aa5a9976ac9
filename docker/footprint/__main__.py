"""`make footprint`: exit code 0 only if all is within its limit."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from footprint.measure import RSS_RATIO, Footprint, NotIdle, footprint, size
from testbed import product
from testbed.debian import Unavailable
from testbed.engine import PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs

OVER_BASE = 35_000_000  # bytes that the image may have beyond its base
CPU = 0.002  # of a core

POLL_TIME = 20  # seconds, as Lookout has it unless it is told otherwise
WINDOW = 60.0  # seconds
WITHIN, BEYOND, UNAVAILABLE = 0, 1, 2


class Row(NamedTuple):
    name: str
    floor: str
    lookout: str
    ratio: str = ""
    limit: str = ""
    verdict: str = ""


def main() -> int:
    """Build the image, run it beside the floor, and print what the two take."""
    print(f"Building the image, then watching it for {WINDOW:.0f} s ...", flush=True)
    try:
        with PrivateEngine() as engine, LocalSqs() as sqs, Gate(engine.sandbox, sqs.endpoint) as gate:
            image = product.have(engine)
            sizes = size(engine, product.BASE), size(engine, image)
            taken = footprint(engine, image, sqs, gate, poll_time=POLL_TIME, window=WINDOW)
    except (Unavailable, product.BuildFailed, NotIdle) as exc:
        print(f"footprint: {exc}", file=sys.stderr)
        return UNAVAILABLE
    rows = list(_rows(*sizes, taken))
    _print(rows)
    return BEYOND if any(row.verdict == "NO" for row in rows) else WITHIN


def _rows(base: int, image: int, taken: Footprint) -> Sequence[Row]:
    floor, lookout = taken.floor, taken.lookout
    over = image - base
    return (
        Row("", "floor", "Lookout", "ratio", "limit"),
        Row(
            *("RSS when idle", _megabytes(floor.rss), _megabytes(lookout.rss), f"{taken.rss_ratio:.2f}"),
            *(f"{RSS_RATIO:.2f}", _verdict(taken.rss_ratio <= RSS_RATIO)),
        ),
        Row(
            *("PSS when idle", _megabytes(floor.pss), _megabytes(lookout.pss)),
            f"{lookout.pss / floor.pss:.2f}",
        ),
        Row(
            *("CPU when idle", f"{floor.cpu:.3%}", f"{lookout.cpu:.3%}", ""),
            *(f"{CPU:.3%}", _verdict(lookout.cpu < CPU)),
        ),
        Row("start to first poll", f"{floor.start:.2f} s", f"{lookout.start:.2f} s"),
        Row("", "base", "image", "more", "limit"),
        Row(
            *("image", _megabytes(base), _megabytes(image), _megabytes(over)),
            *(_megabytes(OVER_BASE), _verdict(over <= OVER_BASE)),
        ),
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _verdict(is_within: bool) -> str:
    return "ok" if is_within else "NO"


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        cells = "  ".join(f"{cell:>9}" for cell in row[1:])
        print(f"{row.name:20}  {cells}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
