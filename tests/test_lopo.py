"""The leave-one-participant-out search, against hand-worked cases, the published results and a plain search."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from plain import plain_search

import config
from fergi.dataset import Folders, read_image_reactions, read_valid_sessions
from fergi.preference.folds import mean_and_deviation
from fergi.preference.grid_search import Search, search_settings, selected_counts, weighted_sum
from fergi.preference.pairs import pairs_within_sessions
from fergi.preference.results import (
    SCORERS,
    correct_and_total,
    search_preferences,
    tables_1_and_2,
)

LARGE = 1000.0  # e^(−1000 k) is 0 in floats: an activation of this size gives a score of exactly 1


def one_point(**changed):
    """A search with one candidate for everything, k = 1 and w = 1/2, but for what is changed."""
    only = {
        "ensemble_weights": np.array([[0.5, 0.25, 0.25]]),
        "decays": np.array([1.0]),
        "au4_weights": np.array([0.5]),
        "thresholds": np.array([0.0]),
        "integration_weights": np.array([0.0]),
        "incorrect_penalty": 2,
    }
    return Search(**(only | {name: np.asarray(value) for name, value in changed.items()}))


def people(*rows):
    """Images from (participant, session, rank, AU4, AU12) and, if given, a score that all six models share.

    Without a score each image has its row's number, so that scores vary.
    """
    table = pd.DataFrame(
        [row[:5] for row in rows],
        columns=["participant", "session_index", "rank_score", "AU4_activation_value", "AU12_activation_value"],
    )
    for name in SCORERS:
        table[name] = [float(row[5]) if len(row) > 5 else float(i) for i, row in enumerate(rows)]
    return table


def counts(results, name):
    """(correct, incorrect) of every participant."""
    return list(zip(results[f"{name}_n_correct"], results[f"{name}_n_incorrect"], strict=True))


# ---- worked by hand


def test_difference_equal_to_the_threshold_is_selected():
    """A smile of score 1 against none is a difference of exactly 1/2; d = 1/2 takes it, d = 0.5000001 does not."""
    images = people(*((who, 1, rank, 0.0, LARGE * (rank == 2)) for who in "ab" for rank in (1, 2)))
    selected = "AUcomb_selected_AUcomb_valence_score"
    assert counts(search_preferences(images, one_point(thresholds=[0.5])), selected) == [(1, 0), (1, 0)]
    assert counts(search_preferences(images, one_point(thresholds=[0.5000001])), selected) == [(0, 0), (0, 0)]


def test_tie_is_incorrect_and_selected_at_zero():
    """Two equal reactions differ by 0, which reaches d = 0; the prediction is then wrong, and so on all pairs."""
    images = people(*((who, 1, rank, 0.7, 0.3) for who in "ab" for rank in (1, 2)))
    found = search_preferences(images, one_point())
    assert counts(found, "AUcomb_selected_AUcomb_valence_score") == [(0, 1), (0, 1)]
    assert counts(found, "AUcomb_valence_score") == [(0, 1), (0, 1)]


def three_people():
    """Of each of a and b: two pairs 1/2 apart and right, one 1/4 apart and wrong. Of c: a wrong pair, 1/2 apart."""
    quarter = np.log(2)  # score 1/2 at k = 1, so a quarter with w = 1/2
    rows = []
    for who in "ab":
        for session in (1, 2):
            rows += [(who, session, 2, 0, LARGE), (who, session, 1, 0, 0)]
        rows += [(who, 3, 2, 0, 0), (who, 3, 1, 0, quarter)]
    rows += [("c", 1, 2, LARGE, 0), ("c", 1, 1, 0, 0)]
    return people(*rows)


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
    assert search_preferences(three_people(), search)["diff_threshold"].tolist() == chosen


def test_counts_are_of_the_participant_left_out():
    """With d = 0.4 a and b have two right pairs selected, c one wrong one."""
    found = search_preferences(three_people(), one_point(thresholds=[0.1, 0.4, 0.6]))
    assert found["user_id"].tolist() == ["a", "b", "c"]
    assert counts(found, "AUcomb_selected_AUcomb_valence_score") == [(2, 0), (2, 0), (0, 1)]
    assert counts(found, "AUcomb_valence_score") == [(2, 1), (2, 1), (0, 1)]


def test_first_maximum_in_the_order_k_then_w_then_d():
    """Where nothing distinguishes the points, the first k, w and d are taken; then the best w before a later k."""
    images = people(*((who, 1, rank, 0.0, LARGE * (rank == 2)) for who in "ab" for rank in (1, 2)))
    search = one_point(decays=[0.5, 1.0], au4_weights=[0.1, 0.2], thresholds=[0.1, 0.2])
    found = search_preferences(images, search)
    assert found[["exp_decay_coef", "AU4_coef", "diff_threshold"]].values.tolist() == [[0.5, 0.1, 0.1]] * 2
    assert found["AU12_coef"].tolist() == [0.9, 0.9]

    # w = 1 sees only the frown, which is on the wrong side: w = 0 with the first k wins over w = 1 with any.
    images["AU4_activation_value"] = images["AU12_activation_value"] / LARGE
    search = one_point(decays=[0.5, 1.0], au4_weights=[1.0, 0.0], thresholds=[0.1])
    assert search_preferences(images, search)[["exp_decay_coef", "AU4_coef"]].values.tolist() == [[0.5, 0.0]] * 2


def test_ensemble_weights_are_those_of_most_correct_pairs():
    """Only PickScore is right: the triple with most PickScore that is first in the list wins."""
    images = people(*((who, s, rank, 0, 0) for who in "abc" for s in (1, 2) for rank in (1, 2, 3)))
    images["PickScore"] = images["rank_score"].astype(float)
    images["ImageReward_score"] = -images["PickScore"]
    images["HPS_V2_score"] = -images["PickScore"]
    triples = [[1.0, 0.0, 0.0], [0.2, 0.6, 0.2], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]
    found = search_preferences(images, one_point(ensemble_weights=triples))
    columns = ["ImageReward_weight", "PickScore_weight", "HPS_V2_weight"]
    assert found[columns].values.tolist() == [[0.2, 0.6, 0.2]] * 3
    assert counts(found, "ensemble_baseline_score") == [(6, 0)] * 3
    assert counts(found, "PickScore") == [(6, 0)] * 3
    assert counts(found, "HPS_V2_score") == [(0, 6)] * 3


def test_integration_weight_by_hand():
    """The z of two images is ±1/√2, the valence of the preferred one 1/2 higher: a > 2√2 turns the order."""
    images = people(*((who, 1, rank, 0, LARGE * (rank == 2), -rank) for who in "ab" for rank in (1, 2)))
    for a, correct in ((2.8, 0), (2.9, 1)):
        found = search_preferences(images, one_point(integration_weights=[0.0, a, 10.0]))
        chosen = a if correct else 10.0
        for name in ("ensemble_ImageReward_AUcomb_score", "ensemble_HPS_V2_AUcomb_score", "ensemble_all_score"):
            assert found[f"AUcomb_coef_for_{name}"].tolist() == [chosen] * 2
            assert counts(found, name) == [(1, 0)] * 2
        found = search_preferences(images, one_point(integration_weights=[0.0, a]))
        assert counts(found, "ensemble_PickScore_AUcomb_score") == [(correct, 1 - correct)] * 2
        assert counts(found, "PickScore") == [(0, 1)] * 2


def test_mean_and_deviation_by_hand():
    """Training scores 1, 2, 3 have mean 2 and standard deviation 1 (n − 1)."""
    scores = pd.DataFrame([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 0.0]])
    assert_allclose(mean_and_deviation(scores, np.array([True, True, True, False])), [[2, 20], [1, 10]], atol=1e-12)


def test_weighted_sum_by_hand():
    """One triple for all images, one an image, or many triples."""
    scores = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert weighted_sum(scores, np.array([0.5, 0.0, 0.5])).tolist() == [2.0, 5.0]
    assert weighted_sum(scores, np.array([[1.0, 0, 0], [0, 0, 1.0]])).tolist() == [1.0, 6.0]
    # From left to right: 0.1 + 0.2 is above 0.3 in floats, and with 0.3 more it stays above 0.6.
    assert weighted_sum(np.array([[0.1, 0.2, 0.3]]), np.ones(3)).tolist() == [0.6000000000000001]
    assert weighted_sum(scores, np.array([[[1.0, 0, 0]], [[0, 1.0, 0]]])).tolist() == [[1.0, 4.0], [2.0, 5.0]]


def test_tables_by_hand():
    """Sums over people, in the paper's order; without a pair there is no percentage."""
    found = search_preferences(three_people(), one_point(thresholds=[0.1, 0.4, 0.6]))
    assert correct_and_total(found, "AUcomb_valence_score") == (4, 7)
    assert correct_and_total(found, "AUcomb_selected_AUcomb_valence_score") == (4, 5)
    tables = tables_1_and_2(found)
    models = ["CLIP", "Aesthetic", "BLIP", "ImageReward", "PickScore", "HPS v2", "ensemble", "AUcomb"]
    assert list(tables.index) == [
        *(f"{model}, selected" for model in models),
        *(f"{model}, all" for model in models),
        *(f"{model} with AUs, all" for model in models[3:7]),
    ]
    row = ["Table 1", "AUcomb", "selected", False, "AUcomb_valence_score", "AUcomb_selected_AUcomb_valence_score"]
    assert tables.loc["AUcomb, selected"].tolist() == [*row, 4, 5, 80.0]
    row = ["Table 2", "HPS v2", "all", True, "HPS_V2_score", "ensemble_HPS_V2_AUcomb_score"]
    assert tables.loc["HPS v2 with AUs, all"].tolist()[:6] == row
    assert (tables["total"][8:] == 7).all()
    nothing = tables_1_and_2(search_preferences(three_people(), one_point(thresholds=[0.9]))).loc["PickScore, selected"]
    assert nothing["total"] == 0
    assert np.isnan(nothing["percent"])


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([("a", 1, 1, 0, 0), ("a", 1, 2, 0, 0)], "at least two participants"),
        ([("a", 1, 1, 0, 0), ("a", 1, 1, 0, 0), ("b", 1, 1, 0, 0), ("b", 1, 2, 0, 0)], "share a rank"),
        ([(who, 1, rank, 0, 0, 2.0) for who in "ab" for rank in (1, 2)], "the same for all training images"),
        ([("a", 1, 1, 0, 0), ("b", 1, 1, 0, 0)], "the same for all training images"),
    ],
)
def test_what_cannot_be_searched(rows, cause):
    """One person, a tied ranking, a score without spread, one training image."""
    with pytest.raises(ValueError, match=cause):
        search_preferences(people(*rows), one_point())


