"""Planted beside recovered: the summaries by hand, and verdicts on cohorts whose features are known."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from test_synthetic_cohort import AU4, AU12, study

from fergi.dataset import Folders
from fergi.files import FergiError
from fergi.preference.results import ENSEMBLE, INTEGRATED_ENSEMBLE, TRAINED_SCORERS, VALENCE, correct_and_total
from synthetic import recovery
from synthetic.cohort import CohortSettings
from synthetic.labels import tuned_table
from synthetic.recovery import (
    NOT_RECOVERED,
    RECOVERED,
    by_chance,
    clips_row,
    compare,
    injected_activation,
    mean_and_margin,
    tuned_generator_rows,
    tuned_scorer_rows,
)

COHORT = CohortSettings(n_participants=12, n_sessions=3, baseline_seconds=0.6, reaction_seconds=2.0)
ON_PREFERENCES = "selected pairs|all pairs"


@pytest.mark.parametrize(
    ("course", "activation"),
    [
        ([0, 0, 0, 3, 3, 3, 0], 3.0),
        ([1, 1, 1, 1, 4, 1, 1], 1.0),  # (1 + 4 + 1) / 3 − 1
        ([3, 3, 3, 0, 0, 0], 0.0),  # nothing is higher than the first window
        ([2, 2, 2], 0.0),
    ],
)
def test_injected_activation_by_hand(course, activation):
    """Largest mean of three frames less the first."""
    assert injected_activation(np.array(course, float)) == pytest.approx(activation)


@pytest.mark.parametrize(
    ("correlations", "strength", "found", "recovered"),
    [
        ([0.99] * 17 + [0.84], 4.0, "0.990; 17 of 18 clips ≥ 0.9", True),
        ([0.99] * 16 + [0.84] * 2, 4.0, "0.990; 16 of 18 clips ≥ 0.9", False),
        ([0.89] * 3, 4.0, "0.890; 0 of 3 clips ≥ 0.9", False),
        ([], 4.0, "hardly moves", False),
        ([], 0.0, "hardly moves", True),
    ],
)
def test_nine_in_ten_clips_must_be_right(correlations, strength, found, recovered):
    """Not their median alone."""
    row = clips_row("AU12", correlations, 0.4, strength)
    assert (row[2], row[4]) == (found, recovered)


# Chance ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rated() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two people, two sessions each of four images, no two of which move a face alike.

    The ensemble is PickScore, right on five of the six pairs of each session; with AUs it is the face alone.
    """
    keys = pd.MultiIndex.from_product([["a", "b"], [1, 2], [1, 2, 3, 4]])
    images = keys.to_frame(index=False, name=["participant", "session_index", "rank_score"])
    images["AU4_activation_value"] = 0.0
    images["AU12_activation_value"] = np.random.default_rng(1).permutation(np.linspace(0, 2, len(images)))
    for name in TRAINED_SCORERS:
        images[name] = np.tile([1.0, 2.0, 4.0, 3.0], 4)
    results = pd.DataFrame({"user_id": ["a", "b"], "exp_decay_coef": 1.0, "AU4_coef": 0.0, "diff_threshold": 0.0})
    results[["ImageReward_weight", "PickScore_weight", "HPS_V2_weight"]] = [0.0, 1.0, 0.0]
    results[f"AUcomb_coef_for_{INTEGRATED_ENSEMBLE}"] = 1e6
    return images, results


def test_chance_is_that_of_all_orders(rated):
    """Of four in random order, n (n − 1) / 4 = 3 pairs are right, with variance n (n − 1) (2 n + 5) / 72 = 13/6."""
    table = by_chance(*rated)
    moved = rated[0]["AU12_activation_value"].to_numpy().reshape(4, 4)
    right = sum(each[better] > each[worse] for each in moved for better in range(4) for worse in range(better))
    assert table["counted"].to_dict() == {"selected": right, "all": right, "gain": right - 4 * 5}
    assert_allclose(table["expected"], [4 * 3, 4 * 3, 4 * (3 - 5)], atol=0.3)
    assert_allclose(table["deviation"], math.sqrt(4 * 13 / 6), rtol=0.06)
    assert by_chance(*rated).equals(table)


