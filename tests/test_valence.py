"""Valence scores (eqs. 3–6), against values worked by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fergi.preference.valence import au4_valence, au12_valence, combined_valence

LN2 = np.log(2)


def test_single_units_by_hand():
    """1 − e^(−k a) is 0, 1/2, 3/4 for a = 0, ln 2, 2 ln 2 and k = 1, and 3/4 for ln 2 and k = 2."""
    assert_allclose(au4_valence([0, LN2, 2 * LN2], decay=1.0), [0, -0.5, -0.75], atol=1e-12)
    assert_allclose(au12_valence([0, LN2, 2 * LN2], decay=1.0), [0, 0.5, 0.75], atol=1e-12)
    assert_allclose(au4_valence(LN2, decay=2.0), -0.75, atol=1e-12)
    assert_allclose(au12_valence(LN2, decay=2.0), 0.75, atol=1e-12)


def test_valence_by_hand():
    """With k = 1 an activation of ln 2 gives exactly one half."""
    au4, au12 = [0, LN2, 0, LN2], [0, 0, LN2, LN2]
    assert_allclose(combined_valence(au4, au12, decay=1.0, au4_weight=0.6), [0.0, -0.3, 0.2, -0.1], atol=1e-12)


def test_released_slip_by_hand():
    """s_AU4 · s_AU12 in place of s_AU4: a frown alone is neutral, with a smile it is half as strong here."""
    au4, au12 = [0, LN2, 0, LN2], [0, 0, LN2, LN2]
    found = combined_valence(au4, au12, decay=1.0, au4_weight=0.6, product=True)
    assert_allclose(found, [0.0, 0.0, 0.2, -0.15 + 0.2], atol=1e-12)


activations = st.floats(0, 8)


@given(activations, activations, st.floats(0.1, 2.1), st.floats(0, 1))
def test_range_and_limits(au4, au12, decay, weight):
    """Between −w and 1 − w; without a frown it is not negative, without a smile not positive."""
    score = combined_valence(au4, au12, decay=decay, au4_weight=weight)
    assert -weight <= score <= 1 - weight
    assert combined_valence(0, au12, decay=decay, au4_weight=weight) >= 0
    assert combined_valence(au4, 0, decay=decay, au4_weight=weight) <= 0


@given(activations, activations, activations, st.floats(0.1, 2.1), st.floats(0, 1))
def test_more_smile_is_better_more_frown_is_worse(au4, low, high, decay, weight):
    """Monotone in both units."""
    low, high = sorted((low, high))
    smiles = combined_valence([au4, au4], [low, high], decay=decay, au4_weight=weight)
    frowns = combined_valence([low, high], [au4, au4], decay=decay, au4_weight=weight)
    assert smiles[0] <= smiles[1]
    assert frowns[0] >= frowns[1]