def test_constant_score_that_is_not_a_binary_fraction():
    """Three times 0.1 has a mean above 0.1 in floats, and no spread all the same."""
    rows = [(who, 1, rank, 0, 0, 0.1) for who in "ab" for rank in (1, 2, 3)]
    with pytest.raises(ValueError, match="is the same for all training images"):
        search_preferences(people(*rows), one_point())


# ---- the switches between paper and release


def test_grids_of_the_paper():
    """Twenty k, eleven w, 51 d, 101 a, each the decimal number itself."""
    search = search_settings("paper", **config.PREFERENCE_SEARCH)
    assert search.decays.tolist() == [round(0.1 * i, 1) for i in range(1, 21)]
    assert search.au4_weights.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert (len(search.thresholds), search.thresholds[13], search.thresholds[-1]) == (51, 0.26, 1.0)
    assert (len(search.integration_weights), search.integration_weights[57]) == (101, 5.7)
    assert search.integration_weights[-1] == 10.0
    assert search.incorrect_penalty == 2


def test_mode_ensemble_triples():
    """66 in the paper's mode; the release's sums of floats lose six, all of them without HPS v2."""
    paper = search_settings("paper", **config.PREFERENCE_SEARCH).ensemble_weights
    released = search_settings("released", **config.PREFERENCE_SEARCH).ensemble_weights
    tenths = [{tuple(triple) for triple in np.rint(10 * each).astype(int).tolist()} for each in (paper, released)]
    assert (len(paper), len(tenths[0])) == (66, 66)
    assert (len(released), len(tenths[1])) == (60, 60)
    assert tenths[1] < tenths[0]
    assert {third for _, _, third in tenths[0] - tenths[1]} == {0}
    assert all(sum(triple) == 10 and min(triple) >= 0 for triple in tenths[0])
    assert set(paper.ravel()) == {round(0.1 * i, 1) for i in range(11)}


