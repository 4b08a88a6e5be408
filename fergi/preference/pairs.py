"""Pairs of images made from one prompt, and how often a score prefers the image that the person preferred."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Pairs:
    """Pairs of images within sessions, by participant, session and rank.

    Attributes
    ----------
    names : ndarray of str, shape (n_participants,)
        The participants in ascending order, those without any pair included.
    owner : ndarray of int, shape (n_images,)
        Whose image it is, as a place in ``names``.
    preferred, other : ndarray of int, shape (n_pairs,)
        Rows of the image that the person ranked higher and of the other one.
    participant : ndarray of int, shape (n_pairs,)
        Whose pair it is, ascending.
    """

    names: np.ndarray
    owner: np.ndarray
    preferred: np.ndarray
    other: np.ndarray
    participant: np.ndarray

    def __len__(self) -> int:
        return len(self.preferred)

    def count(self, which: np.ndarray) -> np.ndarray:
        """How many of each participant's pairs are chosen.

        ``which`` is bool, shape (n_pairs,) or (n_pairs, n) for ``n`` choices; the counts have shape
        (n_participants,) or (n_participants, n).
        """
        bounds = np.searchsorted(self.participant, np.arange(len(self.names) + 1))
        counts = np.zeros((len(self.names), *which.shape[1:]), int)
        some = np.flatnonzero(np.diff(bounds))
        if len(some):
            counts[some] = np.add.reduceat(which, bounds[some], axis=0, dtype=int)
        return counts

    def difference(self, score: ArrayLike) -> np.ndarray:
        """Score of the preferred image minus score of the other, shape (n_pairs,) or (n_pairs, n)."""
        score = np.asarray(score)
        return score[self.preferred] - score[self.other]

    def agrees(self, score: ArrayLike) -> np.ndarray:
        """Whether the score, too, is higher for the preferred image; a tie is not (bool, one a pair)."""
        score = np.asarray(score)
        return score[self.preferred] > score[self.other]


def pairs_of(images: pd.DataFrame) -> Pairs:
    """All pairs of images of the same session (Section 6.2.4), each once.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image: ``participant``, ``session_index`` (sessions of different participants may share theirs)
        and ``rank_score`` (higher was ranked better).

    Raises
    ------
    ValueError
        If two images of a session share a rank.
    """
    names, owner = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    table = images[["session_index", "rank_score"]].assign(owner=owner, image=np.arange(len(images)))
    table = table.sort_values(["owner", "session_index", "rank_score"], ascending=[True, True, False])
    both = table.merge(table, on=["owner", "session_index"], suffixes=("", "_other"))
    tied = both[(both["rank_score"] == both["rank_score_other"]) & (both["image"] != both["image_other"])]
    if len(tied):
        first = tied.iloc[0]
        raise ValueError(
            f"two images of participant {names[int(first['owner'])]}, session {first['session_index']:g} share a rank"
        )
    both = both[both["rank_score"] > both["rank_score_other"]]
    preferred, other, participant = (both[name].to_numpy() for name in ("image", "image_other", "owner"))
    return Pairs(names, owner, preferred, other, participant)
