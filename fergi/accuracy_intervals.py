"""Tables 1 and 2 and the differences between their models, with intervals from a bootstrap over participants.

Reads   results/ as stage 9 left them in the modes paper, released and strict; preparation/ as stages 7 and 8 left it
Writes  results/accuracy_intervals.csv: mode, table, figure, kind, estimate, lower, upper (percent, percentage points)
        and removes results/paper_check.csv, which compared earlier numbers
Run     python -m fergi.accuracy_intervals
Takes   about three seconds; no GPU.

With the published data, AUcomb is 6.13 points ahead of the ensemble on the selected pairs, with an interval from
-0.60 to 12.24.
"""

from collections.abc import Sequence

import pandas as pd

from fergi.dataset import Folders
from fergi.files import check_writable, write_table
from fergi.preference.results import VALENCE, read_results, tables_1_and_2
from fergi.script import argument_parser, run
from fergi.statistics import RESAMPLES, SEED, bootstrap_accuracies

MODES = {"released": ("released", False), "paper": ("paper", False), "strict": ("paper", True)}
COLUMNS = ("mode", "table", "figure", "kind", "estimate", "lower", "upper")


def with_intervals(results: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The rows of Tables 1 and 2 and the differences that the paper speaks of, with 95 % intervals.

    Parameters
    ----------
    results : pandas.DataFrame
        Stage 9, one row a participant.
    resamples, seed : int
        Of the bootstrap (see ``bootstrap_accuracies``).

    Returns
    -------
    pandas.DataFrame
        Index ``figure``; columns ``table``, ``kind`` (accuracy or difference), ``estimate``, ``lower``, ``upper``,
        in percent and percentage points.
    """
    rows = tables_1_and_2(results)
    alone, with_aus = rows[~rows["with_aus"]], rows[rows["with_aus"]]
    aucomb = alone[alone["scorer"] == VALENCE].set_index("pairs")["model"]
    others = alone[alone["scorer"] != VALENCE]
    differences = {f"AUcomb - {row.name}, {row.pairs}": (aucomb[row.pairs], row.model) for row in others.itertuples()}
    differences |= {f"{row.name} with AUs - without, all": (row.model, row.scorer) for row in with_aus.itertuples()}
    table = bootstrap_accuracies(results, list(rows["model"]), differences, resamples=resamples, seed=seed)
    table.index = pd.Index([*rows.index, *differences], name="figure")
    table.insert(0, "table", ["Table 1" if name.endswith("selected") else "Table 2" for name in table.index])
    table.insert(1, "kind", ["accuracy"] * len(rows) + ["difference"] * len(differences))
    return table


def _show_interval(row: pd.Series) -> str:
    """An estimate with its interval; with few people the sample, or some of the resamples, may have no pair."""
    if pd.isna(row.estimate):
        return "no pairs"
    return f"{row.estimate:.2f} " + ("(no interval)" if pd.isna(row.lower) else f"[{row.lower:.2f}, {row.upper:.2f}]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the results of all modes, draw participants, write and print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the bootstrap (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if chosen.resamples < 1 or chosen.seed < 0:
        parser.error("--resamples must be at least 1, and --seed at least 0")
    folders = Folders(chosen.root)
    results = {name: read_results(folders, *mode) for name, mode in MODES.items()}
    check_writable(folders.results)
    tables = {
        name: with_intervals(table, resamples=chosen.resamples, seed=chosen.seed) for name, table in results.items()
    }
    folders.paper_check.unlink(missing_ok=True)
    write_table(pd.concat(tables, names=["mode"]).reset_index()[list(COLUMNS)], folders.accuracy_intervals)

    print("Tables 1 and 2 with 95 % bootstrap intervals over participants (percent, percentage points):\n")
    print(pd.concat({name: table.apply(_show_interval, axis=1) for name, table in tables.items()}, axis=1).to_string())
    print(f"\nWrote {folders.accuracy_intervals}.")


if __name__ == "__main__":
    run(main)
