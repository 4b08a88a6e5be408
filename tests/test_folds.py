"""Who trains in a fold, and how training counts are made."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from small_search import random_images, small_search

from fergi.preference.folds import carried, first_best, mean_and_deviation
from fergi.preference.grid_search import fit, fit_folds

seeds = st.integers(0, 2**32 - 1)


def test_first_best_by_hand():
    """Three people's values at three points: the sums are 6 6 3, and 3 3 3, 5 4 0 and 4 5 3 without one of them."""
    value = np.array([[3, 3, 0], [1, 2, 3], [2, 1, 0]])
    assert [first_best(value, held_out) for held_out in (None, 0, 1, 2)] == [0, 0, 0, 1]


def test_parameters_carried_by_hand():
    """In a strict fold everybody has the fold's, otherwise everybody has their own fold's."""
    owner = np.array([0, 0, 1, 2])
    assert carried(owner, 2, strict=True).tolist() == [2, 2, 2, 2]
    assert carried(owner, 2, strict=False).tolist() == [0, 0, 1, 2]
    for strict in (False, True):
        assert carried(owner, None, strict=strict).tolist() == [0, 0, 0, 0]


def test_mean_and_deviation_by_hand():
    """Training scores 1, 2, 3 have mean 2 and standard deviation 1 (n − 1); 1, 2, 3, 6 have 3 and √(14/3)."""
    scores, owner = pd.DataFrame({"a": [1.0, 2.0, 3.0, 6.0], "b": [10.0, 20.0, 30.0, 60.0]}), np.array([0, 1, 1, 2])
    assert_allclose(mean_and_deviation(scores, owner, 2), [[2, 20], [1, 10]], atol=1e-12)
    root = np.sqrt(14 / 3)
    assert_allclose(mean_and_deviation(scores, owner, None), [[3, 30], [root, 10 * root]], atol=1e-12)


def test_score_without_spread_is_named():
    """Three times 0.1 has a mean above 0.1 in floats, and no spread all the same."""
    scores = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.1, 0.1, 0.1, 0.2]})
    with pytest.raises(ValueError, match="b is the same for all training images"):
        mean_and_deviation(scores, np.array([0, 0, 0, 1]), 1)


def same(first, second):
    """Whether two fits found the same parameters, to the last bit."""
    return all(np.array_equal(each, vars(second)[name]) for name, each in vars(first).items())


def fitted(how, images, *arguments):
    """What a fit gives, or None where the table cannot be fitted."""
    try:
        return how(images, small_search(*arguments))
    except ValueError:
        return None


@given(seeds, st.sampled_from(["paper", "released"]), st.booleans())
def test_fit_on_everybody_but_one_is_that_ones_strict_fold(seed, mode, ties):
    """Every parameter, the moments of the z-scores included."""
    images = random_images(seed, 4, ties=ties)
    folds = fitted(fit_folds, images, mode, True)
    for number in range(4) if folds else ():
        others = images[images["participant"] != f"p{number}"].reset_index(drop=True)
        assert same(fitted(fit, others, mode), folds[number])


@given(seeds, st.sampled_from(["paper", "released"]))
def test_folds_differ_in_the_integration_only_where_they_are_not_strict(seed, mode):
    """Everything before eq. 10 uses one fold only."""
    images = random_images(seed, 4, ties=True)
    loose, strict = (fitted(fit_folds, images, mode, each) for each in (False, True))
    for first, second in zip(loose or (), strict or (), strict=True):
        assert same(first, type(first)(**vars(second) | {"integration_weights": first.integration_weights}))


def test_folds_that_are_not_strict_saw_the_participant_held_out():
    """Another behaviour of p0 changes the fold that holds p0 out, which it never does in a strict fold."""
    changed = {False: [], True: []}
    for seed in range(60):
        images = random_images(seed, 4, ties=False)
        other, mine = images.copy(), images["participant"] == "p0"
        other.loc[mine, "rank_score"] *= -1
        other.loc[mine, "AU4_activation_value"] += 1
        other.loc[mine, "AU12_activation_value"] *= 3
        for strict, different in changed.items():
            before, after = (fitted(fit_folds, each, "paper", strict) for each in (images, other))
            different.append(before is not None and not same(before[0], after[0]))
    assert any(changed[False])
    assert not any(changed[True])
