"""Exclude participants whose AU4 estimate moves while they rest (Section 6.2.1).

The paper gives the reasons (bangs over the brows, an unsteady camera) but no rule. The rule is the release's: a
participant is excluded if the 80th percentile of the AU4 activation of the baseline clips is 0.5 or more.

Reads   preparation/preprocessed_baseline_data/<participant>.csv
        preparation/valid_sessions.json
Writes  preparation/AU4_excluded_participants.json
Run     python filter_participants_based_on_AU4.py
Takes   about a second; no GPU.

With the published data this excludes 002, 004 and 039.
"""

from collections.abc import Sequence

import numpy as np

import config
from fergi.activation import require_action_units
from fergi.dataset import CLIP_KEY, Folders, read_valid_sessions
from fergi.files import read_tables, write_json
from fergi.script import argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the baseline tables, apply the rule, write the list."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    require_action_units(folders.activation_tables("baseline"), [4], "Excluding participants")
    tables = read_tables(
        folders.activation_tables("baseline"),
        read_valid_sessions(folders),
        key=CLIP_KEY,
        numeric=["AU4_activation_value"],
        advice="Run preprocess_baseline_data.py first.",
    )
    resting = {
        participant: np.percentile(table["AU4_activation_value"], config.BASELINE_AU4_PERCENTILE)
        for participant, table in tables.items()
    }
    excluded = [participant for participant, value in resting.items() if value >= config.BASELINE_AU4_LIMIT]
    write_json(excluded, folders.excluded_participants)

    print(f"Percentile {config.BASELINE_AU4_PERCENTILE} of the baseline AU4 activation, highest first:")
    for participant, value in sorted(resting.items(), key=lambda item: -item[1])[: len(excluded) + 1]:
        print(f"  {participant}  {value:.3f}  {'excluded' if participant in excluded else 'next'}")
    print(f"{len(excluded)} of {len(resting)} participants excluded: {', '.join(excluded) or 'nobody'}.")
    print(f"Wrote {folders.excluded_participants}.")


if __name__ == "__main__":
    run(main)
