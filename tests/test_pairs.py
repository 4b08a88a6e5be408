"""Pairs of images within a session, and how they are counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_pairs

from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.preference.pairs import pairs_within_sessions


def as_tuples(pairs):
    """(preferred, other, participant) of every pair."""
    return list(zip(pairs.preferred.tolist(), pairs.other.tolist(), pairs.participant.tolist(), strict=True))


def test_pairs_by_hand():
    """Images 0–2 are one session, ranked 1 > 2 > 0 with a gap; 3 is alone; 4 and 5 are another person's session 1."""
    pairs = pairs_within_sessions([0, 0, 0, 0, 1, 1], [1, 1, 1, 2, 1, 1], [1, 5, 4, 5, 2, 3])
    assert sorted(as_tuples(pairs)) == [(1, 0, 0), (1, 2, 0), (2, 0, 0), (5, 4, 1)]
    assert len(pairs) == 4
    assert pairs.per_participant.tolist() == [3, 1]


def test_five_images_make_ten_pairs():
    """That is n (n − 1) / 2, each once, the better one first."""
    rank = np.array([3, 1, 5, 2, 4])
    pairs = pairs_within_sessions(np.zeros(5, int), np.ones(5, int), rank)
    assert len(pairs) == 10
    assert (rank[pairs.preferred] > rank[pairs.other]).all()
    assert len({frozenset(pair) for pair in zip(pairs.preferred, pairs.other, strict=True)}) == 10


def test_people_without_pairs_are_counted_as_such():
    """First, between and last."""
    pairs = pairs_within_sessions([0, 1, 1, 2, 3, 3, 4], [1, 1, 1, 1, 7, 7, 1], [1, 1, 2, 1, 2, 1, 1])
    assert pairs.n_participants == 5
    assert pairs.per_participant.tolist() == [0, 1, 0, 1, 0]
    assert pairs.count(np.array([[True, False], [True, True]])).tolist() == [[0, 0], [1, 0], [0, 0], [1, 1], [0, 0]]


def test_no_pairs_at_all():
    """Single images only, or nobody."""
    pairs = pairs_within_sessions([0, 1], [1, 1], [1, 2])
    assert (len(pairs), pairs.per_participant.tolist()) == (0, [0, 0])
    empty = pairs_within_sessions(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert (len(empty), empty.n_participants) == (0, 0)


@pytest.mark.parametrize("ranks", [[2, 2], [1, 3, 3], [3, 3, 1], [5, 4, 4, 1]])
def test_tied_ranks_are_refused(ranks):
    """A ranking without an order cannot say which image is preferred."""
    n = len(ranks)
    with pytest.raises(ValueError, match=r"two images of participant 1, session 4 share a rank"):
        pairs_within_sessions([0] + [1] * n, [4] * (n + 1), [2, *ranks])


def test_equal_ranks_in_different_sessions_are_no_tie():
    """Every session has its own best image."""
    assert len(pairs_within_sessions([0, 0, 0, 0], [1, 2, 1, 2], [5, 5, 4, 4])) == 2


def test_agreement_by_hand():
    """Higher agrees; equal and lower do not."""
    pairs = pairs_within_sessions([0, 0, 1, 1, 2, 2], [1] * 6, [2, 1, 2, 1, 2, 1])
    score = [0.7, 0.5, 0.5, 0.5, 0.2, 0.3]
    assert pairs.agrees(score).tolist() == [True, False, False]
    np.testing.assert_allclose(pairs.difference(score), [0.2, 0.0, -0.1], atol=1e-12)


@st.composite
def rankings(draw):
    """Participant, session and rank of images in any order, ranks with gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for participant in range(draw(st.integers(1, 4))):
        for session in rng.permutation(9)[: draw(st.integers(1, 3))]:
            n = draw(st.integers(1, 5))
            rows += [(participant, session, rank) for rank in rng.permutation(7)[:n]]
    return np.array(rows)[rng.permutation(len(rows))]


@given(rankings())
def test_against_the_plain_loop(rows):
    """The same pairs as from all combinations, ordered by participant."""
    participant, session, rank = rows.T
    pairs = pairs_within_sessions(participant, session, rank)
    images = pd.DataFrame({"participant": participant, "session_index": session, "rank_score": rank})
    expected = [tuple(map(int, pair)) for pair in plain_pairs(images)]
    assert sorted(as_tuples(pairs)) == sorted(expected)
    assert (np.diff(pairs.participant) >= 0).all()
    assert pairs.per_participant.tolist() == [
        sum(owner == each for _, _, owner in expected) for each in range(participant.max() + 1)
    ]


@given(rankings(), st.integers(0, 2**32 - 1))
def test_counts_add_up_and_turn_round(rows, seed):
    """Agreeing, opposed and tied pairs are all pairs; the opposite score swaps the first two."""
    participant, session, rank = rows.T
    pairs = pairs_within_sessions(participant, session, rank)
    score = np.random.default_rng(seed).integers(0, 4, len(rank))
    agreeing, opposed = pairs.count(pairs.agrees(score)), pairs.count(pairs.agrees(-score))
    tied = pairs.count(pairs.difference(score) == 0)
    assert (agreeing + opposed + tied == pairs.per_participant).all()
    turned = pairs_within_sessions(participant, session, -rank)
    assert (turned.count(turned.agrees(score)) == opposed).all()
    assert (turned.count(turned.agrees(-score)) == agreeing).all()


@given(rankings(), st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(rows, seed):
    """The same images in another order make the same pairs."""
    order = np.random.default_rng(seed).permutation(len(rows))
    pairs = pairs_within_sessions(*rows.T)
    shuffled = pairs_within_sessions(*rows[order].T)
    renamed = sorted((order[preferred], order[other], who) for preferred, other, who in as_tuples(shuffled))
    assert renamed == sorted(as_tuples(pairs))


def test_published_pairs(published_root):
    """2,072 images of 30 people make 3,534 pairs."""
    folders = Folders(published_root)
    sessions = read_valid_sessions(folders)
    for participant in read_excluded_participants(folders, sessions):
        del sessions[participant]
    images = read_image_reactions(
        folders, sessions, image_columns=["rank_score"], activation_columns=["AU4_activation_value"]
    )
    participant = np.unique(images["participant"], return_inverse=True)[1]
    pairs = pairs_within_sessions(participant, images["session_index"], images["rank_score"])
    assert (len(images), pairs.n_participants, len(pairs)) == (2072, 30, 3534)
