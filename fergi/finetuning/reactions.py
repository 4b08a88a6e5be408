"""Single pictures that somebody liked or disliked, as Diffusion-KTO reads them."""

from pathlib import Path

import pandas as pd

from fergi.files import FergiError
from fergi.finetuning.pairs import Picture, PreferencePairs

LIKED, DISLIKED, BOTH = "exclusive_win", "exclusive_lose", "intersections"
REACTIONS_ADVICE = "Write it with annotate_preferences.py --export diffusion-kto --out DIR."


def read_reactions(path: Path, pictures: Path | None = None) -> tuple[PreferencePairs, list[str]]:
    """The reactions in a CSV file, and sentences on those that are not used.

    Parameters
    ----------
    path : Path
        With the columns ``file_name``, ``caption`` and ``split``.
    pictures : Path or None
        The folder from which it names its pictures; by default its own.

    Returns
    -------
    PreferencePairs
        Pairs of each picture with itself, so that they are checked and split as pairs are; the label is 1 if the
        picture is liked and 0 if it is disliked.

    Raises
    ------
    FergiError
        If the file is not that, or lacks liked or disliked pictures.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise FergiError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}. {REACTIONS_ADVICE}") from error
    if lacking := [name for name in ("file_name", "caption", "split") if name not in table]:
        raise FergiError(f"{path} has no column {lacking[0]}. {REACTIONS_ADVICE}")
    wrong = ~table["split"].isin([LIKED, DISLIKED, BOTH]) | (table["file_name"] == "") | (table["caption"] == "")
    if wrong.any():
        raise FergiError(
            f"{wrong.sum()} of {len(table)} rows of {path} lack a picture, a prompt or a reaction that is known "
            f"(first: line {wrong.idxmax() + 2}). {REACTIONS_ADVICE}"
        )
    used = table[table["split"] != BOTH]
    for split, what in ((LIKED, "liked"), (DISLIKED, "disliked")):
        if not (used["split"] == split).any():
            raise FergiError(f"{path} has no picture that is {what} alone, and both kinds are needed. Add some.")
    names = pd.unique(used["file_name"])
    places = pd.Series(range(len(names)), names)[used["file_name"]].to_numpy()
    files = ((pictures or path.parent) / name for name in names)
    rows = {"prompt": used["caption"].to_numpy(), "participant": "", "first": places, "second": places}
    rows["label"] = (used["split"] == LIKED).to_numpy(float)
    said = [f"{len(table) - len(used)} pictures that are both liked and disliked are not used."]
    return PreferencePairs(tuple(Picture(str(file), file) for file in files), pd.DataFrame(rows)), said
