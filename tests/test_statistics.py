"""Section 6.1 and the bootstrap, against values worked by hand and the published ones."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import Folders, read_image_reactions, read_valid_sessions
from fergi.features import ACTION_UNITS
from fergi.statistics import (
    EMOTIONS,
    N_TESTS,
    activation_of,
    binomial_p,
    bonferroni_threshold,
    bootstrap_accuracies,
    emotion_rank_sums,
    rating_correlations,
    significant_units,
)


def images(activation, **columns):
    """Images with the same activation in all AUs, emotions at the first image only, but for what is given."""
    table = pd.DataFrame(dict.fromkeys(ACTIVATION_COLUMNS, np.asarray(activation, float)))
    for emotion in EMOTIONS:
        table[emotion] = (np.arange(len(table)) == 0).astype(float)
    table["overall_rating"] = 0.0
    return table.assign(**columns)


def test_spearman_by_hand():
    """Ranks 1–5 against 2 1 4 3 5: Σd² = 4, so ρ = 1 − 6·4 / (5·24) = 0.8."""
    found = rating_correlations(images([0.1, 0.2, 0.4, 0.8, 3.0], overall_rating=[2.0, 1.0, 4.0, 3.0, 5.0]))
    assert_allclose(found["rating_rho"], 0.8, atol=1e-12)
    assert list(found.index) == list(ACTION_UNITS)


def test_spearman_with_ties_by_hand():
    """Ranks 1.5 1.5 3 4 against 1 2 3 4: Σxy = 4.5, Σx² = 4.5, Σy² = 5, so ρ = √0.9."""
    found = rating_correlations(images([0.2, 0.2, 0.4, 0.8], overall_rating=[1.0, 2.0, 3.0, 4.0]))
    assert_allclose(found["rating_rho"], np.sqrt(0.9), atol=1e-12)


def test_extremity_by_hand():
    """|rating − 4| of 1 2 4 7 is 3 2 0 3, ranks 3.5 2 1 3.5; against 4 2 1 3: Σxy = 4.5, so ρ = √0.9."""
    found = rating_correlations(images([0.9, 0.2, 0.1, 0.3], overall_rating=[1.0, 2.0, 4.0, 7.0]))
    assert_allclose(found["extremity_rho"], np.sqrt(0.9), atol=1e-12)


def test_images_without_a_rating_are_left_out_of_the_correlations():
    """A rating of 0 was not given; with it ρ would be 0.2."""
    found = rating_correlations(images([9.0, 0.1, 0.2, 0.3], overall_rating=[0.0, 1.0, 2.0, 3.0]))
    assert_allclose(found["rating_rho"], 1.0, atol=1e-12)


def test_each_unit_has_its_own_correlation():
    """AU12 runs the other way than the rest."""
    table = images([1, 2, 3, 4], overall_rating=[1.0, 2.0, 3.0, 4.0])
    table["AU12_activation_value"] *= -1
    found = rating_correlations(table)
    assert_allclose(found["rating_rho"], [-1.0 if unit == 12 else 1.0 for unit in ACTION_UNITS], atol=1e-12)


def test_rank_sum_by_hand():
    """With: 4 5 6, without: 1 2 3. The ranks sum to 15, 10.5 expected, variance 3·3·7/12 = 5.25."""
    found = emotion_rank_sums(images([4, 1, 5, 2, 6, 3], amused=[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]))
    assert_allclose(found["amused_z"], 4.5 / np.sqrt(5.25), atol=1e-12)
    assert_allclose(found["amused_p"], 0.0495346, atol=5e-8)


def test_rank_sum_is_not_corrected_for_ties():
    """With: 1 2, without: 2 3. Ranks 1 2.5 2.5 4: sum 3.5, 5 expected, variance 2·2·5/12 in spite of the tie."""
    found = emotion_rank_sums(images([1, 2, 2, 3], scared=[1.0, 1.0, 0.0, 0.0]))
    assert_allclose(found["scared_z"], -1.5 / np.sqrt(5 / 3), atol=1e-12)


def test_noise_breaks_ties_only_without_rounding():
    """0.1 + 0.2 and 0.3 are one value to nine decimals and two values in floats."""
    table = images([0.1 + 0.2, 0.3, 0.5, 0.1], amused=[0.0, 1.0, 1.0, 0.0])
    assert len(set(activation_of(table, 4, 9))) == 3
    assert len(set(activation_of(table, 4, None))) == 4
    tied, untied = (emotion_rank_sums(table, decimals)["amused_z"] for decimals in (9, None))
    # With ranks 2.5 and 4 the sum is 6.5; with noise the second image is rank 2: 6. Expected 5, variance 5/3.
    assert_allclose(tied, 1.5 / np.sqrt(5 / 3), atol=1e-12)
    assert_allclose(untied, 1.0 / np.sqrt(5 / 3), atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_tested_has_no_statistic():
    """Nobody scared, everybody amused, all ratings alike, a face that never moves: NaN, and no warning."""
    faces = images([0.1, 0.2, 0.4], scared=0.0, amused=1.0, overall_rating=5.0)
    assert emotion_rank_sums(faces)[["scared_z", "scared_p", "amused_z", "amused_p"]].isna().all(axis=None)
    assert emotion_rank_sums(faces)["disgusted_z"].notna().all()
    assert rating_correlations(faces).isna().all(axis=None)
    still = rating_correlations(images([0.3, 0.3, 0.3], overall_rating=[1.0, 2.0, 3.0]))
    assert still["rating_rho"].isna().all()


@pytest.mark.filterwarnings("error")
def test_bootstrap_where_a_model_has_few_pairs():
    """Of two people only one has pairs, 3 of 4 correct: 75 % in every resample in which she is drawn."""
    results = counts(some=[(3, 1), (0, 0)], none=[(0, 0), (0, 0)])
    table = bootstrap_accuracies(results, ["some", "none"], {"one": ("some", "none")}, resamples=200, seed=0)
    assert_allclose(table.loc["some"], [75, 75, 75])
    assert table.loc[["none", "one"]].isna().all(axis=None)


def test_bonferroni():
    """0.05 over 12 AUs times 8 tests; the bound itself is not significant."""
    assert N_TESTS == 96
    assert bonferroni_threshold() == pytest.approx(0.000520833333, abs=1e-12)
    bound = bonferroni_threshold()
    p_values = pd.Series([bound, bound * 0.999, 1.0, 1e-9], index=[1, 2, 4, 5])
    assert significant_units(p_values) == (2, 5)


def test_binomial_by_hand():
    """8 of 10 heads: 2 (45 + 10 + 1) / 1024; half is no evidence."""
    assert binomial_p(8, 10) == pytest.approx(2 * 56 / 1024)
    assert binomial_p(2, 10) == pytest.approx(2 * 56 / 1024)
    assert binomial_p(5, 10) == pytest.approx(1.0)
    assert binomial_p(2058, 3534) == pytest.approx(1.18e-22, rel=5e-3)


def counts(**models):
    """A results table from (correct, incorrect) of each participant."""
    columns = {}
    for name, pairs in models.items():
        columns[f"{name}_n_correct"], columns[f"{name}_n_incorrect"] = map(list, zip(*pairs, strict=True))
    return pd.DataFrame(columns)


def test_bootstrap_of_identical_people():
    """Whoever is drawn, the accuracy is 75 %, the other 25 %, and the difference 50 points."""
    table = counts(one=[(3, 1)] * 5, other=[(1, 3)] * 5)
    found = bootstrap_accuracies(table, ["one", "other"], {"gain": ("one", "other")}, resamples=200, seed=1)
    assert list(found.index) == ["one", "other", "gain"]
    assert found.loc["one"].tolist() == [75.0, 75.0, 75.0]
    assert found.loc["other"].tolist() == [25.0, 25.0, 25.0]
    assert found.loc["gain"].tolist() == [50.0, 50.0, 50.0]


def test_bootstrap_of_a_model_against_itself():
    """Both sides of a difference are of the same people, so it is 0 in every resample."""
    table = counts(one=[(3, 1), (9, 2), (0, 5), (4, 4)])
    found = bootstrap_accuracies(table, ["one"], {"none": ("one", "one")}, resamples=500, seed=1)
    assert found.loc["none"].tolist() == [0.0, 0.0, 0.0]
    assert found.loc["one", "estimate"] == pytest.approx(100 * 16 / 28)
    assert found.loc["one", "lower"] < found.loc["one", "estimate"] < found.loc["one", "upper"]


def test_bootstrap_of_two_people_by_hand():
    """One always right, one always wrong: 0, 50 or 100 % with chances 1/4, 1/2, 1/4.

    The 60 % interval cuts a fifth off each side, less than the quarter there: 0 to 100. The 40 % one cuts off 30 %.
    """
    table = counts(one=[(4, 0), (0, 4)])
    options = {"resamples": 4000, "seed": 5}
    wide = bootstrap_accuracies(table, ["one"], {}, level=0.6, **options)
    narrow = bootstrap_accuracies(table, ["one"], {}, level=0.4, **options)
    assert wide.loc["one"].tolist() == [50.0, 0.0, 100.0]
    assert narrow.loc["one"].tolist() == [50.0, 50.0, 50.0]


def test_bootstrap_draws_people_not_pairs():
    """One person has nearly all pairs: with 1, 2, … draws of them the interval is as wide as people differ."""
    table = counts(one=[(1000, 0), *[(0, 1)] * 9])
    found = bootstrap_accuracies(table, ["one"], {}, resamples=2000, seed=3)
    assert found.loc["one", "lower"] == 0.0  # nobody of ten draws is that person in (9/10)^10 = 35 % of the resamples
    assert found.loc["one", "upper"] > 99.0


def test_bootstrap_repeats():
    """The same seed gives the same interval, another seed another."""
    table = counts(one=[(3, 1), (9, 2), (0, 5), (4, 4), (7, 1)])
    first, again, other = (bootstrap_accuracies(table, ["one"], {}, resamples=999, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first.equals(other)


def test_bootstrap_of_the_published_counts(published):
    """AUcomb − ensemble on the 685 pairs −0.6 to +12.1 points; with AUs − without on all pairs +0.6 to +3.0."""
    name = "image_preference_binary_classification_based_on_ranking.csv"
    table = pd.read_csv(published / "expected" / name)
    found = bootstrap_accuracies(
        table,
        ["AUcomb_selected_AUcomb_valence_score"],
        {
            "selected": ("AUcomb_selected_AUcomb_valence_score", "AUcomb_selected_ensemble_baseline_score"),
            "with AUs": ("ensemble_all_score", "ensemble_baseline_score"),
        },
        resamples=10_000,
        seed=11,
    )
    assert found.loc["AUcomb_selected_AUcomb_valence_score", "estimate"] == pytest.approx(72.70, abs=0.005)
    assert_allclose(found.loc["selected"], [100 * 42 / 685, -0.6, 12.1], atol=0.35)
    assert_allclose(found.loc["with AUs"], [100 * 60 / 3534, 0.6, 3.0], atol=0.15)


@pytest.fixture(scope="module")
def published_images(published_root):
    """All 2,217 images with a valid reaction."""
    folders = Folders(published_root)
    return read_image_reactions(
        folders,
        read_valid_sessions(folders),
        image_columns=["overall_rating", *EMOTIONS],
        activation_columns=ACTIVATION_COLUMNS,
    )


def test_published_correlations(published, published_images):
    """ρ within 1e-4 with or without rounding, the same AUs significant; 2,203 images are rated."""
    expected = pd.read_csv(published / "expected" / "overall_rating_correlations.csv", index_col="AU")
    ratings = published_images["overall_rating"].value_counts()
    assert [ratings[rating] for rating in range(8)] == [14, 104, 185, 258, 456, 581, 403, 216]
    for decimals in (None, 9):
        found = rating_correlations(published_images, decimals)
        assert_allclose(found["rating_rho"], expected["rho_sequantial"], atol=1e-4, rtol=0)
        assert_allclose(found["extremity_rho"], expected["rho_symmetric"], atol=1e-4, rtol=0)
        assert significant_units(found["rating_p"]) == (2, 4, 9, 12)
        assert significant_units(found["extremity_p"]) == (1, 2, 5, 12, 20)


def test_published_rank_sums(published, published_images):
    """All 72 z within 5e-6 as released; the p values with them, and the same tests significant with rounding."""
    expected = pd.read_csv(published / "expected" / "emotion_ranksums.csv", index_col="AU")
    released, rounded = emotion_rank_sums(published_images, None), emotion_rank_sums(published_images)
    for emotion in EMOTIONS:
        assert_allclose(released[f"{emotion}_z"], expected[f"{emotion}_z"], atol=5e-6, rtol=0)
        assert_allclose(released[f"{emotion}_p"], expected[f"{emotion}_p"], rtol=5e-5, atol=5e-7)
        assert significant_units(rounded[f"{emotion}_p"]) == significant_units(expected[f"{emotion}_p"])
    assert released.loc[4, "disgusted_z"] == pytest.approx(8.338, abs=5e-4)
