"""fergi/order_of_showing.py: worked by hand, the published figures, and that no score depends on it."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import config
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import (
    CLIP_KEY,
    FETCH_ADVICE,
    Folders,
    read_excluded_participants,
    read_image_reactions,
    read_valid_sessions,
)
from fergi.files import read_tables
from fergi.order_of_showing import balanced_tables, earlier_by_participant, order_balanced, rankings_in_order
from fergi.preference.grid_search import search_settings
from fergi.preference.pairs import pairs_of
from fergi.preference.results import SCORERS, read_results, search_preferences, tables_1_and_2

DRAWS = {"resamples": 500, "seed": 0}


@pytest.fixture
def two_people():
    """A ranked 1 2 3 in the order shown; b ranked 2 1 in one session, and the image 3 before 1 in the other."""
    rows = [
        ("a", 1, 1, 3),
        ("a", 1, 2, 2),
        ("a", 1, 3, 1),
        ("b", 1, 1, 1),
        ("b", 1, 2, 2),
        ("b", 2, 3, 5),
        ("b", 2, 1, 2),
    ]
    return pd.DataFrame(rows, columns=["participant", *CLIP_KEY, "rank_score"])


def test_by_hand(two_people):
    """The earlier image is preferred in 3 of 3 pairs and 0 of 2: 60 %; resamples of two people give 0, 60 or 100."""
    table, everybody = earlier_by_participant(two_people, **DRAWS)
    assert table.to_dict("index") == {
        "a": {"earlier": 3, "pairs": 3, "percent": 100.0},
        "b": {"earlier": 0, "pairs": 2, "percent": 0.0},
    }
    assert everybody.to_dict() == {"estimate": 60.0, "lower": 0.0, "upper": 100.0, "pairs": 5, "above_half": 1}
    assert rankings_in_order(two_people, 3) == (1, 1, pytest.approx(1 / 6))
    assert rankings_in_order(two_people, 2) == (0, 2, 1.0)
    assert rankings_in_order(two_people) == (0, 0, 0.0)


def test_balanced_by_hand(two_people):
    """Pairs in order: a's 1–2, 1–3, 2–3 (earlier preferred), b's 2–1, 3–1 (later preferred).

    Right on 2 of 3 and 1 of 2: 60 % of all, balanced (66.7 + 50) / 2. "Earlier wins" is right on 3 of 5 and 50 %.
    """
    pairs = pairs_of(two_people)
    right = {"some": np.array([1, 1, 0, 1, 0], bool), "earlier wins": np.array([1, 1, 1, 0, 0], bool)}
    used = {name: np.ones(5, bool) for name in right} | {"none later": np.array([1, 1, 1, 0, 0], bool)}
    right["none later"] = right["some"]
    number = two_people["image_index"].to_numpy()
    found = order_balanced(pairs, number, right, used, **DRAWS)
    assert_allclose(found.loc["some"].iloc[:4], [60, 200 / 3, 50, 175 / 3])
    assert_allclose(found.loc["earlier wins"].iloc[:4], [60, 100, 0, 50])
    assert_allclose(found.loc["none later"].iloc[:4], [200 / 3, 200 / 3, np.nan, np.nan])


@pytest.fixture(scope="module")
def published_images(published_root):
    folders = Folders(published_root)
    sessions = read_valid_sessions(folders)
    columns = ["rank_score", *SCORERS]
    images = read_image_reactions(folders, sessions, image_columns=columns, activation_columns=ACTIVATION_COLUMNS)
    return images, images[~images["participant"].isin(read_excluded_participants(folders, sessions))]


def test_published_figures(published_root, published_images):
    """59.8 % (57.0–62.6), 31 of 33 people; 35 of 538 rankings, 4.5 by chance; AUcomb 58.3, with AUs 68.5 balanced."""
    images, included = published_images
    _, everybody = earlier_by_participant(images, resamples=10_000, seed=1)
    assert_allclose(everybody[["estimate", "lower", "upper"]].astype(float), [59.8, 57.0, 62.6], atol=0.2)
    assert (everybody["pairs"], everybody["above_half"]) == (3734, 31)
    folders = Folders(published_root)
    tables = read_tables(
        folders.image_tables, set(images["participant"]), key=CLIP_KEY, numeric=["rank_score"], advice=FETCH_ADVICE
    )
    same, n_rankings, by_chance = rankings_in_order(pd.concat(tables, names=["participant"]).reset_index(0))
    assert (same, n_rankings, round(by_chance, 1)) == (35, 538, 4.5)
    for mode, balanced in (("paper", 58.25), ("released", 57.87)):
        results = read_results(folders, mode)
        found = balanced_tables(included, results, mode=mode, **DRAWS)
        assert_allclose(found["accuracy"], tables_1_and_2(results)["percent"], rtol=1e-12)  # the same predictions
        assert found.at["AUcomb, all", "balanced"] == pytest.approx(balanced, abs=0.005)
        assert (found["lower"] < found["balanced"]).all() and (found["balanced"] < found["upper"]).all()


def test_the_search_does_not_see_the_numbers_of_images(published_images):
    """Numbers permuted within sessions and rows in another order: the same parameters and counts for everybody."""
    _, images = published_images
    few = images[images["participant"].isin(sorted(set(images["participant"]))[:6])]
    search = search_settings("paper", strict=True, **config.PREFERENCE_SEARCH)
    rng = np.random.default_rng(0)
    permuted = few.assign(image_index=rng.permutation(few["image_index"])).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(search_preferences(few, search), search_preferences(permuted, search))
