"""The AU model's network: names, shapes and outputs of the published one, and the meaning of each output."""

import json

import numpy as np
import pytest
import torch
from formula import formula_weights
from numpy.testing import assert_allclose, assert_array_equal

from fergi.action_units.network import (
    NETWORKS,
    intensities,
    load_network,
    network_input,
    random_network,
    threshold_logits,
)
from fergi.files import FergiError
from fergi.weights import save_weights


def test_names_order_and_shapes_are_the_published_ones(vectors):
    """A checkpoint of ours loads in the original, and the other way round."""
    published = json.loads((vectors / "ir50_state_dict.json").read_text())
    ours = {name: list(entry.shape) for name, entry in random_network("ir50", 0).state_dict().items()}
    assert list(ours.items()) == list(published.items())


def test_outputs_are_those_of_the_original_network(vectors):
    """Two pictures through IR-50 with weights from the formula."""
    reference = np.load(vectors / "network_forward.npz")
    network = random_network("ir50", 0)
    network.load_state_dict(formula_weights(network.state_dict()))
    with torch.inference_mode():
        outputs = network.eval()(network_input(torch.from_numpy(reference["images_uint8"]))).numpy()
    expected = reference["ir50_output"]
    assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_input_is_that_of_the_original_transform(vectors):
    """RGB in [0, 1], nothing taken off, channels first."""
    reference = np.load(vectors / "inference_transform.npz")
    rgb = np.ascontiguousarray(reference["image_bgr"][None, :, :, ::-1])
    assert_array_equal(network_input(torch.from_numpy(rgb))[0].numpy(), reference["tensor"])


def test_each_output_stands_for_one_au_and_threshold():
    """With the output's number as its value, AU 12 is 11 and its thresholds are 64 + 5·11 to 64 + 5·11 + 4."""
    outputs = torch.arange(384.0)[None]
    assert intensities(outputs, [1, 12, 26]).tolist() == [[0, 11, 25]]
    assert threshold_logits(outputs)[0, 11].tolist() == [119, 120, 121, 122, 123]
    assert threshold_logits(outputs)[0, 63, 4] == 383


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "ir50"])
def test_smaller_members_take_and_give_the_same(name):
    """Shape (n, 3, 112, 112) → (n, 384), in training and in use; the last layer gives float32 in mixed precision."""
    network = random_network(name, 0)
    pictures = torch.rand(2, 3, 112, 112)
    assert network(pictures).shape == (2, 384)
    assert torch.isfinite(network.eval()(pictures)).all()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(pictures).dtype == torch.float32


def test_random_weights_follow_from_the_seed_alone():
    """And the caller's random numbers go on as if nothing had been drawn."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = (random_network("ir10-thin", seed).fc.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_reading_a_trained_network(tmp_path):
    """The same weights, in eval mode. A missing file, that of another network, and an unknown network are refused."""
    network = random_network("ir10-thin", 5)
    save_weights(network.state_dict(), tmp_path / "thin.pth")
    read = load_network(tmp_path / "thin.pth", "ir10-thin")
    assert not read.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in read.state_dict().items())
    with pytest.raises(FergiError, match=r"missing \(first: .*none\.pth\)\. Fetch .* fetch au-model .*; or train"):
        load_network(tmp_path / "none.pth", "ir50")
    with pytest.raises(FergiError, match=r"does not fit IResNet .* missing \(first: layer1\.1\.bn1\.weight\)"):
        load_network(tmp_path / "thin.pth", "ir18-thin")
    with pytest.raises(FergiError, match=r"There is no network 'ir100'\. Choose one of ir50, "):
        random_network("ir100", 0)
