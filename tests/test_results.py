"""The results of stage 9 and Tables 1 and 2: worked by hand, as published, and as a plain search has them."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import STAGES
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from plain import plain_search
from small_search import LARGE, one_point, people, random_images, small_search, three_people

from fergi.preference.results import SCORERS, correct_and_total, search_preferences, tables_1_and_2
from fergi.scorers import registry

NAME = "image_preference_binary_classification_based_on_ranking"
SELECTED = "AUcomb_selected_AUcomb_valence_score"


def counts(results, name):
    """(correct, incorrect) of every participant."""
    return list(zip(results[f"{name}_n_correct"], results[f"{name}_n_incorrect"], strict=True))


# ---- worked by hand


def test_difference_equal_to_the_threshold_is_selected():
    """A smile of score 1 against none is a difference of exactly 1/2; d = 1/2 takes it, d = 0.5000001 does not."""
    images = people(*((who, 1, rank, 0.0, LARGE * (rank == 2)) for who in "ab" for rank in (1, 2)))
    assert counts(search_preferences(images, one_point(thresholds=[0.5])), SELECTED) == [(1, 0), (1, 0)]
    assert counts(search_preferences(images, one_point(thresholds=[0.5000001])), SELECTED) == [(0, 0), (0, 0)]


def test_tie_and_noise_of_activations():
    """Two equal reactions differ by 0, which reaches d = 0; the prediction is then wrong, and so on all pairs.

    A difference in the twelfth decimal is noise to the paper's mode and a preference to the release.
    """
    for noise, decimals, expected in ((0, None, (0, 1)), (1e-12, 9, (0, 1)), (1e-12, None, (1, 0))):
        images = people(*((who, 1, rank, 0.0, 0.3 + noise * (rank == 2)) for who in "ab" for rank in (1, 2)))
        found = search_preferences(images, replace(one_point(), activation_decimals=decimals))
        assert counts(found, SELECTED) == [expected] * 2
        assert counts(found, "AUcomb_valence_score") == [expected] * 2


def test_scorers_alone_and_integrated():
    """Scores against the ranking are always wrong; AUs turn them from a > 2√2 on."""
    images = people(*((who, 1, rank, 0, LARGE * (rank == 2), -rank) for who in "ab" for rank in (1, 2)))
    for a, right in ((2.8, 0), (2.9, 1)):
        found = search_preferences(images, one_point(integration_weights=[0.0, a]))
        for name in ("ImageReward_AUcomb", "PickScore_AUcomb", "HPS_V2_AUcomb", "all"):
            assert counts(found, f"ensemble_{name}_score") == [(right, 1 - right)] * 2
        for name in (*SCORERS, "ensemble_baseline_score"):
            assert counts(found, name) == [(0, 1)] * 2


def test_product_slip_only_outside_the_selection():
    """A frown at the worse image and no smile: eq. 5 sees it, the product does not, the selection always does."""
    rows = [(who, 1, rank, LARGE * (rank == 1), 0.0, 1.0) for who in "ab" for rank in (1, 2)]
    images = people(*rows, ("a", 2, 1, 0, 0, 5.0), ("b", 2, 1, 0, 0, 5.0))
    search = one_point(thresholds=[0.5], integration_weights=[0.0, 1.0])
    for product, correct in ((False, 1), (True, 0)):
        found = search_preferences(images, replace(search, product_valence=product))
        assert counts(found, SELECTED) == [(1, 0)] * 2
        assert counts(found, "AUcomb_valence_score") == [(correct, 1 - correct)] * 2
        assert counts(found, "ensemble_PickScore_AUcomb_score") == [(correct, 1 - correct)] * 2
        assert found["AUcomb_coef_for_ensemble_all_score"].tolist() == [float(correct)] * 2


def test_tables_by_hand():
    """With d = 0.4 a and b have two right pairs selected, c one wrong one; without a pair there is no percentage."""
    found = search_preferences(three_people(), one_point(thresholds=[0.1, 0.4, 0.6]))
    assert found["user_id"].tolist() == ["a", "b", "c"]
    assert counts(found, SELECTED) == [(2, 0), (2, 0), (0, 1)]
    assert counts(found, "AUcomb_valence_score") == [(2, 1), (2, 1), (0, 1)]
    assert found[["AU4_coef", "AU12_coef"]].values.tolist() == [[0.5, 0.5]] * 3
    assert correct_and_total(found, "AUcomb_valence_score") == (4, 7)
    tables = tables_1_and_2(found)
    models = ["CLIP", "Aesthetic", "BLIP", "ImageReward", "PickScore", "HPS v2", "ensemble", "AUcomb"]
    assert list(tables.index) == [
        *(f"{model}, selected" for model in models),
        *(f"{model}, all" for model in models),
        *(f"{model} with AUs, all" for model in models[3:7]),
    ]
    row = ["Table 1", "AUcomb", "selected", False, "AUcomb_valence_score", SELECTED, 4, 5, 80.0]
    assert tables.loc["AUcomb, selected"].tolist() == row
    row = ["Table 2", "HPS v2", "all", True, "HPS_V2_score", "ensemble_HPS_V2_AUcomb_score"]
    assert tables.loc["HPS v2 with AUs, all"].tolist()[:6] == row
    assert (tables["total"][8:] == 7).all()
    nothing = tables_1_and_2(search_preferences(three_people(), one_point(thresholds=[0.9]))).loc["PickScore, selected"]
    assert nothing["total"] == 0
    assert np.isnan(nothing["percent"])


# ---- a seventh scorer


@pytest.mark.parametrize("options", [(), ("--mode", "released"), ("--strict-lopo",)])
def test_seventh_scorer(tiny, monkeypatch, capsys, options):
    """Registered and in the image tables, it is counted and printed; everything else stays, to the byte."""
    tiny.run(STAGES[-1], *options)
    suffix = {(): "", ("--strict-lopo",): "_strict"}.get(options, "_released")
    path = tiny.path(f"results/{NAME}{suffix}.csv")
    before, printed = path.read_text(), capsys.readouterr().out
    monkeypatch.setitem(registry.SCORERS, "Seventh", registry.RegisteredScorer("seventh", "Seventh", "Mine", False))
    tiny.run(STAGES[-1], *options)
    assert (path.read_text(), capsys.readouterr().out) == (before, printed)  # without its column in the tables

    for table in tiny.root.glob("preparation/preprocessed_image_data/*.csv"):
        tiny.edit_table(table.relative_to(tiny.root), lambda images: images.assign(Mine=images["rank_score"]))
    tiny.run(STAGES[-1], *options)
    results = pd.read_csv(path, dtype={"user_id": str})
    added = [f"{selected}Mine_n_{each}" for selected in ("AUcomb_selected_", "") for each in ("correct", "incorrect")]
    assert path.read_text().splitlines()[0] == before.splitlines()[0] + "," + ",".join(added)
    kept = [line.rsplit(",", len(added))[0] for line in path.read_text().splitlines()]
    assert kept == before.splitlines()
    assert counts(results, "Mine") == [(6, 0), (4, 0), (10, 0)]
    n_selected = results[[f"{SELECTED}_n_correct", f"{SELECTED}_n_incorrect"]].sum(axis=1)
    assert results["AUcomb_selected_Mine_n_correct"].tolist() == n_selected.tolist()
    tables = tables_1_and_2(results)
    assert tables.loc["Seventh, all"].tolist() == ["Table 2", "Seventh", "all", False, "Mine", "Mine", 20, 20, 100.0]
    without = tables_1_and_2(results.drop(columns=added))
    pd.testing.assert_frame_equal(tables.drop(index=["Seventh, selected", "Seventh, all"]), without)
    assert re.search(r"\nSeventh, all +20 +20 +100.00\n", capsys.readouterr().out)
    tiny.edit_table("preparation/preprocessed_image_data/102.csv", lambda images: images.drop(columns="Mine"))
    tiny.refuses(STAGES[-1], "1 of 3 tables is unusable", "102.csv has no column Mine")


# ---- random tables

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


# ---- the published data


def test_published_results_in_released_mode(published, published_root):
    """All 51 figures of 30 participants, and the file to the byte."""
    ours, theirs = published_root / "results" / f"{NAME}_released.csv", published / "expected" / f"{NAME}.csv"
    found, expected = (pd.read_csv(path, dtype={"user_id": str}) for path in (ours, theirs))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert found.drop(columns="user_id").shape == (30, 51)
    assert ours.read_bytes() == theirs.read_bytes()
    excluded = [folder / "AU4_excluded_participants.json" for folder in (published_root / "preparation", theirs.parent)]
    assert [json.loads(path.read_text()) for path in excluded] == [["002", "004", "039"]] * 2
    fitted = found.groupby(found[["exp_decay_coef", "AU4_coef", "diff_threshold"]].round(2).apply(tuple, axis=1)).size()
    assert fitted.to_dict() == {
        (0.5, 0.5, 0.26): 20,
        (0.8, 0.5, 0.32): 4,
        (1.0, 0.5, 0.32): 3,
        (0.8, 0.5, 0.34): 2,
        (1.1, 0.6, 0.22): 1,
    }


@pytest.mark.parametrize(
    ("suffix", "valence", "integrated"),
    [
        ("_released", 2058, [2250, 2312, 2316, 2385]),
        ("", 2069, [2270, 2388, 2362, 2413]),
        ("_strict", 2069, [2284, 2388, 2371, 2406]),
    ],
)
def test_published_totals(published, published_root, suffix, valence, integrated):
    """Tables 1 and 2 in each mode; 685 of 3,534 pairs are selected, each participant's number as published."""
    found = pd.read_csv(published_root / "results" / f"{NAME}{suffix}.csv")
    tables = tables_1_and_2(found)
    assert tables["correct"][:8].tolist() == [399, 352, 341, 426, 420, 425, 456, 498]
    assert tables["correct"][8:].tolist() == [2032, 1764, 1764, 2136, 2239, 2189, 2325, valence, *integrated]
    assert tables["total"].tolist() == [685] * 8 + [3534] * 12
    expected = pd.read_csv(published / "expected" / f"{NAME}.csv")
    selected = [f"{SELECTED}_n_{each}" for each in ("correct", "incorrect")]
    assert found[selected].sum(axis=1).tolist() == expected[selected].sum(axis=1).tolist()
