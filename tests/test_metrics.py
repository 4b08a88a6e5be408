"""Agreement of intensities: published examples, the original's values, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fergi.action_units.metrics import METRICS, agreement, agreement_sums, icc31, mae, mse, pearson

# Shrout and Fleiss (1979), Table 2: six targets, four judges.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def test_icc_of_shrout_and_fleiss():
    """They print .71 (Table 4)."""
    assert_allclose(icc31(*JUDGES.T), 0.71, atol=0.005)


def test_icc_of_the_original(vectors):
    """Three columns of fifty random pairs."""
    reference = np.load(vectors / "icc31.npz")
    assert_allclose(icc31(reference["predicted"], reference["labels"]), reference["icc"], rtol=1e-10)


def test_by_hand():
    """Labels 0 2 4 estimated as 1 2 3: S_xx = 2, S_yy = 8, S_xy = 4, so ICC = 8/10 and r = 1."""
    predicted, labels = np.array([[1.0], [2], [3]]), np.array([[0], [2], [4]])
    assert_allclose(icc31(predicted, labels), [0.8])
    assert_allclose(mse(predicted, labels), [2 / 3])
    assert_allclose(mae(predicted, labels), [2 / 3])
    assert_allclose(pearson(predicted, labels), [1])


def test_masked_frames_take_no_part():
    """Column by column."""
    predicted = np.array([[1.0, 9], [2, 0], [3, 2], [99, 4]])
    labels = np.array([[0, -1], [2, 0], [4, 2], [-1, 4]])
    mask = labels >= 0
    assert_allclose(icc31(predicted, labels, mask=mask), [0.8, 1])
    assert_allclose(mse(predicted, labels, mask), [2 / 3, 0])
    assert_allclose(mae(predicted, labels, mask), [2 / 3, 0])
    assert_allclose(pearson(predicted, labels, mask), [1, 1])


@pytest.mark.parametrize(
    ("predicted", "labels", "undefined"),
    [
        ([], [], {"ICC", "MSE", "MAE", "Pearson"}),
        ([1.0], [2], {"ICC", "Pearson"}),
        ([2.0, 2.0], [0, 0], {"ICC", "Pearson"}),
        ([0.3, 0.7], [1, 1], {"Pearson"}),
    ],
)
def test_what_is_not_defined_is_nan(predicted, labels, undefined):
    """No frames, one frame, no variation at all, no variation of one side."""
    predicted, labels = np.array(predicted, float), np.array(labels)
    direct = {"ICC": icc31, "MSE": mse, "MAE": mae, "Pearson": pearson}
    assert {name for name, metric in direct.items() if np.isnan(metric(predicted, labels))} == undefined
    sums = agreement_sums(torch.from_numpy(predicted)[:, None], torch.from_numpy(labels)[:, None])
    assert {name for name, value in agreement(sums).items() if np.isnan(value[0])} == undefined


def test_shapes_must_agree():
    """Rather than being stretched to each other."""
    with pytest.raises(ValueError, match=r"shapes differ: \(3, 2\), \(3, 1\)"):
        mse(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="two raters"):
        icc31(np.zeros(3))


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_icc_does_not_see_a_constant_shift_of_a_rater(seed, shift):
    """ICC(3,1) is about consistency; MSE does see it."""
    random = np.random.default_rng(seed)
    predicted, labels = random.normal(size=30), random.normal(size=30)
    assert_allclose(icc31(predicted + shift, labels), icc31(predicted, labels), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_sums_give_what_all_frames_at_once_give(seed):
    """Batches of any size, with missing labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 6, (60, 12))
    predicted = labels + random.normal(size=labels.shape)
    cut = int(random.integers(0, 60))
    sums = sum(
        agreement_sums(torch.from_numpy(predicted[part]), torch.from_numpy(labels[part]))
        for part in (slice(None, cut), slice(cut, None))
    )
    mask = labels >= 0
    direct = (icc31(predicted, labels, mask=mask), *(metric(predicted, labels, mask) for metric in (mse, mae, pearson)))
    for name, values in zip(METRICS, direct, strict=True):
        assert_allclose(agreement(sums)[name], values, rtol=1e-9, err_msg=name)
