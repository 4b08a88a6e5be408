"""Reading what stage 9 and the fit of a model for new people learn from: reactions to images that were ranked."""

from collections.abc import Iterable, Sequence

import pandas as pd

from fergi.activation import require_action_units
from fergi.dataset import CLIP_KINDS, Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.features import require_one_estimator
from fergi.files import FergiError


def included_sessions(folders: Folders, *, everybody: bool) -> tuple[dict[str, list[int]], list[str]]:
    """Sessions of the participants to learn from, and who is excluded (Section 6.2.1): nobody with ``everybody``.

    Raises
    ------
    FergiError
        If a file is missing or unusable, or everybody is excluded.
    """
    sessions = read_valid_sessions(folders)
    excluded = [] if everybody else read_excluded_participants(folders, sessions)
    included = {participant: numbers for participant, numbers in sessions.items() if participant not in excluded}
    if not included:
        raise FergiError(f"{folders.excluded_participants} excludes all {len(sessions)} participants; nobody is left.")
    return included, excluded


def read_ranked_reactions(
    folders: Folders,
    included: dict[str, list[int]],
    action_units: Sequence[int],
    what: str,
    *,
    image_columns: Iterable[str] = (),
) -> pd.DataFrame:
    """``read_image_reactions`` with the activation values of some AUs, ``rank_score`` and ``image_columns``.

    ``included`` are from ``included_sessions``; ``what`` is the model that needs the AUs, for the error.

    Raises
    ------
    FergiError
        As ``read_image_reactions`` does, or if the activation values come from several estimators or lack an AU.
    """
    require_one_estimator(folders.activation_tables(kind) for kind in CLIP_KINDS)
    require_action_units(folders.activation_tables("reaction"), action_units, what)
    return read_image_reactions(
        folders,
        included,
        image_columns=["rank_score", *image_columns],
        activation_columns=[f"AU{unit}_activation_value" for unit in action_units],
    )