def test_mode_last_decay():
    """The last k is 2.0 in the paper, one step later in the release."""
    paper = search_settings("paper", **config.PREFERENCE_SEARCH).decays
    released = search_settings("released", **config.PREFERENCE_SEARCH).decays
    assert (len(paper), paper[-1]) == (20, 2.0)
    assert len(released) == 21
    assert released[-1] == pytest.approx(2.1)


def test_mode_product_slip_only_outside_the_selection():
    """A frown at the worse image and no smile: eq. 5 sees it, the product does not, the selection always does."""
    assert not search_settings("paper", **config.PREFERENCE_SEARCH).product_valence
    assert search_settings("released", **config.PREFERENCE_SEARCH).product_valence
    rows = [(who, 1, rank, LARGE * (rank == 1), 0.0, 1.0) for who in "ab" for rank in (1, 2)]
    images = people(*rows, ("a", 2, 1, 0, 0, 5.0), ("b", 2, 1, 0, 0, 5.0))
    search = one_point(thresholds=[0.5], integration_weights=[0.0, 1.0])
    for product, correct in ((False, 1), (True, 0)):
        found = search_preferences(images, replace(search, product_valence=product))
        assert counts(found, "AUcomb_selected_AUcomb_valence_score") == [(1, 0)] * 2
        assert counts(found, "AUcomb_valence_score") == [(correct, 1 - correct)] * 2
        assert counts(found, "ensemble_PickScore_AUcomb_score") == [(correct, 1 - correct)] * 2
        assert found["AUcomb_coef_for_ensemble_all_score"].tolist() == [float(correct)] * 2


