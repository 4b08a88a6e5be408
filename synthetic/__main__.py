"""A synthetic cohort with a planted effect, and the whole study on it.

Run     python -m synthetic demo --root demo         everything, as ``make demo`` does; about ten minutes
        python -m synthetic demo --root demo0 --strength 0      nothing planted, so nothing to find
        python -m synthetic cohort --root DIR        people, pictures and films only
        python -m synthetic scorers --root DIR       tiny scorers only
        python -m synthetic compare --root DIR       planted beside recovered, from files that are there

Faces are drawn; no figure of it speaks of real faces.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from fergi.dataset import Folders
from fergi.files import FergiError
from fergi.script import run
from synthetic.claim import clear
from synthetic.cohort import checked
from synthetic.demo import SIZES, run_steps
from synthetic.recovery import RECOVERED, as_text, output

# Modules of their own, so that a step of the demo depends on no other one's.
PARTS = {
    "cohort": ("synthetic.recordings", "people, pictures, films"),
    "scorers": ("synthetic.scorers", "tiny scorers"),
    "compare": ("synthetic.recovery", "planted beside recovered"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synthetic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    demo = parts.add_parser("demo", help="the whole study")
    demo.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder for everything")
    demo.add_argument("--size", choices=SIZES, default="demo", help="default: %(default)s")
    demo.add_argument("--strength", type=float, help="of the planted effect, intensity 0-5; 0: none")
    demo.add_argument("--seed", type=int, help="another cohort")
    demo.add_argument("--afresh", action="store_true", help="remove everything below --root before")
    for name, (_, what) in PARTS.items():
        parts.add_parser(name, help=what)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the first argument names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in PARTS:
        importlib.import_module(PARTS[arguments[0]][0]).main(arguments[1:])
    else:
        _demo(_parser().parse_args(arguments))


def _demo(chosen: argparse.Namespace) -> None:
    """Every step, and at the end the verdict."""
    root, size = chosen.root.resolve(), SIZES[chosen.size]
    wishes = {name: getattr(chosen, name) for name in ("strength", "seed") if getattr(chosen, name) is not None}
    cohort = checked(**asdict(size.cohort) | wishes)
    if chosen.afresh:
        clear(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the step at hand ends as well
    run_steps(root, replace(size, cohort=cohort))

    table = pd.read_csv(output(Folders(root)), dtype=str)
    print(f"\nSynthetic data, planted strength {cohort.strength:g}:\n\n{as_text(table)}\n")
    print(f"Read {root / 'results' / 'result_analysis.html'}; the figures are in {root / 'figures'}.")
    lost = table[table["verdict"] != RECOVERED]
    if len(lost):
        raise FergiError(
            f"{len(lost)} of {len(table)} planted quantities were not recovered (first: {lost['quantity'].iloc[0]}). "
            "See the table above."
        )
    print(f"All {len(table)} planted quantities were recovered.")


if __name__ == "__main__":
    run(main)
