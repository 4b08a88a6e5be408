"""fergi/statistics.py against values worked by hand and the published ones."""

import numpy as np
import pandas as pd
import pytest
from conftest import STAGES
from numpy.testing import assert_allclose

import config
from fergi import statistics
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import EMOTIONS, Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.features import ACTION_UNITS
from fergi.preference.grid_search import Search, search_settings
from fergi.preference.results import ENSEMBLE, SCORERS, VALENCE

LN2 = np.log(2)


def images(activation, **columns):
    """Images with the same activation in all AUs, emotions at the first image only, but for what is given."""
    table = pd.DataFrame(dict.fromkeys(ACTIVATION_COLUMNS, np.asarray(activation, float)))
    for emotion in EMOTIONS:
        table[emotion] = (np.arange(len(table)) == 0).astype(float)
    table["overall_rating"] = 0.0
    return table.assign(**columns)


@pytest.mark.parametrize(
    ("activation", "rating", "column", "rho"),
    [
        # Ranks 1–5 against 2 1 4 3 5: Σd² = 4, so ρ = 1 − 6·4 / (5·24).
        ([0.1, 0.2, 0.4, 0.8, 3.0], [2.0, 1.0, 4.0, 3.0, 5.0], "rating_rho", 0.8),
        # Ranks 1.5 1.5 3 4 against 1 2 3 4: Σxy = 4.5, Σx² = 4.5, Σy² = 5.
        ([0.2, 0.2, 0.4, 0.8], [1.0, 2.0, 3.0, 4.0], "rating_rho", np.sqrt(0.9)),
        # |rating − 4| of 1 2 4 7 is 3 2 0 3, ranks 3.5 2 1 3.5; against 4 2 1 3: Σxy = 4.5.
        ([0.9, 0.2, 0.1, 0.3], [1.0, 2.0, 4.0, 7.0], "extremity_rho", np.sqrt(0.9)),
        # A rating of 0 was not given; with it ρ would be 0.2.
        ([9.0, 0.1, 0.2, 0.3], [0.0, 1.0, 2.0, 3.0], "rating_rho", 1.0),
    ],
)
def test_spearman_by_hand(activation, rating, column, rho):
    table = images(activation, overall_rating=rating)
    table["AU12_activation_value"] *= -1
    found = statistics.rating_correlations(table)
    assert_allclose(found[column], [-rho if unit == 12 else rho for unit in ACTION_UNITS], atol=1e-12)
    assert list(found.index) == list(ACTION_UNITS)


@pytest.mark.parametrize(
    ("activation", "felt", "z", "p"),
    [
        # With: 4 5 6, without: 1 2 3. The ranks sum to 15, 10.5 expected, variance 3·3·7/12.
        ([4, 1, 5, 2, 6, 3], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 4.5 / np.sqrt(5.25), 0.0495346),
        # With: 1 2, without: 2 3. Ranks 1 2.5 2.5 4: sum 3.5, 5 expected, variance 2·2·5/12 in spite of the tie.
        ([1, 2, 2, 3], [1.0, 1.0, 0.0, 0.0], -1.5 / np.sqrt(5 / 3), 0.2452781),
    ],
)
def test_rank_sum_by_hand(activation, felt, z, p):
    found = statistics.emotion_rank_sums(images(activation, amused=felt))
    assert_allclose(found["amused_z"], z, atol=1e-12)
    assert_allclose(found["amused_p"], p, atol=5e-8)


