"""The long form of the faults: end every command again and again, and print what it survived."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.commands import COMMANDS
from tests.faults.kills import WAYS, Breaking
from tests.warm_adanat import warm_adanat


def main() -> None:
    """Print a table in Markdown; a command that does not survive ends it with an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="How often each command is ended at least.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the moments.")
    parser.add_argument("--only", nargs="*", default=list(COMMANDS), choices=COMMANDS, help="Commands to end.")
    asked = parser.parse_args()
    print(f"| command | {' | '.join(WAYS)} | runs that came to the same files | slowest SIGTERM |", flush=True)
    print(f"|---|{'---|' * (len(WAYS) + 2)}", flush=True)
    with warm_adanat() as environment, tempfile.TemporaryDirectory() as folder:
        stdout, sys.stdout = sys.stdout, sys.stderr  # where each end is told
        breaking = Breaking(Path(folder), environment, asked.seed)
        for name in asked.only:
            outcome = breaking.survive(name, asked.kills)
            ended = " | ".join(str(outcome.ended[way]) for way in WAYS)
            row = f"| `{name}` | {ended} | {outcome.num_compared} of {outcome.num_compared} | {outcome.slowest:.1f} s |"
            print(row, file=stdout, flush=True)


if __name__ == "__main__":
    main()
