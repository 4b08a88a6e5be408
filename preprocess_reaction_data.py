"""AU activation values of the reactions to generated images (Sections 3.3, 5.1 and 5.2).

Reads   data/<participant>/session_<n>/reaction_clip_<i>_features.csv
        preparation/valid_sessions.json, preparation/invalid_images.json
Writes  preparation/preprocessed_reaction_data/<participant>.csv
Run     python preprocess_reaction_data.py
Takes   about two seconds; no GPU.

With the published features 2,253 of 2,880 clips are valid, 2,217 of them reactions to images that are not black.
"""

from collections.abc import Sequence

import config
from fergi.activation import write_activation_tables
from fergi.dataset import Folders, read_black_images, read_valid_sessions
from fergi.script import argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and write the tables of all participants, or none."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    sessions = read_valid_sessions(folders)
    write_activation_tables(
        folders,
        "reaction",
        sessions,
        limits=config.FRAME_LIMITS,
        minimum_valid_share=config.MINIMUM_VALID_SHARE,
        window_seconds=config.WINDOW_SECONDS,
        black=read_black_images(folders, sessions),
    )


if __name__ == "__main__":
    run(main)