def test_noise_breaks_ties_only_without_rounding():
    """0.1 + 0.2 and 0.3 are one value to nine decimals and two values in floats."""
    table = images([0.1 + 0.2, 0.3, 0.5, 0.1], amused=[0.0, 1.0, 1.0, 0.0])
    tied, untied = (statistics.emotion_rank_sums(table, decimals)["amused_z"] for decimals in (9, None))
    # With ranks 2.5 and 4 the sum is 6.5; with noise the second image is rank 2: 6. Expected 5, variance 5/3.
    assert_allclose(tied, 1.5 / np.sqrt(5 / 3), atol=1e-12)
    assert_allclose(untied, 1.0 / np.sqrt(5 / 3), atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_tested_has_no_statistic():
    """Nobody scared, everybody amused, all ratings alike, a face that never moves: NaN, and no warning."""
    faces = images([0.1, 0.2, 0.4], scared=0.0, amused=1.0, overall_rating=5.0)
    assert statistics.emotion_rank_sums(faces)[["scared_z", "scared_p", "amused_z", "amused_p"]].isna().all(axis=None)
    assert statistics.emotion_rank_sums(faces)["disgusted_z"].notna().all()
    assert statistics.rating_correlations(faces).isna().all(axis=None)
    still = statistics.rating_correlations(images([0.3, 0.3, 0.3], overall_rating=[1.0, 2.0, 3.0]))
    assert still["rating_rho"].isna().all()


def test_bonferroni():
    """0.05 over 12 AUs times 8 tests; the threshold itself is not significant, and NaN is a dash."""
    limit = statistics.BONFERRONI_THRESHOLD
    assert limit == pytest.approx(0.000520833333, abs=1e-12)
    p_values = pd.Series([limit, limit * 0.999, 1.0, 1e-9, np.nan], index=[1, 2, 4, 5, 6])
    assert statistics.significant_units(p_values) == (2, 5)
    values = pd.Series([1.234, -5.678, 0.0, 9.0, np.nan], index=p_values.index)
    shown = statistics.marked(values.to_frame("z"), p_values.to_frame("p"))
    assert shown["z"].to_list() == ["1.23", "-5.68 *", "0.00", "9.00 *", "–"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("pairs", "interval"),
    [
        # One of n people is always wrong. All three draws are that one in 1/27 = 3.7 % of the resamples.
        ([(4, 0), (4, 0), (0, 4)], [200 / 3, 0, 100]),
        # At least three of five draws are that one in 5.8 %, at least four in 0.7 %.
        ([*[(4, 0)] * 4, (0, 4)], [80, 40, 100]),
        # Whole people are drawn: nobody of ten draws is the one who has nearly all pairs in 0.9^10 = 35 %,
        # at least three draws in 7.0 %, at least four in 1.3 %.
        ([(999, 0), *[(0, 1)] * 9], [100 * 999 / 1008, 0, 100 * 2997 / 3004]),
        # Only one person has pairs: 75 % in every resample in which she is drawn.
        ([(3, 1), (0, 0)], [75, 75, 75]),
        ([(0, 0), (0, 0)], [np.nan] * 3),
    ],
)
def test_bootstrap_by_hand(pairs, interval):
    """Percentiles at 2.5 and 97.5; both sides of a difference are of the same people; the seed decides."""
    arguments = pd.DataFrame(pairs, columns=["one_n_correct", "one_n_incorrect"]), ["one"], {"none": ("one", "one")}
    first, again = (statistics.bootstrap_accuracies(*arguments, resamples=4000, seed=5) for _ in range(2))
    assert_allclose(first.loc["one"], interval)
    assert_allclose(first.loc["none"], np.array(interval) * 0)
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_bootstrap_of_the_published_counts(published):
    """AUcomb − ensemble on the 685 pairs −0.6 to +12.1 points; with AUs − without on all pairs +0.6 to +3.0."""
    table = pd.read_csv(published / "expected" / f"{STAGES[-1]}.csv")
    valence, ensemble = "AUcomb_selected_AUcomb_valence_score", "AUcomb_selected_ensemble_baseline_score"
    pairs = {"selected": (valence, ensemble), "with AUs": ("ensemble_all_score", "ensemble_baseline_score")}
    found = statistics.bootstrap_accuracies(table, [valence], pairs, resamples=10_000, seed=11)
    assert found.loc[valence, "estimate"] == pytest.approx(72.70, abs=0.005)
    assert_allclose(found.loc["selected"], [100 * 42 / 685, -0.6, 12.1], atol=0.35)
    assert_allclose(found.loc["with AUs"], [100 * 60 / 3534, 0.6, 3.0], atol=0.15)
    few, others = (statistics.bootstrap_accuracies(table, [valence], {}, resamples=9, seed=seed) for seed in (1, 2))
    assert not few.equals(others)


@pytest.fixture
def two_people():
    """Two images each of two people, the first preferred: b smiles at hers; the brows of c lower at hers.

    With k = 1 an activation of ln 2 gives one half. The published order of rows does not matter, so c comes first.
    """
    images = pd.DataFrame(
        {
            "participant": ["c", "c", "b", "b"],
            "session_index": 1,
            "rank_score": [5, 4, 5, 4],
            "ImageReward_score": [0.0, 1.0, 3.0, 2.0],
            "PickScore": [7.0, 9.0, 8.0, 3.0],
            "HPS_V2_score": [1.0, 2.0, 3.0, 4.0],
            "AU4_activation_value": [LN2, 0.0, 0.0, 0.0],
            "AU12_activation_value": [0.0, 0.0, LN2, 0.0],
        }
    )
    results = pd.DataFrame(
        {
            "user_id": ["c", "b"],
            "ImageReward_weight": [0.0, 1.0],
            "PickScore_weight": [0.0, 0.0],
            "HPS_V2_weight": [1.0, 0.0],
            "exp_decay_coef": [1.0, 1.0],
            "AU4_coef": [0.6, 0.5],
            "diff_threshold": [0.29, 0.26],
        }
    )
    return images, results


def test_pair_predictions_by_hand(two_people):
    """B: 0.5 · 0.5 − 0 = 0.25 < 0.26, right twice. C: −0.6 · 0.5 − 0 = −0.3, selected, wrong twice (HPS v2: 1 < 2)."""
    images, results = two_people
    table = statistics.pair_predictions(images, results)
    assert table["participant"].to_list() == ["b", "c"]
    assert_allclose(table["difference"], [0.25, 0.3], atol=1e-9)
    assert table["selected"].to_list() == [False, True]
    assert table[VALENCE].to_list() == table[ENSEMBLE].to_list() == [True, False]
    with pytest.raises(ValueError, match="the results are of 1 participants, the images of 2"):
        statistics.pair_predictions(images, results[:1])


def test_pair_predictions_use_the_means_of_the_others(two_people):
    """With equal weights b's order depends on the standard deviations among c's images, and the other way round.

    c's images: sd of ImageReward 1/√2, of PickScore 2/√2. b's images differ by +1 and −1: z differences √2 and −√2/2,
    so ImageReward wins; with b's own deviations it would be a tie, which is not right.
    """
    images, results = two_people
    images.loc[[2, 3], "PickScore"] = [8.0, 9.0]
    results.loc[1, ["ImageReward_weight", "PickScore_weight"]] = [0.5, 0.5]
    assert statistics.pair_predictions(images, results)[ENSEMBLE].to_list() == [True, False]
    images.loc[0, "PickScore"] = 8.9  # now c's PickScore varies less, and PickScore wins
    assert statistics.pair_predictions(images, results)[ENSEMBLE].to_list() == [False, False]


@pytest.fixture
def predictions():
    """Four pairs of two people, two of them with the same difference."""
    return pd.DataFrame(
        {
            "participant": ["a", "b", "a", "b"],
            "difference": [0.4, 0.4, 0.5, 0.1],
            "selected": [False, True, True, False],
            VALENCE: [False, True, True, False],
            ENSEMBLE: [True, False, True, True],
        }
    )


def test_selection_curve_by_hand(predictions):
    """1, then 3 (equal differences come together), then 4 pairs: 1, 2, 2 of them right, and 1, 2, 3."""
    curve = statistics.selection_curve(predictions, resamples=200, seed=0)
    assert curve["difference"].to_list() == [0.5, 0.4, 0.1]
    assert curve["n_selected"].to_list() == [1, 3, 4]
    assert curve["share"].to_list() == [25, 75, 100]
    assert_allclose(curve[VALENCE], [100, 200 / 3, 50])
    assert_allclose(curve[ENSEMBLE], [100, 200 / 3, 75])
    # People are drawn, not pairs. Of all pairs, a and b have 1 of 2 right each; the ensemble 2 of 2 and 1 of 2.
    last = curve.iloc[-1]
    assert (last[f"{VALENCE}_lower"], last[f"{VALENCE}_upper"]) == (50, 50)
    assert (last[f"{ENSEMBLE}_lower"], last[f"{ENSEMBLE}_upper"]) == (50, 100)

    # Two pairs are selected: the valence score is right on both, the ensemble on one.
    table_1 = {"n_pairs": 4, "n_selected": 2, "share": 50, VALENCE: 100, ENSEMBLE: 50}
    assert statistics.selected_accuracy(predictions).to_dict() == table_1


@pytest.mark.parametrize(("n", "counted"), [(30, range(3, 31)), (797, range(53, 798, 4))])
def test_ends_of_the_selection_curve(n, counted):
    """A tenth of few pairs or else 50 are the fewest; 200 of 797 different differences, the first and the last too."""
    table = pd.DataFrame({"participant": "a", "difference": np.arange(n), VALENCE: True, ENSEMBLE: True})
    assert statistics.selection_curve(table, resamples=1, seed=0)["n_selected"].to_list() == list(counted)


def test_choices_of_folds():
    """The most frequent first; sums of floats are the decimals that they stand for."""
    results = pd.DataFrame({"k": [0.1, 0.6, 0.1 + 0.5], "d": [0.3, 0.1 + 0.2, 0.3]})
    assert list(statistics.fold_choices(results, ["k", "d"]).items()) == [((0.6, 0.3), 2), ((0.1, 0.3), 1)]


def test_objective_by_hand(two_people):
    """A pair of b's is right by 1/2 (w = 0) or 1/4 (w = 1/2); c's is a tie (w = 0) or wrong by 1/4 (w = 1/2).

    d = 0: 1 − 2 either way, as a tie is wrong. d = 0.2: 1 − 0 with w = 0, 1 − 2 with w = 1/2. d = 1: nothing.
    """
    search = Search(
        ensemble_weights=np.zeros((0, 3)),
        decays=np.array([1.0]),
        au4_weights=np.array([0.0, 0.5]),
        thresholds=np.array([0.0, 0.2, 1.0]),
        integration_weights=np.zeros(0),
        incorrect_penalty=2,
    )
    objective = statistics.objective_by_decay_and_threshold(two_people[0], search)
    assert objective.index.to_list() == [1.0]
    assert objective.columns.to_list() == [0.0, 0.2, 1.0]
    assert objective.to_numpy().tolist() == [[-1, 1, 0]]


@pytest.fixture(scope="module")
def published_images(published_root):
    """All 2,217 images with a valid reaction."""
    folders = Folders(published_root)
    return read_image_reactions(
        folders,
        read_valid_sessions(folders),
        image_columns=["overall_rating", "rank_score", *EMOTIONS, *SCORERS],
        activation_columns=ACTIVATION_COLUMNS,
    )


def test_published_correlations(published, published_images):
    """ρ within 1e-4 with or without rounding, the same AUs significant; 2,203 images are rated."""
    expected = pd.read_csv(published / "expected" / "overall_rating_correlations.csv", index_col="AU")
    ratings = published_images["overall_rating"].value_counts()
    assert [ratings[rating] for rating in range(8)] == [14, 104, 185, 258, 456, 581, 403, 216]
    for decimals in (None, 9):
        found = statistics.rating_correlations(published_images, decimals)
        assert_allclose(found["rating_rho"], expected["rho_sequantial"], atol=1e-4, rtol=0)
        assert_allclose(found["extremity_rho"], expected["rho_symmetric"], atol=1e-4, rtol=0)
        assert statistics.significant_units(found["rating_p"]) == (2, 4, 9, 12)
        assert statistics.significant_units(found["extremity_p"]) == (1, 2, 5, 12, 20)


def test_published_rank_sums(published, published_images):
    """All 72 z within 5e-6 as released; the p values with them, and the same tests significant with rounding."""
    expected = pd.read_csv(published / "expected" / "emotion_ranksums.csv", index_col="AU")
    released, rounded = (statistics.emotion_rank_sums(published_images, decimals) for decimals in (None, 9))
    for emotion in EMOTIONS:
        assert_allclose(released[f"{emotion}_z"], expected[f"{emotion}_z"], atol=5e-6, rtol=0)
        assert_allclose(released[f"{emotion}_p"], expected[f"{emotion}_p"], rtol=5e-5, atol=5e-7)
        ours, theirs = (statistics.significant_units(each[f"{emotion}_p"]) for each in (rounded, expected))
        assert ours == theirs
    assert released.loc[4, "disgusted_z"] == pytest.approx(8.338, abs=5e-4)


def test_published_pairs(published, published_images):
    """Table 1: 685 pairs, AUcomb right on 498 and the ensemble on 456; all pairs: 2069 (eq. 5) and 2325 of 3534.

    Section 6.2.4: k = 0.5 and d = 0.26 in 20 of 30 folds, which is where the objective is highest.
    """
    folders = Folders(published)
    excluded = read_excluded_participants(folders, read_valid_sessions(folders))
    included = published_images[~published_images["participant"].isin(excluded)]
    results = pd.read_csv(published / "expected" / f"{STAGES[-1]}.csv", dtype={"user_id": str})
    table = statistics.pair_predictions(included, results)
    selected = table[table["selected"]]
    assert (len(selected), selected[VALENCE].sum(), selected[ENSEMBLE].sum()) == (685, 498, 456)
    assert (len(table), table[VALENCE].sum(), table[ENSEMBLE].sum()) == (3534, 2069, 2325)
    last = statistics.selection_curve(table, resamples=1, seed=0).iloc[-1]
    assert_allclose(last[["n_selected", VALENCE]].astype(float), [3534, 100 * 2069 / 3534])
    search = search_settings("paper", **config.PREFERENCE_SEARCH)
    assert statistics.objective_by_decay_and_threshold(included, search).stack().idxmax() == (0.5, 0.26)