def test_what_faces_cannot_change_has_no_deviation(rated):
    """Where the face has no weight there is no gain, and where nothing is selected nothing is right."""
    images, results = rated
    results[f"AUcomb_coef_for_{INTEGRATED_ENSEMBLE}"] = [0.0, 1e6]
    table = by_chance(images, results.assign(diff_threshold=1.0))
    assert table.loc["selected"].to_list() == [0, 0, 0]
    assert table.at["gain", "deviation"] == pytest.approx(math.sqrt(2 * 13 / 6), rel=0.06)  # of one person
    results[f"AUcomb_coef_for_{INTEGRATED_ENSEMBLE}"] = 0.0
    assert by_chance(images, results).loc["gain"].to_list() == [0, 0, 0]


def test_reactions_stay_in_their_session(rated):
    """Faces that never move in one session are right on none of its pairs, however they are permuted."""
    images, results = rated
    images.loc[:3, "AU12_activation_value"] = 0.0
    table = by_chance(images, results)
    assert table.at["all", "expected"] == pytest.approx(3 * 3, abs=0.3)
    assert table.at["all", "deviation"] == pytest.approx(math.sqrt(3 * 13 / 6), rel=0.06)


# Verdicts ----------------------------------------------------------------------------------------------------------


SCORER = {"annotated": (1.0, 1.5, 2.0), "by_coin": (0.3, -0.2, 0.2), "turned_round": (-0.5, 0.1, -0.2)}
GENERATOR = {"annotated": (0.2, 0.25, 0.3), "by_coin": (0.03, -0.04, 0.02), "turned_round": (-0.3, -0.2, -0.25)}
NIGHT = (0.03, -0.02, 0.01)


def tuned(what: str, values: dict[str, tuple[float, ...]], night: tuple[float, ...] = NIGHT) -> pd.DataFrame:
    """A table as ``synthetic tuned`` writes it; a gain's interval is 0.5 to each side."""
    rows = []
    for labels, several in values.items():
        for seed, value in enumerate(several):
            row = {"labels": labels, "seed": seed, "pairs": 400, "right": 0.75}
            scorer = {"gain": value, "lower": value - 0.5, "upper": value + 0.5}
            rows.append(row | (scorer if what == "scorer" else {"fidelity": value, "night": night[seed]}))
    return pd.DataFrame(rows)


def tuned_study(root, *options) -> Folders:
    """``study``, and tables of tunings as they should be."""
    folders = study(root, *options)
    for what, values in (("scorer", SCORER), ("generator", GENERATOR)):
        tuned(what, values).to_csv(tuned_table(folders, what), index=False)
    return folders


@pytest.mark.parametrize(
    ("what", "values", "night", "lost"),
    [
        ("scorer", {}, NIGHT, []),
        ("scorer", {"annotated": (0.4, 0.5, 0.55)}, NIGHT, ["annotated"]),  # 0.48 [−0.02, 0.98]
        ("scorer", {"by_coin": (-0.5, -0.6, -0.5)}, NIGHT, ["by_coin"]),
        ("scorer", {"turned_round": (0.5, 0.6, 0.7)}, NIGHT, ["turned_round"]),
        ("generator", {}, NIGHT, []),
        # By hand, t with two degrees of freedom: 4.303 · 0.1 / √3 = 0.248 is more than 0.2.
        ("generator", {"annotated": (0.1, 0.2, 0.3)}, NIGHT, ["annotated"]),
        (
            "generator",
            {"by_coin": (0.07, 0.07, 0.071)},
            NIGHT,
            ["by_coin"],
        ),  # its interval leaves 0 out: 0.07 > 0.25/4
        ("generator", {"by_coin": (0.05, 0.05, 0.051)}, NIGHT, []),  # so does this, but it is small
        ("generator", {"by_coin": (-0.3, 0.3, 0.5)}, NIGHT, ["by_coin"]),  # 0.167: a wide interval is no excuse
        ("generator", {"turned_round": (0.2, 0.2, 0.21)}, NIGHT, ["turned_round"]),
        ("generator", {}, (-0.1, -0.1, -0.11), ["night"]),
    ],
)
def test_verdicts_on_tunings(what, values, night, lost):
    """Each row fails where it should, and no other does."""
    rows = {"scorer": tuned_scorer_rows, "generator": tuned_generator_rows}[what]
    table = tuned(what, {"scorer": SCORER, "generator": GENERATOR}[what] | values, night)
    names = ["annotated", "by_coin", "turned_round", "night"]
    verdict = [good for *_, good in rows(table)]
    assert [name for name, good in zip(names, verdict, strict=False) if not good] == lost
    assert "400 pairs from faces (75 % of their labels right)" in rows(table)[0][0]


