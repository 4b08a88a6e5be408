"""Which AUs go with ratings and emotions: the statistics of Section 6.1, as the paper says and as the release does.

Reads   preparation/ as stages 5 and 7 left it
Writes  results/overall_rating_correlations.csv   rho and p of each AU with the rating and with its extremity
        results/emotion_rank_sums.csv             z and p of each AU between images with and without an emotion
        both with _released before .csv for the released mode, in which equal activations do not tie
Run     python -m fergi.section_6_1
Takes   about two seconds; no GPU.

With the published data, AU4 goes with the rating (rho = -0.18) and with disgust (z = 8.34).
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import EMOTIONS, Folders, read_image_reactions, read_valid_sessions
from fergi.files import FergiError, check_writable, read_table, write_tables
from fergi.script import RELEASE_MODES, argument_parser, run
from fergi.statistics import emotion_rank_sums, marked, rating_correlations

RATING_COLUMNS = ("rating_rho", "rating_p", "extremity_rho", "extremity_p")
EMOTION_COLUMNS = tuple(f"{emotion}_{statistic}" for emotion in EMOTIONS for statistic in ("z", "p"))


def _paths(folders: Folders, mode: str) -> tuple[Path, Path]:
    suffix = "_released" if mode == "released" else ""
    names = ("overall_rating_correlations", "emotion_rank_sums")
    return tuple(folders.results / f"{name}{suffix}.csv" for name in names)


def read_statistics(folders: Folders, mode: str = "paper") -> tuple[pd.DataFrame, pd.DataFrame]:
    """What ``rating_correlations`` and ``emotion_rank_sums`` gave in one mode, from the files.

    Raises
    ------
    FergiError
        If one of the two files is missing or unusable.
    """
    try:
        return tuple(
            read_table(path, key=["AU"], kept=columns).set_index("AU")
            for path, columns in zip(_paths(folders, mode), (RATING_COLUMNS, EMOTION_COLUMNS), strict=True)
        )
    except ValueError as error:
        raise FergiError(f"{error}. Run python -m fergi.section_6_1 first.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Read ratings, emotions and activation values; compute, write and print both tables."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    reactions = read_image_reactions(
        folders,
        read_valid_sessions(folders),
        image_columns=["overall_rating", *EMOTIONS],
        activation_columns=ACTIVATION_COLUMNS,
        may_lack_units=True,
    )
    check_writable(folders.results)
    tables = {}
    for mode in RELEASE_MODES:
        decimals = None if mode == "released" else 9
        for path, statistics in zip(_paths(folders, mode), (rating_correlations, emotion_rank_sums), strict=True):
            tables[path] = statistics(reactions, decimals)
    write_tables({path: table.reset_index() for path, table in tables.items()})

    print(f"{len(reactions)} images with a valid reaction. An asterisk: significant after the Bonferroni correction.\n")
    for path in _paths(folders, "paper"):
        columns = tables[path].columns
        shown = marked(tables[path][columns[::2]], tables[path][columns[1::2]], digits=3)
        print(shown.rename(columns=lambda name: name.removesuffix("_z")).to_string() + "\n")
    print(f"Wrote {', '.join(path.name for path in tables)} to {folders.results}.")


if __name__ == "__main__":
    run(main)
