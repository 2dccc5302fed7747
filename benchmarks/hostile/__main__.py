"""Attacks, crowds and comparisons, each one command on the demo store.

    python -m benchmarks.hostile attacks [--only NAME ...] [--against CHECKOUT]
    python -m benchmarks.hostile crowd [--seconds N] [--against CHECKOUT]
    python -m benchmarks.hostile throughput --against CHECKOUT [--rounds N] [--seconds N]

`attacks` sends what took an earlier version down and prints a table of what became of /livez, of others'
requests and of memory. `crowd` is 500 idle connections and 200 clients of mixed protocols. `throughput`
serves good images from this version and from the one in CHECKOUT, in short rounds in turn, and prints the
ratio of their medians. For the first two, `--against` measures the other version instead of this one.
Each ends with 1 where a bound was missed: one of an attack, a request of the crowd that was not answered or
its memory, or a ratio below that of `throughput`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.hostile import crowd, table, throughput
from benchmarks.hostile.attacks import ATTACKS, attack
from benchmarks.hostile.lines import show


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["attacks", "crowd", "throughput"])
    parser.add_argument("--only", nargs="+", choices=[one.name for one in ATTACKS], help="these attacks")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the folder of another version")
    parser.add_argument("--seconds", type=float, help="of a crowd (120) or of one round (3)")
    parser.add_argument("--rounds", type=int, default=11, help="of either version's throughput")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped then, too
    if options.what == "attacks":
        chosen = [attack(name) for name in options.only] if options.only else ATTACKS
        return show(table.rows(chosen, options.against))
    if options.what == "crowd":
        return show(crowd.measure(options.seconds or 120.0, options.against))
    if options.against is None:
        parser.error("throughput needs --against CHECKOUT")
    return show(throughput.compare(options.against, options.seconds or 3.0, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
