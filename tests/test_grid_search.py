"""The grids of both modes, the fit on cases worked by hand, and the scores of new images."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from small_search import LARGE, one_point, people, random_images, small_search, three_people

import config
from fergi.preference.grid_search import (
    TRAINED_SCORERS,
    WITH_AUS,
    Parameters,
    activations,
    fit,
    fit_folds,
    score,
    search_settings,
    selected_counts,
    weighted_sum,
)
from fergi.preference.pairs import pairs_of

PAPER, RELEASED = (search_settings(mode, **config.PREFERENCE_SEARCH) for mode in ("paper", "released"))


# ---- grids


def test_grids():
    """Twenty k, eleven w, 51 d, 101 a, each the decimal number itself; the release has one k more, sums of floats."""
    assert PAPER.decays.tolist() == [round(0.1 * i, 1) for i in range(1, 21)]
    assert PAPER.au4_weights.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert (len(PAPER.thresholds), PAPER.thresholds[13], PAPER.thresholds[-1]) == (51, 0.26, 1.0)
    assert (len(PAPER.integration_weights), PAPER.integration_weights[57]) == (101, 5.7)
    assert (PAPER.integration_weights[-1], PAPER.incorrect_penalty) == (10.0, 2)
    assert (len(RELEASED.decays), RELEASED.decays[-1]) == (21, pytest.approx(2.1))
    assert RELEASED.au4_weights[6] == 0.6000000000000001
    assert (PAPER.product_valence, RELEASED.product_valence) == (False, True)
    assert (PAPER.activation_decimals, RELEASED.activation_decimals) == (9, None)
    with pytest.raises(ValueError, match="mode must be 'paper' or 'released', not 'published'"):
        search_settings("published", **config.PREFERENCE_SEARCH)


def test_triples_of_ensemble_weights():
    """66 in the paper's mode; the release's sums of floats lose six, all of them without HPS v2."""
    paper, released = PAPER.ensemble_weights, RELEASED.ensemble_weights
    tenths = [{tuple(triple) for triple in np.rint(10 * each).astype(int).tolist()} for each in (paper, released)]
    assert [len(each) for each in (paper, released, *tenths)] == [66, 60, 66, 60]
    assert tenths[1] < tenths[0]
    assert {third for _, _, third in tenths[0] - tenths[1]} == {0}
    assert all(sum(triple) == 10 and min(triple) >= 0 for triple in tenths[0])
    assert set(paper.ravel()) == {round(0.1 * i, 1) for i in range(11)}


# ---- fits worked by hand


def found(images, search, *names):
    """Parameters of each fold."""
    return [[np.asarray(getattr(each, name)).tolist() for name in names] for each in fit_folds(images, search)]


@pytest.mark.parametrize(
    ("thresholds", "penalty", "chosen"),
    [
        # Without a: 2 right and 2 wrong, 2 and 1 from 0.4 on, none at 0.6. Without c: 4 and 2, 4 and 0, none.
        ([0.1, 0.4, 0.6], 2, [0.4, 0.4, 0.4]),  # −2 0 0; 0 4 0
        ([0.1, 0.4, 0.6], 0, [0.1, 0.1, 0.1]),  # 2 2 0; 4 4 0
        ([0.1, 0.4, 0.6], 10, [0.6, 0.6, 0.4]),  # −18 −8 0; −16 4 0
        ([0.3, 0.4, 0.5], 2, [0.3, 0.3, 0.3]),  # 0 0 0; 4 4 4
        ([0.1, 0.6], 2, [0.6, 0.6, 0.1]),  # −2 0; 0 0
        ([0.1, 0.6], 2.1, [0.6, 0.6, 0.6]),  # −2.2 0; −0.2 0
        ([0.1, 0.6], 1, [0.1, 0.1, 0.1]),  # 0 0; 2 0
    ],
)
def test_threshold_by_hand(thresholds, penalty, chosen):
    """Correct minus penalty times incorrect over the others' pairs; the first of equals."""
    search = one_point(thresholds=thresholds, incorrect_penalty=penalty)
    assert found(three_people(), search, "threshold") == [[each] for each in chosen]


def test_first_maximum_in_the_order_k_then_w_then_d():
    """Where nothing distinguishes the points, the first k, w and d are taken; then the best w before a later k."""
    images = people(*((who, 1, rank, 0.0, LARGE * (rank == 2)) for who in "ab" for rank in (1, 2)))
    search = one_point(decays=[0.5, 1.0], au4_weights=[0.1, 0.2], thresholds=[0.1, 0.2])
    assert found(images, search, "decay", "au4_weight", "threshold") == [[0.5, 0.1, 0.1]] * 2

    # w = 1 sees only the frown, which is on the wrong side: w = 0 with the first k wins over w = 1 with any.
    images["AU4_activation_value"] = images["AU12_activation_value"] / LARGE
    search = one_point(decays=[0.5, 1.0], au4_weights=[1.0, 0.0], thresholds=[0.1])
    assert found(images, search, "decay", "au4_weight") == [[0.5, 0.0]] * 2


