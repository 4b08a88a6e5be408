"""Who trains in a fold; the plain search in test_results.py has its counts."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from small_search import random_images, small_search

from fergi.preference.folds import mean_and_deviation
from fergi.preference.grid_search import fit, fit_folds

seeds = st.integers(0, 2**32 - 1)


def test_mean_and_deviation_by_hand():
    """Training scores 1, 2, 3 have mean 2 and standard deviation 1 (n − 1); 1, 2, 3, 6 have 3 and √(14/3)."""
    scores, owner = pd.DataFrame({"a": [1.0, 2.0, 3.0, 6.0], "b": [10.0, 20.0, 30.0, 60.0]}), np.array([0, 1, 1, 2])
    assert_allclose(mean_and_deviation(scores, owner, 2), [[2, 20], [1, 10]], atol=1e-12)
    root = np.sqrt(14 / 3)
    assert_allclose(mean_and_deviation(scores, owner, None), [[3, 30], [root, 10 * root]], atol=1e-12)


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