def test_mode_rounding_of_activations():
    """A difference in the twelfth decimal is noise to the paper's mode and a preference to the release."""
    assert search_settings("paper", **config.PREFERENCE_SEARCH).activation_decimals == 9
    assert search_settings("released", **config.PREFERENCE_SEARCH).activation_decimals is None
    images = people(*((who, 1, rank, 0.0, 0.3 + 1e-12 * (rank == 2)) for who in "ab" for rank in (1, 2)))
    assert counts(search_preferences(images, one_point()), "AUcomb_valence_score") == [(0, 1)] * 2
    unrounded = replace(one_point(), activation_decimals=None)
    assert counts(search_preferences(images, unrounded), "AUcomb_valence_score") == [(1, 0)] * 2


def test_unknown_mode():
    """With what is allowed and what came."""
    with pytest.raises(ValueError, match="mode must be 'paper' or 'released', not 'published'"):
        search_settings("published", **config.PREFERENCE_SEARCH)


# ---- random tables


def random_images(seed, n_participants, *, ties, singles=False):
    """A small table in any order of rows.

    With ``ties`` scores and activations repeat, some activations but for noise; without, no two scores are equal.
    With ``singles`` the first participant has no pair.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n_participants):
        for session in rng.permutation(6)[: rng.integers(1, 4)] + 1:
            n = 1 if singles and number == 0 else rng.integers(1, 5)
            for rank in rng.permutation(6)[:n]:
                if ties:
                    scores = rng.integers(0, 4, len(SCORERS)) / 4
                    activations = rng.choice([0.0, 0.3, 1 / 3, 0.7, 2.0], 2) + rng.choice([0.0, 4e-16, 1e-12], 2)
                else:
                    scores, activations = rng.normal(size=len(SCORERS)), rng.exponential(size=2)
                rows.append([f"p{number}", session, float(rank), *scores, *activations])
    table = pd.DataFrame(
        rows,
        columns=[
            "participant",
            "session_index",
            "rank_score",
            *SCORERS,
            "AU4_activation_value",
            "AU12_activation_value",
        ],
    )
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def small_search(mode="paper", strict=False, penalty=2):
    """Few candidates of everything, in the way of either mode."""
    return search_settings(
        mode,
        strict=strict,
        ensemble_weight=(0.0, 1.0, 0.2),
        decay=(0.5, 1.0, 0.5),
        au4_weight=(0.0, 1.0, 0.25),
        threshold=(0.0, 0.3, 0.1),
        integration_weight=(0.0, 4.0, 0.5),
        incorrect_penalty=penalty,
    )


seeds = st.integers(0, 2**32 - 1)
modes = st.sampled_from(["paper", "released"])


@hypothesis_settings(max_examples=150)
@given(seeds, st.integers(2, 5), st.booleans(), st.booleans(), modes, st.booleans(), st.sampled_from([0, 1, 2, 2.5]))
def test_against_the_plain_search(seed, n_participants, ties, singles, mode, strict, penalty):
    """Every parameter and every count of every fold, exactly, or both refuse."""
    images = random_images(seed, n_participants, ties=ties, singles=singles)
    search = small_search(mode, strict, penalty)
    try:
        expected = plain_search(images, search)
    except ValueError:
        with pytest.raises(ValueError):
            search_preferences(images, search)
        return
    pd.testing.assert_frame_equal(search_preferences(images, search), expected, check_exact=True, check_dtype=False)


@given(seeds, modes)
def test_counts_at_every_grid_point(seed, mode):
    """Not only at the best point: each count of the (k, w, d) grid by comparing all pairs again."""
    images = random_images(seed, 3, ties=True)
    search = small_search(mode)
    participant = np.unique(images["participant"], return_inverse=True)[1]
    pairs = pairs_within_sessions(participant, images["session_index"], images["rank_score"])
    au4, au12 = (images[f"AU{unit}_activation_value"].to_numpy() for unit in (4, 12))
    correct, incorrect = selected_counts(pairs, au4, au12, search)
    for k, decay in enumerate(search.decays):
        for w, weight in enumerate(search.au4_weights):
            score = weight * -(1 - np.exp(-decay * au4)) + (1 - weight) * (1 - np.exp(-decay * au12))
            for d, threshold in enumerate(search.thresholds):
                expected = np.zeros((3, 2), int)
                for preferred, other, who in zip(pairs.preferred, pairs.other, pairs.participant, strict=True):
                    if abs(score[preferred] - score[other]) >= threshold:
                        expected[who, 0 if score[preferred] > score[other] else 1] += 1
                assert_array_equal(np.stack([correct[:, k, w, d], incorrect[:, k, w, d]], axis=1), expected)


def searched(images, *arguments):
    """The results, or None where the table cannot be searched."""
    try:
        return search_preferences(images, small_search(*arguments))
    except ValueError:
        return None


@given(seeds, modes, st.booleans())
def test_counts_add_up(seed, mode, strict):
    """Each model has every pair; each model of Table 1 has the same selected pairs."""
    images = random_images(seed, 4, ties=True)
    found = searched(images, mode, strict)
    if found is None:
        return
    participant = np.unique(images["participant"], return_inverse=True)[1]
    n_pairs = pairs_within_sessions(participant, images["session_index"], images["rank_score"]).per_participant
    totals = {
        name.removesuffix("_n_correct"): found[name] + found[name.replace("_n_correct", "_n_incorrect")]
        for name in found.columns
        if name.endswith("_n_correct")
    }
    assert len(totals) == 8 + 8 + 4
    selected = totals["AUcomb_selected_AUcomb_valence_score"]
    for name, total in totals.items():
        expected = selected if name.startswith("AUcomb_selected_") else n_pairs
        assert_array_equal(total, expected)
    assert (selected <= n_pairs).all()
    assert (found.filter(regex="_n_(in)?correct") >= 0).all(axis=None)


@given(seeds, modes, st.booleans())
def test_order_of_rows_does_not_matter(seed, mode, strict):
    """The same images in another order."""
    images = random_images(seed, 4, ties=False)
    shuffled = images.sample(frac=1, random_state=seed).reset_index(drop=True)
    found, again = searched(images, mode, strict), searched(shuffled, mode, strict)
    assert (found is None) == (again is None)
    if found is not None:
        pd.testing.assert_frame_equal(found, again, check_exact=True)


@given(seeds, modes, st.booleans())
def test_names_do_not_matter(seed, mode, strict):
    """Other names in another order give the same rows in that order."""
    images = random_images(seed, 4, ties=True)
    found = searched(images, mode, strict)
    renamed = images.assign(participant=images["participant"].map({"p0": "z", "p1": "b", "p2": "y", "p3": "a"}))
    again = searched(renamed, mode, strict)
    assert (found is None) == (again is None)
    if found is not None:
        assert again["user_id"].tolist() == ["a", "b", "y", "z"]
        expected = found.drop(columns="user_id").iloc[[3, 1, 2, 0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(again.drop(columns="user_id"), expected, check_exact=True)


@given(seeds, st.sampled_from(SCORERS), st.sampled_from([0.125, 2.0, 1024.0]), st.integers(-50, 50))
def test_scale_and_shift_of_a_score_do_not_matter(seed, name, scale, shift):
    """A power of two leaves every bit of the z-scores, a constant leaves every order."""
    images = random_images(seed, 4, ties=False)
    found = searched(images)
    if found is None:
        return
    pd.testing.assert_frame_equal(found, searched(images.assign(**{name: scale * images[name]})), check_exact=True)
    pd.testing.assert_frame_equal(found, searched(images.assign(**{name: images[name] + shift})), check_exact=True)


@given(seeds)
def test_the_opposite_ranking_swaps_right_and_wrong(seed):
    """For scores without ties and without parameters."""
    images = random_images(seed, 4, ties=False)
    found, turned = searched(images), searched(images.assign(rank_score=-images["rank_score"]))
    if found is not None:
        for name in SCORERS:
            assert counts(turned, name) == [(wrong, right) for right, wrong in counts(found, name)]


PARAMETERS = "_weight$|_coef|diff_threshold"


def parameters_with_the_first_participant_changed(seed, strict):
    """The parameters of the fold that leaves out p0, and those after p0's rankings and reactions are others."""
    images = random_images(seed, 4, ties=False)
    other = images.copy()
    mine = images["participant"] == "p0"
    other.loc[mine, "rank_score"] *= -1
    other.loc[mine, "AU4_activation_value"] += 1
    other.loc[mine, "AU12_activation_value"] *= 3
    found, again = searched(images, "paper", strict), searched(other, "paper", strict)
    if found is None:
        return [], []
    return (each.filter(regex=PARAMETERS).iloc[0].tolist() for each in (found, again))


