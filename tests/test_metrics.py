"""Agreement of intensities: published examples, the original's values, by hand, and all frames at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fergi.action_units.metrics import METRICS, agreement, agreement_sums

# Shrout and Fleiss (1979), Table 2: six targets, four judges.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def icc31(ratings: np.ndarray) -> float:
    """The analysis of variance that ICC(3,1) is defined by, shape (n_targets, n_raters)."""
    n, k = ratings.shape
    target_means = ratings.mean(1)
    between = k * np.square(target_means - ratings.mean()).sum() / (n - 1)
    residual = ratings - target_means[:, None] - ratings.mean(0) + ratings.mean()
    error = np.square(residual).sum() / ((n - 1) * (k - 1))
    return (between - error) / (between + (k - 1) * error)


def found(predicted, labels) -> dict[str, np.ndarray]:
    """The metrics of all frames in one batch, shapes (n, n_units)."""
    return agreement(agreement_sums(torch.as_tensor(predicted), torch.as_tensor(labels)))


def test_icc_of_shrout_and_fleiss():
    """They print .71 (Table 4): the reference of the tests below."""
    assert_allclose(icc31(JUDGES), 0.71, atol=0.005)


def test_icc_of_the_original(vectors):
    """Three columns of fifty random pairs, shifted to 0 and above, since a label below 0 is none."""
    reference = np.load(vectors / "icc31.npz")
    labels = reference["labels"] - min(0, reference["labels"].min())
    assert_allclose(found(reference["predicted"], labels)["ICC"], reference["icc"], rtol=1e-10)


def test_by_hand():
    """Labels 0 2 4 estimated as 1 2 3: S_xx = 2, S_yy = 8, S_xy = 4, so ICC = 8/10. A frame without a label is none."""
    predicted = np.array([[1.0, 9], [2, 0], [3, 2], [99, 4]])
    labels = np.array([[0, -1], [2, 0], [4, 2], [-1, 4]])
    for name, expected in {"ICC": [0.8, 1], "MSE": [2 / 3, 0], "MAE": [2 / 3, 0]}.items():
        assert_allclose(found(predicted, labels)[name], expected, err_msg=name)


@pytest.mark.parametrize(
    ("predicted", "labels", "undefined"),
    [([], [], set(METRICS)), ([1.0], [2], {"ICC"}), ([2.0, 2.0], [0, 0], {"ICC"}), ([0.3, 0.7], [1, 1], set())],
)
def test_what_is_not_defined_is_nan(predicted, labels, undefined):
    """No frames, one frame, no variation at all; variation of one side is enough."""
    metrics = found(np.array(predicted, float)[:, None], np.array(labels, int)[:, None])
    assert {name for name, value in metrics.items() if np.isnan(value[0])} == undefined


@given(st.integers(0, 2**32 - 1))
def test_sums_give_what_all_frames_at_once_give(seed):
    """Batches of any size, with missing labels; a constant shift of the estimates does not change ICC(3,1)."""
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 6, (60, 12))
    shift = random.uniform(-3, 3)
    predicted = labels + random.normal(size=labels.shape) + shift
    cut = int(random.integers(0, 60))
    parts = [slice(None, cut), slice(cut, None)]
    sums = sum(agreement_sums(torch.from_numpy(predicted[part]), torch.from_numpy(labels[part])) for part in parts)
    for unit, used in enumerate((labels >= 0).T):
        x, y = predicted[used, unit], labels[used, unit]
        direct = icc31(np.stack([x - shift, y], axis=1)), np.square(x - y).mean(), np.abs(x - y).mean()
        for name, value in zip(METRICS, direct, strict=True):
            assert_allclose(agreement(sums)[name][unit], value, rtol=1e-9, err_msg=name)
