"""The training loss against the original's values, and by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from fergi.action_units.losses import (
    LossWeights,
    cross_entropy_weights,
    intensity_counts,
    loss_parts,
    loss_weights,
    mse_weights,
    threshold_counts,
)


@pytest.fixture(scope="module")
def reference(vectors):
    """Labels and outputs of 16 frames, and what the original makes of them."""
    return np.load(vectors / "training_loss.npz")


def labels_of(**columns: list[int]) -> torch.Tensor:
    """Labels of the named AUs, the others missing."""
    n = len(next(iter(columns.values())))
    labels = torch.full((n, 64), -1, dtype=torch.int8)
    for name, values in columns.items():
        labels[:, int(name[2:]) - 1] = torch.tensor(values, dtype=torch.int8)
    return labels


def ones() -> LossWeights:
    """Every weight 1."""
    return LossWeights(torch.ones(64, 6), torch.ones(64, 5, 2))


def test_counts_and_weights_of_the_original(reference):
    """Whole tables, AUs without any label included."""
    labels = torch.from_numpy(reference["labels"]).to(torch.int8)
    counts = intensity_counts(labels)
    assert_array_equal(counts, reference["intensity_counts"])
    assert_array_equal(threshold_counts(counts), reference["threshold_counts"])
    assert_allclose(mse_weights(counts, "released"), reference["mse_weights"], rtol=1e-6)
    assert_allclose(cross_entropy_weights(counts), reference["ce_weights"], rtol=1e-6)


def test_losses_and_gradient_of_the_original(reference):
    """The three losses, and the gradient of their sum by every output."""
    labels = torch.from_numpy(reference["labels"]).to(torch.int8)
    outputs = torch.from_numpy(reference["outputs"]).requires_grad_()
    means = loss_parts(outputs, labels, loss_weights(labels, "released")).mean(0)
    assert_allclose(means.detach(), reference["losses_mse_cos_ce"], rtol=1e-6)
    means.sum().backward()
    assert_allclose(outputs.grad, reference["gradient"], rtol=1e-5, atol=1e-7)


def test_squared_error_weights_by_hand(reference):
    """Ten labels of 0–1 and five of 2–5: 2/10 to 4/5 as printed; 1/10 and 1/5 over the same sum as released.

    Released weights are the paper's without the numerators 2 and 4.
    """
    counts = intensity_counts(labels_of(AU4=[0] * 7 + [1] * 3 + [2, 3, 3, 5, 5]))
    assert_allclose(mse_weights(counts, "paper")[3], [0.2, 0.2, 0.8, 0.8, 0.8, 0.8], rtol=1e-6)
    assert_allclose(mse_weights(counts, "released")[3], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], rtol=1e-6)
    counts, factors = torch.from_numpy(reference["intensity_counts"]), torch.tensor([2.0, 2, 4, 4, 4, 4])
    assert_allclose(mse_weights(counts, "paper"), mse_weights(counts, "released") * factors, rtol=1e-6)
    with pytest.raises(ValueError, match="mode must be 'paper' or 'released', not 'strict'"):
        mse_weights(counts, "strict")


def test_threshold_weights_by_hand(reference):
    """Labels 0, 0, 0, 5: every threshold has 3 below and 1 above, 1/3 and 1 of 5·(4/3). An AU's add up to 1."""
    weights = cross_entropy_weights(intensity_counts(labels_of(AU12=[0, 0, 0, 5])))[11]
    assert_allclose(weights, np.tile([0.05, 0.15], (5, 1)), rtol=1e-6)
    weights = cross_entropy_weights(torch.from_numpy(reference["intensity_counts"]))
    assert_allclose(weights.sum((1, 2))[reference["intensity_counts"].sum(1) > 0], 1, rtol=1e-6)


def test_a_group_that_does_not_occur_has_no_weight():
    """An AU never at 2 or more: no division by nought, and all weight is on what there is."""
    labels = labels_of(AU9=[0, 1, 1])
    weights = loss_weights(labels, "paper")
    assert weights.mse[8].tolist() == [1, 1, 0, 0, 0, 0]
    assert torch.isfinite(weights.cross_entropy).all()
    assert loss_parts(torch.zeros(3, 384), labels, weights).isfinite().all()


def test_losses_by_hand():
    """AU1 = 3 and AU2 = 4 estimated as 4 and 3: errors 1 + 1, cosine 24/25, and ten thresholds at ln 2."""
    outputs = torch.zeros(1, 384, dtype=torch.float64)
    outputs[0, :2] = torch.tensor([4.0, 3.0])
    parts = loss_parts(outputs, labels_of(AU1=[3], AU2=[4]), ones())
    assert_allclose(parts[0], [2, 1 - 24 / 25, 10 * math.log(2)], rtol=1e-6)


def test_thresholds_are_reached_from_below():
    """Intensity 2 reaches 1 and 2 and no more: logits that say so, surely, cost nothing; the opposite 50 each."""
    outputs = torch.zeros(1, 384, dtype=torch.float64)
    outputs[0, 64:69] = torch.tensor([50.0, 50, -50, -50, -50])
    labels = labels_of(AU1=[2])
    assert_allclose(loss_parts(outputs, labels, ones())[0, 2], 0, atol=1e-12)
    assert_allclose(loss_parts(-outputs, labels, ones())[0, 2], 250, rtol=1e-12)


def test_missing_labels_take_no_part():
    """Whatever the network says there, the losses stay, and nothing flows back."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 6, (20, 64), generator=generator, dtype=torch.int8)
    outputs = torch.randn(20, 384, generator=generator)
    missing = torch.cat([labels < 0, (labels < 0).repeat_interleave(5, dim=1)], dim=1)
    other = torch.where(missing, outputs * 7 + 3, outputs).requires_grad_()
    weights = loss_weights(labels, "paper")
    assert_allclose(loss_parts(outputs, labels, weights), loss_parts(other, labels, weights).detach(), rtol=1e-5)
    loss_parts(other, labels, weights).sum().backward()
    assert (other.grad[missing] == 0).all() and (other.grad[~missing] != 0).any()


def test_a_face_at_rest_has_no_direction():
    """All labels 0: cosine loss 1, no gradient from it, and nothing that is not a number."""
    outputs = torch.zeros(2, 384)
    outputs[1] = 0.5
    outputs.requires_grad_()
    parts = loss_parts(outputs, labels_of(AU1=[0, 0], AU4=[0, 0]), ones())
    assert parts[:, 1].tolist() == [1, 1]
    parts[:, 1].sum().backward()
    assert (outputs.grad == 0).all()
