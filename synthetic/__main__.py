"""A synthetic cohort with a planted effect, and the whole study on it.

Run     python -m synthetic demo --root demo         everything, as ``make demo`` does; a quarter of an hour
        python -m synthetic study-demo --root study-demo    two scripted participants in a browser, to their results
        python -m synthetic cohort --root DIR        people, pictures and films only
        python -m synthetic scorers --root DIR       tiny scorers only
        python -m synthetic generator --root DIR     a tiny Stable Diffusion only
        python -m synthetic audience --root DIR      people who rank nothing, after stage 7
        python -m synthetic tuned --root DIR --what generator    tuning on pairs from faces, and its controls
        python -m synthetic compare --root DIR       planted beside recovered, from files that are there

Each takes ``--help``. All faces are drawn, so no result says anything about real faces.
"""

import argparse
import importlib
from collections.abc import Sequence

from fergi.script import run

# Only the module that is asked for is imported: PyTorch takes seconds.
PARTS = {
    "demo": "synthetic.demo",
    "study-demo": "synthetic.study_demo",
    "cohort": "synthetic.recordings",
    "scorers": "synthetic.scorers",
    "generator": "synthetic.generator",
    "audience": "synthetic.audience",
    "tuned": "synthetic.tuned",
    "compare": "synthetic.recovery",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(
        prog="python -m synthetic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("options", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    importlib.import_module(PARTS[chosen.part]).main(chosen.options)


if __name__ == "__main__":
    run(main)
