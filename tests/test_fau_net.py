"""FAU-Net against a plain network of PyTorch, and against what its release published."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import STAGES
from numpy.testing import assert_allclose
from torch import nn

import config
from fergi.activation import ACTIVATION_COLUMNS
from fergi.preference.fau_net import FAUNet, initial_weights
from fergi.preference.pairs import pairs_of

NAME = "image_preference_binary_classification_based_on_ranking"
OPTIONS = config.VALENCE_MODELS["fau-net"]


class Plain(nn.Module):
    """The network as its release describes it: layers of their own for each AU, a hidden layer, an output."""

    def __init__(self):
        super().__init__()
        self.preprocess = nn.ModuleList(nn.Sequential(nn.Linear(1, 1)) for _ in range(12))
        self.hidden_layers = nn.ModuleList([nn.Linear(12, 16)])
        self.output_layer = nn.Linear(28, 1)
        for layer in self.preprocess:
            nn.init.constant_(layer[0].weight, 1.0)
            nn.init.constant_(layer[0].bias, -1.0)

    def forward(self, activation):
        """Activation values (n, 12) → valence (n,)."""
        units = torch.cat([layer(activation[:, [i]]) for i, layer in enumerate(self.preprocess)], dim=1).sigmoid()
        return self.output_layer(torch.cat([units, self.hidden_layers[0](units)], dim=1).sigmoid())[:, 0]


def plain_training(table, network, steps):
    """Every ordered pair of a session's images in turn, mean cross-entropy, L1, Adam."""
    activation = torch.from_numpy(table[list(ACTIVATION_COLUMNS)].to_numpy())
    rank, session = table["rank_score"].to_numpy(), table[["participant", "session_index"]].apply(tuple, axis=1)
    ordered = [
        (i, j) for i in range(len(table)) for j in range(len(table)) if session[i] == session[j] and rank[i] != rank[j]
    ]
    first, second = torch.tensor(ordered).T
    target = torch.from_numpy((rank[first] > rank[second]).astype(float))
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        valence = network(activation)
        loss = nn.functional.binary_cross_entropy((valence[first] - valence[second]).sigmoid(), target)
        (loss + 1e-4 * sum(each.abs().sum() for each in network.parameters())).backward()
        optimiser.step()


@pytest.fixture
def table():
    """Random reactions of three people."""
    rng = np.random.default_rng(4)
    rows = [(who, session, rank) for who in "abc" for session in (1, 2) for rank in (5, 4, 2)]
    images = pd.DataFrame(rows, columns=["participant", "session_index", "rank_score"])
    images["image_index"] = np.tile([1, 2, 3], 6)
    images[list(ACTIVATION_COLUMNS)] = rng.exponential(size=(len(rows), 12)).round(3)
    return images


def test_names_and_shapes_are_the_published_ones(vectors, table):
    """A state dict of ours loads in the release, and gives the same valence there."""
    found = FAUNet.fit(table, pairs_of(table), np.ones((1, 3), bool), **OPTIONS | {"steps": 3})[0]
    shapes = {name: list(entry.shape) for name, entry in found.state_dict().items()}
    assert list(shapes.items()) == list(json.loads((vectors / "fau_net_state_dict.json").read_text()).items())
    plain = Plain()
    plain.load_state_dict(found.state_dict())
    with torch.inference_mode():
        expected = plain(torch.tensor(table[list(ACTIVATION_COLUMNS)].to_numpy(), dtype=torch.float32)).numpy()
    assert_allclose(found.valence(table), expected, atol=1e-5)


def test_initial_weights_are_those_of_the_release():
    """Network after network from one seed, as PyTorch's layers draw them, to the last bit of float32 or the next."""
    torch.manual_seed(7)
    expected = [Plain() for _ in range(3)]
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    ours = initial_weights(3, seed=7)
    assert torch.equal(torch.rand(1), before)  # the caller's random numbers go on as if nothing had been drawn
    for number, plain in enumerate(expected):
        units, biases, *layers = (each[number] for each in ours)
        assert (units.unique(), biases.unique()) == (1, -1)
        drawn = [*plain.hidden_layers[0].parameters(), *plain.output_layer.parameters()]
        for mine, theirs in zip(layers, drawn, strict=True):
            assert_allclose(mine, theirs.detach().reshape(mine.shape), rtol=0, atol=3e-8)


def test_training_is_that_of_the_plain_network(table):
    """Two folds together give what each gives on its own, with every pair in both orders."""
    training = np.array([[True, True, False], [False, True, True]])
    found = FAUNet.fit(table, pairs_of(table), training, **OPTIONS | {"steps": 20})
    drawn = initial_weights(2, seed=0)
    for number, mask in enumerate(training):
        plain = Plain().double()
        _, _, *layers = (each[number] for each in drawn)
        with torch.no_grad():
            for mine, theirs in zip(
                [*plain.hidden_layers[0].parameters(), *plain.output_layer.parameters()], layers, strict=True
            ):
                mine.copy_(theirs.reshape(mine.shape))
        seen = table[table["participant"].isin(np.array(list("abc"))[mask])].reset_index(drop=True)
        plain_training(seen, plain, 20)
        for name, entry in plain.state_dict().items():
            assert_allclose(found[number].state_dict()[name], entry, atol=1e-6, err_msg=name)


# ---- the published data


@pytest.fixture(scope="module")
def finished(published, tmp_path_factory):
    """A root on which stage 9 has run with FAU-Net."""
    root = tmp_path_factory.mktemp("fau_net")
    shutil.copytree(published / "preparation", root / "preparation")
    __import__(STAGES[-1]).main(["--root", str(root), "--valence", "fau-net", "--mode", "released"])
    return root


def test_published_results(published, finished):
    """Every parameter and count of every participant: 2,216 of 3,734 alone, 2,563 with the scorers; to the byte."""
    ours, theirs = finished / "results" / f"{NAME}_NN.csv", published / "expected/faunet/results.csv"
    assert ours.read_bytes() == theirs.read_bytes()
    totals = pd.read_csv(ours).filter(like="AUs").filter(like="_n_correct").sum().tolist()
    assert totals == [2216, 2435, 2475, 2497]
    assert pd.read_csv(ours)["ensemble_all_score_n_correct"].sum() == 2563


def test_published_selection(published, finished):
    """Counts on the most different 1 to 100 % of pairs by each score, 6,400 rows; HPS v2's ties included."""
    ours, theirs = finished / "results" / f"{NAME}_NN_selection.csv", published / "expected/faunet/selection.csv"
    pd.testing.assert_frame_equal(pd.read_csv(ours), pd.read_csv(theirs), check_exact=True)
