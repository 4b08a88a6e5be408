"""Planted beside recovered: the summaries, by hand. Whole tables are in ``test_chain.py``."""

import itertools
import math

import numpy as np
import pytest

from fergi.synthetic.recovery import injected_activation, null_deviation


@pytest.mark.parametrize(
    ("course", "activation"),
    [
        ([0, 0, 0, 3, 3, 3, 0], 3.0),
        ([1, 1, 1, 1, 4, 1, 1], 1.0),  # (1 + 4 + 1) / 3 − 1
        ([3, 3, 3, 0, 0, 0], 0.0),  # nothing is higher than the first window
        ([2, 2, 2], 0.0),
    ],
)
def test_injected_activation_by_hand(course, activation):
    """Largest mean of three frames less the first."""
    assert injected_activation(np.array(course, float)) == pytest.approx(activation)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_null_deviation_is_that_of_all_orders(n):
    """Counted over every order of n images."""
    right = [
        sum(one < other for one, other in itertools.combinations(order, 2))
        for order in itertools.permutations(range(n))
    ]
    assert null_deviation([n]) == pytest.approx(np.std(right))


def test_null_deviations_of_sessions_add_as_variances():
    """Two sessions of five: 25/6 each."""
    assert null_deviation([5, 5]) == pytest.approx(math.sqrt(2 * 25 / 6))