def test_mean_and_margin_by_hand():
    """Student's t of two degrees of freedom is 4.302653; one seed has no interval."""
    mean, margin = mean_and_margin([0.1, 0.2, 0.3])
    assert (mean, margin) == pytest.approx((0.2, 4.302653 * 0.1 / math.sqrt(3)), abs=1e-6)
    assert mean_and_margin([0.4]) == (0.4, math.inf)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Folders:
    """A cohort of strength 4 whose faces are read without a fault."""
    return tuned_study(tmp_path_factory.mktemp("told"), COHORT)


@pytest.fixture
def spoilt(told, tmp_path) -> Folders:
    """A copy of it, to spoil."""
    return Folders(shutil.copytree(told.root, tmp_path / "root"))


def verdicts(folders: Folders) -> pd.Series:
    """Quantity → verdict."""
    return compare(folders).set_index("quantity")["verdict"]


def test_everything_planted_is_recovered_from_true_features(told):
    """Every row; and what is compared with chance is what stage 9 has counted."""
    table = verdicts(told)
    assert len(table) == 12 + 3 + 4
    assert (table == RECOVERED).all(), table
    images, results = recovery.read_preferences(told)
    selected, alone, ensemble, together = (
        correct_and_total(results, name)[0]
        for name in (f"AUcomb_selected_{VALENCE}", VALENCE, ENSEMBLE, INTEGRATED_ENSEMBLE)
    )
    counted = by_chance(images, results)["counted"]
    assert counted.to_dict() == {"selected": selected, "all": alone, "gain": together - ensemble}


def test_faces_read_the_wrong_way_round_recover_nothing(tmp_path):
    """A smile for a frown: all rows on preferences fail, and all on AU4 and AU12."""
    exchanged = np.arange(12)
    exchanged[[AU4, AU12]] = AU12, AU4
    table = verdicts(tuned_study(tmp_path, COHORT, lambda course: course[:, exchanged]))
    failing = table[table.index.str.contains(f"{ON_PREFERENCES}|frame by frame|activation values")]
    assert len(failing) == 7
    assert (failing == NOT_RECOVERED).all(), table


def test_nothing_planted_is_recovered_as_nothing(tmp_path):
    """At strength 0 every row holds: exclusions are the same, and faces tell no preference."""
    table = verdicts(study(tmp_path, replace(COHORT, strength=0.0)))
    assert "ensemble of scorers with AUs, gain on all pairs" in table.index
    assert (table == RECOVERED).all(), table


def test_something_where_nothing_was_planted_is_seen(spoilt):
    """Faces of strength 4 that are said to be of strength 0: all rows on preferences fail."""
    spoilt.synthetic_truth.write_text(json.dumps({"strength": 0.0}))
    table = verdicts(spoilt)
    failing = table[table.index.str.contains(ON_PREFERENCES)]
    assert len(failing) == 3
    assert (failing == NOT_RECOVERED).all(), table


def test_an_answer_that_somebody_else_lacks_is_seen(spoilt):
    """One answer of one more participant is blank."""
    path = spoilt.image_tables / "009.csv"
    table = pd.read_csv(path)
    table.loc[0, "blurry"] = np.nan
    table.to_csv(path, index=False)
    row = compare(spoilt).set_index("quantity").loc["the only participant without answers on issues, as config lists"]
    assert row.to_list() == ["008", "008, 009", "the same", NOT_RECOVERED]


def test_features_of_another_film_are_named(spoilt):
    """A feature file with a frame less than was injected."""
    path = spoilt.session("009", 2) / "reaction_clip_3_features.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(FergiError, match=r"1 of 180 feature files .*009/session_2/reaction_clip_3_features\.csv"):
        compare(spoilt)


def test_the_command_writes_and_prints_the_table(told, tmp_path, capsys):
    """As compare gives it, within 120 columns; in an empty folder it says what to run first."""
    recovery.main(["--root", str(told.root)])
    said = capsys.readouterr().out
    table = pd.read_csv(told.planted_recovered, dtype=str)
    assert table.equals(compare(told).astype(str))
    assert all(quantity[:30] in said for quantity in table["quantity"])
    assert max(map(len, said.splitlines()[:-1])) <= 120
    tuned_table(told, "scorer").unlink()
    with pytest.raises(FergiError, match=r"tuned_scorer\.csv\)\. Run python -m synthetic tuned --what scorer first"):
        recovery.main(["--root", str(told.root)])
    with pytest.raises(FergiError, match=r"synthetic\.json\)\. Run python -m synthetic cohort first\.$"):
        recovery.main(["--root", str(tmp_path)])