@given(seeds)
def test_mode_strict_folds_never_saw_the_participant_left_out(seed):
    """Whatever the one left out does, no parameter of their fold moves."""
    before, after = parameters_with_the_first_participant_changed(seed, strict=True)
    assert before == after


def test_folds_of_both_modes_saw_the_participant_left_out():
    """Without the switch the parameters that training participants carry come from folds which saw them."""
    changed = [
        before != after
        for before, after in (parameters_with_the_first_participant_changed(i, False) for i in range(60))
    ]
    assert any(changed)


@given(seeds, modes)
def test_strict_folds_change_only_the_integration(seed, mode):
    """Everything before eq. 10 uses one fold only."""
    images = random_images(seed, 4, ties=True)
    loose, strict = searched(images, mode, False), searched(images, mode, True)
    if loose is not None:
        integrated = loose.filter(regex="^(AUcomb_coef_for_)?ensemble_(ImageReward|PickScore|HPS_V2|all)_").columns
        assert len(integrated) == 12
        pd.testing.assert_frame_equal(loose.drop(columns=integrated), strict.drop(columns=integrated))


# ---- the published data


def test_published_results_in_released_mode(published, published_root):
    """All 51 figures of 30 participants, and the file to the byte."""
    name = "image_preference_binary_classification_based_on_ranking"
    ours, theirs = published_root / "results" / f"{name}_released.csv", published / "expected" / f"{name}.csv"
    found, expected = (pd.read_csv(path, dtype={"user_id": str}) for path in (ours, theirs))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert found.drop(columns="user_id").shape == (30, 51)
    assert ours.read_bytes() == theirs.read_bytes()
    fitted = found.groupby(found[["exp_decay_coef", "AU4_coef", "diff_threshold"]].round(2).apply(tuple, axis=1)).size()
    assert fitted.to_dict() == {
        (0.5, 0.5, 0.26): 20,
        (0.8, 0.5, 0.32): 4,
        (1.0, 0.5, 0.32): 3,
        (0.8, 0.5, 0.34): 2,
        (1.1, 0.6, 0.22): 1,
    }


