"""A synthetic cohort with a planted effect, and the whole study on it.

Run     python -m fergi.synthetic demo --root demo         everything, as ``make demo`` does; about ten minutes
        python -m fergi.synthetic demo --root demo0 --strength 0      nothing planted, so nothing to find
        python -m fergi.synthetic cohort --root DIR        people, pictures and films only
        python -m fergi.synthetic scorers --root DIR       tiny scorers only
        python -m fergi.synthetic compare --root DIR       planted beside recovered, from files that are there

Faces are drawn; no figure of it speaks of real faces.
"""

import argparse
import signal
import textwrap
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from fergi.dataset import Folders
from fergi.files import FergiError, write_table
from fergi.script import add_workers_argument, run
from fergi.synthetic.cohort import CohortSettings
from fergi.synthetic.demo import SIZES, clear, run_steps


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fergi.synthetic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    for name, what in (
        ("demo", "the whole study"),
        ("cohort", "people, pictures, films"),
        ("scorers", "tiny scorers"),
        ("compare", "planted beside recovered"),
    ):
        part = parts.add_parser(name, help=what)
        part.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder for everything")
        if name == "demo":
            part.add_argument("--size", choices=SIZES, default="demo", help="default: %(default)s")
            part.add_argument("--strength", type=float, help="of the planted effect, intensity 0-5; 0: none")
            part.add_argument("--seed", type=int, help="another cohort")
            part.add_argument("--afresh", action="store_true", help="remove everything below --root before")
        if name == "scorers":
            part.add_argument("--seed", type=int, default=0, help="default: %(default)s")
            part.add_argument("--scenes", type=int, metavar="N", help="to learn from (default: 512)")
        if name == "cohort":
            for field in fields(CohortSettings):
                option = f"--{field.name.replace('_', '-')}"
                part.add_argument(option, type=field.type, default=field.default, help="default: %(default)s")
            add_workers_argument(part, "processes that draw")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the first argument names."""
    chosen = _parser().parse_args(arguments)
    root = chosen.root.resolve()
    folders = Folders(root)
    if chosen.part == "demo":
        return _demo(chosen, root)
    if chosen.part == "cohort":
        from fergi.synthetic.recordings import write_cohort

        settings = _checked({field.name: getattr(chosen, field.name) for field in fields(CohortSettings)})
        write_cohort(root, settings, workers=chosen.workers)
        print(f"Wrote {root}.")
    elif chosen.part == "scorers":
        from fergi.synthetic.scorers import make_scorers

        try:
            make_scorers(root, chosen.seed, **({"n_scenes": chosen.scenes} if chosen.scenes else {}))
        except ValueError as error:
            raise FergiError(f"Such scorers cannot be made: {error}.") from error
    else:
        from fergi.synthetic.recovery import compare, output

        table = compare(folders)
        write_table(table, output(folders))
        print(_shown(table))
        print(f"Wrote {output(folders)}.")
    return 0


def _checked(settings: dict) -> CohortSettings:
    """The settings, or one sentence on what is wrong with them."""
    try:
        return CohortSettings(**settings)
    except ValueError as error:
        raise FergiError(f"Such a cohort cannot be made: {error}.") from error


def _demo(chosen: argparse.Namespace, root: Path) -> int:
    """Every step, and at the end the verdict."""
    size = SIZES[chosen.size]
    wishes = {name: getattr(chosen, name) for name in ("strength", "seed") if getattr(chosen, name) is not None}
    cohort = _checked({field.name: getattr(size.cohort, field.name) for field in fields(CohortSettings)} | wishes)
    if chosen.afresh:
        clear(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the step at hand ends as well
    run_steps(root, replace(size, cohort=cohort))

    from fergi.synthetic.recovery import RECOVERED, output

    table = pd.read_csv(output(Folders(root)), dtype=str)
    print(f"\nSynthetic data, planted strength {cohort.strength:g}:\n\n{_shown(table)}\n")
    print(f"Read {root / 'results' / 'result_analysis.html'}; the figures are in {root / 'figures'}.")
    lost = table[table["verdict"] != RECOVERED]
    if len(lost):
        raise FergiError(
            f"{len(lost)} of {len(table)} planted quantities were not recovered (first: {lost['quantity'].iloc[0]}). "
            "See the table above."
        )
    print(f"All {len(table)} planted quantities were recovered.")
    return 0


def _shown(table: pd.DataFrame) -> str:
    """The table for a terminal of 120 columns."""
    widths = dict(zip(table.columns, (46, 22, 22, 18, 14), strict=True))
    lines = []
    for row in (tuple(widths), *table.astype(str).itertuples(index=False, name=None)):
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths.values(), strict=True)]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            lines.append("".join(f"{part:<{width + 1}}" for part, width in zip(parts, widths.values(), strict=True)))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    run(main)
