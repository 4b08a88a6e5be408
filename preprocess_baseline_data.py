"""AU activation values of the baseline clips (Sections 5.1 and 5.2).

Reads   data/<participant>/session_<n>/baseline_clip_<i>_features.csv
        preparation/valid_sessions.json
Writes  preparation/preprocessed_baseline_data/<participant>.csv
Run     python preprocess_baseline_data.py
Takes   about two seconds; no GPU.

With the published features 2,044 of 2,880 clips are valid.
"""

from collections.abc import Sequence

import config
from fergi.activation import write_activation_tables
from fergi.dataset import Folders, read_valid_sessions
from fergi.script import argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and write the tables of all participants, or none."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    write_activation_tables(
        folders,
        "baseline",
        read_valid_sessions(folders),
        limits=config.FRAME_LIMITS,
        minimum_valid_share=config.MINIMUM_VALID_SHARE,
        window_seconds=config.WINDOW_SECONDS,
    )


if __name__ == "__main__":
    run(main)
