"""Pairs of images within a session, and how they are counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_pairs

from fergi.preference.pairs import pairs_of


def images(participant, session, rank):
    """An image table; one session number stands for all."""
    return pd.DataFrame({"participant": list(map(str, participant)), "session_index": session, "rank_score": rank})


def as_tuples(pairs):
    """(preferred, other, participant) of every pair."""
    return list(zip(pairs.preferred.tolist(), pairs.other.tolist(), pairs.participant.tolist(), strict=True))


def number_of_pairs(pairs):
    """Of each participant."""
    return pairs.count(np.ones(len(pairs), bool)).tolist()


def test_pairs_by_hand():
    """Images 0–2 are one session, ranked 1 > 2 > 0 with a gap; 3 is alone; 4 and 5 are another person's session 1."""
    pairs = pairs_of(images("aaaabb", [1, 1, 1, 2, 1, 1], [1, 5, 4, 5, 2, 3]))
    assert as_tuples(pairs) == [(1, 2, 0), (1, 0, 0), (2, 0, 0), (5, 4, 1)]
    assert (len(pairs), number_of_pairs(pairs)) == (4, [3, 1])
    assert (pairs.names.tolist(), pairs.owner.tolist()) == (["a", "b"], [0, 0, 0, 0, 1, 1])


def test_people_without_pairs_are_counted_as_such():
    """First, between and last; single images only; nobody."""
    pairs = pairs_of(images("abbcdde", [1, 1, 1, 1, 7, 7, 1], [1, 1, 2, 1, 2, 1, 1]))
    assert number_of_pairs(pairs) == [0, 1, 0, 1, 0]
    assert pairs.count(np.array([[True, False], [True, True]])).tolist() == [[0, 0], [1, 0], [0, 0], [1, 1], [0, 0]]
    assert number_of_pairs(pairs_of(images("ab", 1, [1, 2]))) == [0, 0]
    assert number_of_pairs(pairs_of(images("", 1, []))) == []


@pytest.mark.parametrize("ranks", [[2, 2], [1, 3, 3], [3, 3, 1], [5, 4, 4, 1]])
def test_tied_ranks_are_refused(ranks):
    """A ranking without an order cannot say which image is preferred."""
    with pytest.raises(ValueError, match=r"two images of participant b, session 4 share a rank"):
        pairs_of(images("a" + "b" * len(ranks), 4, [2, *ranks]))


def test_agreement_by_hand():
    """Higher agrees; equal and lower do not."""
    pairs = pairs_of(images("aabbcc", 1, [2, 1, 2, 1, 2, 1]))
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
    return images(*np.array(rows)[rng.permutation(len(rows))].T)


@given(rankings())
def test_against_the_plain_loop(table):
    """The same pairs as from all combinations, ordered by participant."""
    pairs = pairs_of(table)
    expected = [(preferred, other, int(participant)) for preferred, other, participant in plain_pairs(table)]
    assert sorted(as_tuples(pairs)) == sorted(expected)
    assert (np.diff(pairs.participant) >= 0).all()
    assert number_of_pairs(pairs) == [sum(owner == each for *_, owner in expected) for each in range(len(pairs.names))]
