"""The linear valence model: weights worked by hand, as published, and what the data show."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import config
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import Folders, read_image_reactions, read_valid_sessions
from fergi.preference.grid_search import TRAINED_SCORERS
from fergi.preference.linear import Linear
from fergi.preference.model import held_out
from fergi.preference.pairs import pairs_of

ALL = np.ones((1, 1), bool)


def sessions(*pairs):
    """One person's sessions of two images from (AU4, AU12) of the preferred and of the other, as log(1 + α)."""
    rows = [("a", n, rank, *each) for n, pair in enumerate(pairs) for rank, each in zip((2, 1), pair, strict=True)]
    table = pd.DataFrame(rows, columns=["participant", "session_index", "rank_score", "four", "twelve"])
    return table.assign(AU4_activation_value=np.expm1(table["four"]), AU12_activation_value=np.expm1(table["twelve"]))


def weights(table, *units, ridge=0.3, training=ALL):
    """What a fit on everybody finds."""
    return np.array(Linear.fit(table, pairs_of(table), training, ridge=ridge, action_units=units)[0].weights)


def test_one_weight_by_hand():
    """N right pairs, 1 apart: σ(w) is (n + 1) / (n + 2), so w = ln(n + 1), whatever λ is."""
    smiles = sessions(*[((0, 1), (0, 0))] * 3)
    assert_allclose(weights(smiles, 12), [np.log(4)], rtol=1e-6)
    assert_allclose(weights(smiles, 12, ridge=3), [np.log(4)], rtol=1e-6)
    # Of 3 right and 1 wrong: the mean of 5/6, 5/6, 5/6 and 1/6 is 2/3, so w = ln 2.
    assert_allclose(weights(sessions(*[((0, 1), (0, 0))] * 3, ((0, 0), (0, 1))), 12), [np.log(2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("ridge", "ratio"),
    [
        # Two AUs that never differ together: ZᵀZ/n is the identity, so w is the mean by the mean square of a column.
        # AU12 is right twice and wrong once, AU4 is wrong once with half the size: (1/3) : −2.
        (0.3, -6.0),
        (5.0, -6.0),
    ],
)
def test_ratio_of_weights_by_hand(ridge, ratio):
    """Scaling by the root mean square, and no interaction where there is none."""
    smile, none, frown = (0, 1), (0, 0), (0.5, 0)
    table = sessions((smile, none), (smile, none), (none, smile), (none, frown))
    four, twelve = weights(table, 4, 12, ridge=ridge)
    assert_allclose(four / twelve, ratio, rtol=1e-6)


def test_columns_that_always_move_together_share_their_weight():
    """Least squares alone could not tell them apart; λ gives both the same. A column that never differs gets none."""
    together = sessions(((1, 1), (0, 0)), ((1, 1), (0, 0)), ((0, 0), (1, 1)))
    assert_allclose(np.diff(weights(together, 4, 12)), 0, atol=1e-9)
    assert weights(sessions(((1, 1), (1, 0)), ((1, 1), (1, 0))), 4, 12)[0] == 0


def test_fit_sees_only_its_participants():
    """Two people who disagree: each one's weights come from the other alone."""
    right, wrong = sessions(((0, 1), (0, 0))), sessions(((0, 0), (0, 1))).assign(participant="b")
    both = pd.concat([right, wrong], ignore_index=True)
    found = Linear.fit(both, pairs_of(both), ~np.eye(2, dtype=bool), ridge=0.3, action_units=(12,))
    assert [float(np.sign(each.weights[0])) for each in found] == [-1, 1]


# ---- the published data


@pytest.fixture(scope="module", params=[True, False], ids=["33", "30"])
def images(request, published):
    """Of all 33 participants, and without the three whom stage 8 excludes."""
    folders = Folders(published)
    listed = read_valid_sessions(folders)
    included = {who: each for who, each in listed.items() if request.param or who not in ("002", "004", "039")}
    columns = ["rank_score", *TRAINED_SCORERS]
    return read_image_reactions(folders, included, image_columns=columns, activation_columns=ACTIVATION_COLUMNS)


def test_published_accuracies(images):
    """59.8 and 59.4 % on all pairs, 68.3 and 68.1 with scorers by logistic regression; log loss as measured."""
    pairs = held_out("linear", images, config.VALENCE_MODELS["linear"]).pairs
    expected = {3534: (2112, 68.28, 0.6575), 3734: (2217, 68.13, 0.6595)}[len(pairs)]
    right = (pairs["difference"] > 0) == pairs["first_preferred"]
    assert right.sum() == expected[0]
    with_scorers = (pairs["probability_with_scorers"] > 0.5) == pairs["first_preferred"]
    assert 100 * with_scorers.mean() == pytest.approx(expected[1], abs=0.05)
    loss = -np.log(pairs["probability"].where(pairs["first_preferred"], 1 - pairs["probability"])).mean()
    assert loss == pytest.approx(expected[2], abs=5e-4)


@pytest.mark.parametrize("images", [True], indirect=True, ids=["33"])
def test_published_weights(images):
    """Of the 33 people, as found before with another implementation."""
    found = Linear.fit(images, pairs_of(images), np.ones((1, 33), bool), **config.VALENCE_MODELS["linear"])[0]
    known = [0.048, 0.217, -0.797, -0.505, 0.353, -0.420, 0.586, 0.049, 0.108, 0.249, -0.067, 0.169]
    assert_allclose(found.weights, known, atol=0.002)


@pytest.mark.parametrize("images", [True], indirect=True, ids=["33"])
def test_penalty_is_what_inner_folds_choose(images):
    """With one participant after the other held out, λ = 0.3 has the lowest log loss of its neighbours on the grid."""

    def loss(ridge):
        pairs = held_out("linear", images, {"ridge": ridge}).pairs
        return -np.log(pairs["probability"].where(pairs["first_preferred"], 1 - pairs["probability"])).mean()

    assert min((0.03, 0.3, 3.0), key=loss) == config.VALENCE_MODELS["linear"]["ridge"]
