"""Pairs of images made from one prompt, and how often a score prefers the image that the person preferred."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Pairs:
    """Pairs of images within sessions, ordered by participant.

    Attributes
    ----------
    preferred, other : ndarray of int, shape (n_pairs,)
        Rows of the image that the person ranked higher and of the other one.
    participant : ndarray of int, shape (n_pairs,)
        Whose pair it is, from 0, ascending.
    n_participants : int
        How many there are, those without any pair included.
    """

    preferred: np.ndarray
    other: np.ndarray
    participant: np.ndarray
    n_participants: int

    def __len__(self) -> int:
        return len(self.preferred)

    @property
    def per_participant(self) -> np.ndarray:
        """Number of pairs of each participant, shape (n_participants,)."""
        return self.count(np.ones(len(self), bool))

    def count(self, which: np.ndarray) -> np.ndarray:
        """How many of each participant's pairs are chosen.

        Parameters
        ----------
        which : ndarray of bool, shape (n_pairs,) or (n_pairs, n)
            The choice, or ``n`` of them.

        Returns
        -------
        ndarray of int, shape (n_participants,) or (n_participants, n)
        """
        bounds = np.searchsorted(self.participant, np.arange(self.n_participants + 1))
        counts = np.zeros((self.n_participants, *which.shape[1:]), int)
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


def pairs_within_sessions(
    participant: ArrayLike, session: ArrayLike, rank_score: ArrayLike, names: Sequence[str] | None = None
) -> Pairs:
    """All pairs of images of the same session (Section 6.2.4), each once.

    Parameters
    ----------
    participant : array_like of int, shape (n_images,)
        From 0 to the number of participants − 1.
    session : array_like of int, shape (n_images,)
        Session number; sessions of different participants may share theirs.
    rank_score : array_like of float, shape (n_images,)
        Higher was ranked better; no two images of a session have the same.
    names : sequence of str, optional
        What the participants are called, for the error.

    Raises
    ------
    ValueError
        If two images of a session share a rank.
    """
    participant, session, rank_score = (np.asarray(each) for each in (participant, session, rank_score))
    order = np.lexsort((-rank_score, session, participant))
    by_participant, by_session, by_rank = participant[order], session[order], rank_score[order]
    better, worse = [], []
    distance = 1
    while distance < len(order):
        same = (by_participant[:-distance] == by_participant[distance:]) & (
            by_session[:-distance] == by_session[distance:]
        )
        if not same.any():
            break
        position = np.flatnonzero(same)
        if distance == 1 and (tied := by_rank[position] == by_rank[position + 1]).any():
            image = position[tied][0]
            name = by_participant[image] if names is None else names[by_participant[image]]
            raise ValueError(f"two images of participant {name}, session {by_session[image]} share a rank")
        better.append(position)
        worse.append(position + distance)
        distance += 1
    better = np.concatenate([*better, np.zeros(0, int)]).astype(int)
    worse = np.concatenate([*worse, np.zeros(0, int)]).astype(int)
    sequence = np.lexsort((worse, better))
    preferred, other = order[better[sequence]], order[worse[sequence]]
    return Pairs(preferred, other, participant[preferred], int(participant.max(initial=-1)) + 1)