TABLE_1 = {
    "CLIP_score": 399,
    "Aesthetic_score": 352,
    "BLIP_score": 341,
    "ImageReward_score": 426,
    "PickScore": 420,
    "HPS_V2_score": 425,
    "ensemble_baseline_score": 456,
    "AUcomb_valence_score": 498,
}
TABLE_2 = {
    "CLIP_score": 2032,
    "Aesthetic_score": 1764,
    "BLIP_score": 1764,
    "ImageReward_score": 2136,
    "PickScore": 2239,
    "HPS_V2_score": 2189,
    "ensemble_baseline_score": 2325,
}


@pytest.mark.parametrize(
    ("suffix", "valence", "integrated"),
    [
        ("_released", 2058, (2250, 2312, 2316, 2385)),
        ("", 2069, (2270, 2388, 2362, 2413)),
        ("_strict", 2069, (2284, 2388, 2371, 2406)),
    ],
)
def test_published_totals(published, published_root, suffix, valence, integrated):
    """Tables 1 and 2 in each mode; 685 of 3,534 pairs are selected, each participant's number as published."""
    name = "image_preference_binary_classification_based_on_ranking"
    found = pd.read_csv(published_root / "results" / f"{name}{suffix}.csv")
    for model, correct in TABLE_1.items():
        assert correct_and_total(found, f"AUcomb_selected_{model}") == (correct, 685)
    for model, correct in {**TABLE_2, "AUcomb_valence_score": valence}.items():
        assert correct_and_total(found, model) == (correct, 3534)
    models = ("ImageReward_AUcomb", "PickScore_AUcomb", "HPS_V2_AUcomb", "all")
    assert tuple(correct_and_total(found, f"ensemble_{model}_score")[0] for model in models) == integrated
    expected = pd.read_csv(published / "expected" / f"{name}.csv")
    selected = [f"AUcomb_selected_AUcomb_valence_score_n_{each}" for each in ("correct", "incorrect")]
    assert found[selected].sum(axis=1).tolist() == expected[selected].sum(axis=1).tolist()


@pytest.mark.parametrize("strict", [False, True])
def test_published_data_against_the_plain_search(published_root, strict):
    """On all 33 people, with a grid of every fourth to tenth point."""
    folders = Folders(published_root)
    images = read_image_reactions(
        folders,
        read_valid_sessions(folders),
        image_columns=["rank_score", *SCORERS],
        activation_columns=["AU4_activation_value", "AU12_activation_value"],
    )
    full = search_settings("paper", strict=strict, **config.PREFERENCE_SEARCH)
    coarse = replace(
        full,
        ensemble_weights=full.ensemble_weights[::6],
        decays=full.decays[::4],
        au4_weights=full.au4_weights[::4],
        thresholds=full.thresholds[::10],
        integration_weights=full.integration_weights[::10],
    )
    found, expected = search_preferences(images, coarse), plain_search(images, coarse)
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)