@given(st.integers(0, 2**32 - 1), st.sampled_from(["paper", "released"]))
def test_counts_at_every_grid_point(seed, mode):
    """Not only at the best point: each count of the (k, w, d) grid by comparing all pairs again."""
    images, search = random_images(seed, 3, ties=True), small_search(mode)
    pairs, (au4, au12) = pairs_of(images), activations(images, None)
    correct, incorrect = selected_counts(pairs, au4, au12, search)
    for k, decay in enumerate(search.decays):
        for w, weight in enumerate(search.au4_weights):
            value = weight * -(1 - np.exp(-decay * au4)) + (1 - weight) * (1 - np.exp(-decay * au12))
            for d, threshold in enumerate(search.thresholds):
                expected = np.zeros((3, 2), int)
                for preferred, other, who in zip(pairs.preferred, pairs.other, pairs.participant, strict=True):
                    if abs(value[preferred] - value[other]) >= threshold:
                        expected[who, 0 if value[preferred] > value[other] else 1] += 1
                assert_array_equal(np.stack([correct[:, k, w, d], incorrect[:, k, w, d]], axis=1), expected)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([("a", 1, 1, 0, 0), ("a", 1, 2, 0, 0)], "at least two participants"),
        ([("a", 1, 1, 0, 0), ("a", 1, 1, 0, 0), ("b", 1, 1, 0, 0), ("b", 1, 2, 0, 0)], "share a rank"),
        ([(who, 1, rank, 0, 0, 0.1) for who in "ab" for rank in (1, 2, 3)], "the same for all training images"),
        ([("a", 1, 1, 0, 0), ("b", 1, 1, 0, 0)], "the same for all training images"),
    ],
)
def test_what_cannot_be_fitted(rows, cause):
    """One person, a tied ranking, a score without spread, one training image."""
    with pytest.raises(ValueError, match=cause):
        fit_folds(people(*rows), one_point())


# ---- scores


def test_weighted_sum_by_hand():
    """One triple for all images, one an image, or many triples."""
    scores = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert weighted_sum(scores, np.array([0.5, 0.0, 0.5])).tolist() == [2.0, 5.0]
    assert weighted_sum(scores, np.array([[1.0, 0, 0], [0, 0, 1.0]])).tolist() == [1.0, 6.0]
    # From left to right: 0.1 + 0.2 is above 0.3 in floats, and with 0.3 more it stays above 0.6.
    assert weighted_sum(np.array([[0.1, 0.2, 0.3]]), np.ones(3)).tolist() == [0.6000000000000001]
    assert weighted_sum(scores, np.array([[[1.0, 0, 0]], [[0, 1.0, 0]]])).tolist() == [[1.0, 4.0], [2.0, 5.0]]


def test_score_by_hand():
    """z-scores 1, 2, 1/2; frown −1/2, smile 1/2, in the release's slip −1/4 for the frown."""
    image = pd.DataFrame({"AU4_activation_value": [np.log(2)], "AU12_activation_value": [np.log(2)]})
    image[list(TRAINED_SCORERS)] = [[11.0, 14.0, 12.0]]
    parameters = Parameters(
        mean=np.full(3, 10.0),
        deviation=np.array([1.0, 2.0, 4.0]),
        ensemble_weights=np.array([0.5, 0.25, 0.25]),
        decay=1.0,
        au4_weight=0.25,
        threshold=0.1,
        integration_weights=np.array([0.0, 2.0, 4.0, 8.0]),
    )
    names = ["selection", "AUcomb_valence_score", "ensemble_baseline_score", *WITH_AUS.values()]
    for product, expected in (
        (False, [0.25, 0.25, 1.125, 1, 2.5, 1.5, 3.125]),
        (True, [0.25, 0.3125, 1.125, 1, 2.625, 1.75, 3.625]),
    ):
        scores = score(image, replace(parameters, product_valence=product))
        assert list(scores.columns) == names
        assert_allclose(scores, [expected])


def test_scores_of_new_people():
    """A fit on everybody scores images that it did not see, without a rank; equal reactions get equal scores."""
    parameters = fit(three_people(), one_point(thresholds=[0.1, 0.4, 0.6]))
    assert parameters.threshold == 0.4  # 4 − 2·3, 4 − 2·1, 0
    new = people(("z", 1, 0, 0.0, 0.3, 1.0), ("z", 1, 0, 0.0, 0.3 + 1e-12, 2.0)).drop(columns=["rank_score"])
    scores = score(new, parameters)
    assert scores["selection"][0] == scores["selection"][1] > 0
    assert scores["ensemble_baseline_score"].is_monotonic_increasing
