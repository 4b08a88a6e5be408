"""Models for new people: probabilities, files, the script that fits them, and who sees what."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import STAGES
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from small_search import random_images, small_search

import config
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import Folders, read_image_reactions, read_valid_sessions
from fergi.files import FergiError
from fergi.preference.aucomb import AUcomb
from fergi.preference.grid_search import fit
from fergi.preference.logistic import fit_logistic, fit_slope
from fergi.preference.model import VALENCE_MODELS, PreferenceModel, held_out
from fergi.preference.pairs import pairs_of
from fergi.preference.results import search_preferences
from fergi.preference.valence_results import RELEASED_COLUMNS as FAU_NET_COLUMNS
from fergi.preference.valence_results import WITH_VALENCE, search_with_valence, selection_counts

GRIDS = {
    "decays": (0.5, 1.0, 0.5),
    "au4_weights": (0.0, 1.0, 0.25),
    "thresholds": (0.0, 0.3, 0.1),
    "ensemble_weights": (0.0, 1.0, 0.2),
    "integration_weights": (0.0, 4.0, 0.5),
    "incorrect_penalty": 2,
}
OPTIONS = config.VALENCE_MODELS | {"aucomb": GRIDS, "fau-net": config.VALENCE_MODELS["fau-net"] | {"steps": 5}}
SETTINGS = {"estimator": "fergi", "estimator_version": "published"}
FIT = "fit_preference_model"
TABLES = "preparation/preprocessed_reaction_data"


def ranked_reactions(seed=5, n_participants=5):
    """Random reactions with all AUs, scores and image numbers."""
    images = random_images(seed, n_participants, ties=False).sort_values(["participant", "session_index"])
    images["image_index"] = images.groupby(["participant", "session_index"]).cumcount() + 1
    for name in ACTIVATION_COLUMNS:
        images[name] = np.random.default_rng([seed, len(name)]).exponential(size=len(images))
    return images.reset_index(drop=True)


def fitted(name, images, **given):
    """A model of each kind with few steps and small grids."""
    return PreferenceModel.fit(name, images, OPTIONS[name], settings=SETTINGS, **given)


# ---- probabilities


def test_logistic_by_hand():
    """Differences of 1: three of four right give odds of 2 (n + 1 of n + 2 pairs count as right), so b = ln 2."""
    assert_allclose(fit_logistic(np.array([[1.0], [1], [1], [-1]])), [np.log(2)], rtol=1e-6)
    assert_allclose(fit_logistic(np.array([[10.0], [10], [10], [-10]])), [np.log(2) / 10], rtol=1e-6)
    # Two scores that never differ together: each as on its own, but that 6 pairs count as 7 of 8.
    both = np.array([[1.0, 0], [1, 0], [-1, 0], [0, 2], [0, 2], [0, -2]])
    assert_allclose(fit_logistic(both) * [1, 2], [np.log(15 / 9)] * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="no pair"):
        fit_logistic(np.zeros((0, 1)))


def test_slope_says_nothing_where_valence_is_wrong():
    """Never negative: such a model gives 1/2, not the opposite. Equal reactions give 1/2, too."""
    assert fit_slope(np.array([-1.0, -1, 0.5])) == 0
    assert fit_slope(np.zeros(3)) == 0
    model = PreferenceModel("aucomb", AUcomb(0.5, 0.5, 0.26), fit_slope(np.array([1.0, 1, 1, -1])))
    assert_allclose(model.probability(np.array([0, 1, -1, np.nan])), [1 / 2, 2 / 3, 1 / 3, np.nan])


# ---- fits


def test_fit_on_everybody_is_that_of_the_search():
    """AUcomb's k, w and d, and the ensemble's weights, are those of the grid search on everybody."""
    images = ranked_reactions()
    model, expected = fitted("aucomb", images, search=small_search()), fit(images, small_search())
    assert model.model.parameters() == {name: getattr(expected, name) for name in ("decay", "au4_weight", "threshold")}
    assert_array_equal(model.integration.ensemble_weights, expected.ensemble_weights)
    assert_array_equal(model.integration.mean, expected.mean)
    n_pairs = len(pairs_of(images))
    assert model.settings == SETTINGS | {"n_participants": 5, "n_pairs": n_pairs}


@hypothesis_settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_integration_is_that_of_the_search(seed, strict):
    """With AUcomb as one valence model of several, stage 9 counts what it counts with AUcomb's own search."""
    images, search = random_images(seed, 4, ties=False), small_search("paper", strict)
    models = AUcomb.fit(images, pairs_of(images), ~np.eye(4, dtype=bool), **GRIDS)
    try:
        expected = search_preferences(images, search)
    except ValueError:
        return
    found, _ = search_with_valence(images, models, search)
    for theirs, ours in (
        *zip(search_columns(), WITH_VALENCE.values(), strict=True),
        ("AUcomb_valence", "AUs_integrated"),
    ):
        for kind in ("correct", "incorrect"):
            name = theirs if theirs.endswith("_score") else f"{theirs}_score"
            mine = ours if ours.endswith("_score") else f"{ours}_score"
            assert found[f"{mine}_n_{kind}"].tolist() == expected[f"{name}_n_{kind}"].tolist()


def search_columns():
    """The integrated scores' names in AUcomb's results, in the order of ``WITH_VALENCE``."""
    return [name.replace("_AUs_", "_AUcomb_") for name in WITH_VALENCE.values()]


def test_selection_by_hand():
    """Two pairs, differences 2 and 1: half of them is the first; the other score is wrong there, then ties."""
    table = pd.DataFrame({"participant": "a", "session_index": [1, 1, 2, 2], "rank_score": [2, 1, 2, 1]})
    scores = pd.DataFrame({"by": [2.0, 0, 1, 0], "AUs_integrated_score": [0.0, 1, 3, 3]})
    found = selection_counts(scores, pairs_of(table)).set_index(["selected_by", "proportion", "score"])
    assert found.loc[("by", 0.5, "by")].tolist() == [2, 0]
    assert found.loc[("by", 0.5, "AUs_integrated_score")].tolist() == [0, 2]
    assert found.loc[("by", 1.0, "AUs_integrated_score")].tolist() == [1, 3]  # of a tie one order is right
    assert found.loc[("AUs_integrated_score", 0.5, "by")].tolist() == [2, 0]


@pytest.mark.parametrize("name", VALENCE_MODELS)
def test_what_cannot_be_fitted(name):
    """Too few people with pairs, tied ranks, a missing activation value."""
    images = ranked_reactions()
    for few in (images[images["participant"] == "p0"], images.drop_duplicates(["participant", "session_index"])):
        with pytest.raises(ValueError, match="at least 2 participants must have two ranked images"):
            fitted(name, few.reset_index(drop=True))
    with pytest.raises(ValueError, match="share a rank"):
        fitted(name, images.assign(rank_score=1.0))
    images.loc[3, "AU4_activation_value"] = np.nan
    with pytest.raises(ValueError, match="AU4 are missing"):
        fitted(name, images)


# ---- who sees what


@pytest.mark.parametrize("name", VALENCE_MODELS)
def test_image_numbers_are_not_seen(name):
    """Numbers permuted within sessions, and rows with them: every valence and probability stays, as does the fit."""
    images = ranked_reactions()
    rng = np.random.default_rng(8)
    other = images.assign(
        image_index=images.groupby(["participant", "session_index"])["image_index"].transform(rng.permutation)
    )
    other = other.sort_values(["participant", "session_index", "image_index"])
    first, second = (fitted(name, each.reset_index(drop=True)) for each in (images, other))
    assert_allclose(second.valence(images), first.valence(images), atol=1e-9)
    assert second.slope == pytest.approx(first.slope, abs=1e-6)
    key = ["participant", "session_index", "rank_score"]
    tables = []
    for each in (images, other):
        found = held_out(name, each.reset_index(drop=True), OPTIONS[name])
        of_image = found.images.assign(rank_score=each["rank_score"].to_numpy()).set_index(key)["valence"].sort_index()
        certain = found.pairs["probability"].where(found.pairs["first_preferred"], 1 - found.pairs["probability"])
        tables.append((of_image, np.sort(certain)))
    for ours, theirs in zip(*tables, strict=True):
        assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", VALENCE_MODELS)
def test_held_out_person_is_not_seen(name):
    """Their ranking reversed: what is said about them stays (but for 1 − (1 − p)), about the others it does not."""
    images = ranked_reactions()
    own = images["participant"] == "p2"
    reversed_ = images.assign(rank_score=images["rank_score"].where(~own, -images["rank_score"]))
    before, after = (held_out(name, each, OPTIONS[name]).pairs for each in (images, reversed_))
    of_them = before["participant"] == "p2"
    for column in ("difference", "probability", "probability_with_scorers"):
        assert_allclose(after.loc[of_them, column], before.loc[of_them, column], rtol=1e-12)
    assert (after["first_preferred"] != before["first_preferred"])[of_them].all()
    assert (after["probability"] != before["probability"])[~of_them].any()


@pytest.mark.parametrize(("excluded", "expected"), [(("002", "004", "039"), (2069, 685, 498)), ((), (2169, 707, 519))])
def test_aucomb_held_out_on_the_published_data(published, excluded, expected):
    """Without the three: 72.70 % of 685 pairs at its own thresholds, as in Table 1."""
    folders = Folders(published)
    sessions = {who: each for who, each in read_valid_sessions(folders).items() if who not in excluded}
    images = read_image_reactions(
        folders, sessions, image_columns=["rank_score"], activation_columns=ACTIVATION_COLUMNS
    )
    pairs = held_out("aucomb", images, config.VALENCE_MODELS["aucomb"]).pairs
    right = (pairs["difference"] != 0) & ((pairs["difference"] > 0) == pairs["first_preferred"])
    assert (right.sum(), pairs["selected"].sum(), right[pairs["selected"]].sum()) == expected
    assert ((pairs["probability"] - 0.5) * pairs["difference"] >= 0).all()


# ---- files


@pytest.mark.parametrize("name", VALENCE_MODELS)
@pytest.mark.parametrize("scorers", [False, True])
def test_file_keeps_everything(tmp_path, name, scorers):
    """Valence, probabilities and scores with scoring models are the same to the last bit after writing and reading."""
    images, path = ranked_reactions(), tmp_path / f"preference_{name}.json"
    model = fitted(name, images, search=small_search() if scorers else None, data={"tables": "abc"})
    model.save(path)
    loaded = PreferenceModel.load(path)
    assert_array_equal(loaded.valence(images), model.valence(images))
    assert_array_equal(loaded.probability([0.3]), model.probability([0.3]))
    assert (loaded.settings, loaded.data, loaded.threshold) == (model.settings, model.data, model.threshold)
    assert (loaded.integration is None) == (not scorers)
    if scorers:
        assert_array_equal(loaded.score_with_scorers(images), model.score_with_scorers(images))
        assert_array_equal(loaded.probability_with_scorers([0.3]), model.probability_with_scorers([0.3]))


@pytest.mark.parametrize(
    ("place", "value", "cause"),
    [
        (("format",), 2, "its format is 2, and this version reads 1"),
        (("valence_model",), "aucom", "it has a 'aucom', not one of aucomb, fau-net, linear"),
        (("parameters", "weights", "AU4"), None, "parameters.weights has no AU4"),
        (("parameters", "weights", "AU3"), 0.5, "parameters.weights has an unknown AU3"),
        (("parameters", "weights", "AU4"), float("nan"), "parameters.weights.AU4 is nan, not a finite number"),
        (("parameters", "weights", "AU4"), "0.5", "parameters.weights.AU4 is '0.5', not a finite number"),
        (("parameters", "weights", "AU4"), True, "parameters.weights.AU4 is True, not a finite number"),
        (("parameters", "weights"), {}, "parameters.weights is empty"),
        (("calibration", "slope"), [1.0], r"calibration.slope is \[1.0\], not a finite number"),
        (("calibration",), None, "the file has no calibration"),
        (("offset",), 0, "the file has an unknown offset"),
        (("settings", "estimator"), None, "settings has no estimator"),
        (("settings", "n_pairs"), 3.5, "settings.n_pairs is 3.5, not of type int"),
        (("integration", "mean", "PickScore"), None, "integration.mean has no PickScore"),
    ],
)
def test_other_files_are_refused(tmp_path, place, value, cause):
    """Unknown and missing keys, wrong kinds, numbers that are none, another format: one sentence, and what to do."""
    path = tmp_path / "preference_linear.json"
    fitted("linear", ranked_reactions(), search=small_search()).save(path)
    content = json.loads(path.read_text())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if value is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    if cause.endswith("has no AU4"):
        content["parameters"]["weights"] = {"AU12": 1.0, "AU-4": 1.0}
        cause = "unknown AU-4"
    path.write_text(json.dumps(content))
    with pytest.raises(FergiError, match=cause) as caught:
        PreferenceModel.load(path)
    assert str(caught.value).endswith("Make it with: fit_preference_model.py --valence linear")


def test_shapes_of_a_network_are_checked(tmp_path):
    """A weight too few, and a file that is none."""
    path = tmp_path / "preference_fau-net.json"
    fitted("fau-net", ranked_reactions()).save(path)
    content = json.loads(path.read_text())
    content["parameters"]["hidden_weight"][3].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(FergiError, match=r"parameters.hidden_weight\[3\] is not a list of 12"):
        PreferenceModel.load(path)
    path.write_text("[]")
    with pytest.raises(FergiError, match="the file is not an object"):
        PreferenceModel.load(path)
    with pytest.raises(FergiError, match="is missing"):
        PreferenceModel.load(path.with_name("preference_aucomb.json"))


# ---- the scripts


def test_fit_script(tiny, capsys):
    """Each model, its settings, and the checksums that cat and sha256sum would give."""
    for name in VALENCE_MODELS:
        tiny.run(FIT, "--valence", name)
    models = {name: PreferenceModel.load(tiny.path(f"AU_models/preference_{name}.json")) for name in VALENCE_MODELS}
    n_excluded = {name: model.settings["n_excluded"] for name, model in models.items()}
    assert n_excluded == {"aucomb": 1, "fau-net": 0, "linear": 1}
    assert [models[name].settings["n_pairs"] for name in VALENCE_MODELS] == [20, 21, 20]
    paths = [tiny.path(f"{TABLES}/{who}.csv") for who in ("101", "102", "103")]
    expected = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    assert models["linear"].data["preprocessed_reaction_data"] == expected
    assert all(model.integration is not None for model in models.values())
    state = torch.load(tiny.path("AU_models/preference_fau-net.pth"), weights_only=True)
    assert_allclose(state["hidden_layers.0.weight"], models["fau-net"].model.hidden_weight, atol=1e-7)
    assert "3 participants (1 excluded), 17 images with a valid reaction, 20 pairs." in capsys.readouterr().out
    tiny.run(FIT, "--everybody")
    assert PreferenceModel.load(tiny.path("AU_models/preference_linear.json")).settings["n_participants"] == 4


def test_fit_without_scores_and_without_some_units(tiny, capsys):
    """Rankings are enough. An estimator that gives no AU6: the linear model is fitted on the others, if asked to."""
    for table in tiny.root.glob("preparation/preprocessed_image_data/*.csv"):
        tiny.edit_table(
            table.relative_to(tiny.root), lambda images: images[["session_index", "image_index", "rank_score"]]
        )
    for table in tiny.root.glob(f"{TABLES}/*.csv"):
        tiny.edit_table(table.relative_to(tiny.root), lambda values: values.assign(AU6_activation_value=np.nan))
    tiny.edit_json(f"{TABLES}/settings.json", lambda settings: settings.update(missing_action_units=[6]))
    tiny.refuses(FIT, "The activation tables have no AU6", "--action-units 1 2 4 5 9 12 15 17 20 25 26")
    tiny.refuses(FIT, "needs AU6", options=("--valence", "fau-net"))
    tiny.refuses(FIT, "has no column ImageReward_score", options=("--valence", "aucomb", "--scorers"))
    tiny.run(FIT, "--action-units", "12", "4")
    assert "the image tables have no scores" in capsys.readouterr().out
    model = PreferenceModel.load(tiny.path("AU_models/preference_linear.json"))
    assert model.action_units == (4, 12)
    table = pd.read_csv(tiny.path(f"{TABLES}/101.csv"))
    assert np.isfinite(model.valence(table)).all()
    assert model.missing_units(table) == []
    incomplete = table.assign(AU12_activation_value=np.nan)
    assert (np.isnan(model.valence(incomplete)).all(), model.missing_units(incomplete)) == (True, [12])
    assert np.isnan(model.valence(table.drop(columns="AU4_activation_value"))).all()


def test_fit_script_refuses(tiny, capsys):
    """One person who ranked, tied ranks, an unknown AU, AUs for a model that has its own."""
    for options, cause in (
        (["--action-units", "3"], "invalid choice: 3"),
        (["--valence", "aucomb", "--action-units", "4"], "goes with"),
    ):
        with pytest.raises(SystemExit):
            tiny.run(FIT, *options)
        assert cause in capsys.readouterr().err
    name = "preparation/preprocessed_image_data/103.csv"
    tiny.edit_table(name, lambda images: images.assign(rank_score=1))
    tiny.refuses(FIT, "cannot be fitted", "participant 103, session", "share a rank")
    tiny.edit_json("preparation/AU4_excluded_participants.json", lambda names: names.extend(["101", "103"]))
    tiny.refuses(FIT, "at least 2 participants must have two ranked images", "1 of 1 have")


def test_other_valence_models_in_stage_9(tiny, capsys):
    """Their files stand beside AUcomb's; FAU-Net excludes nobody and repeats itself with other seeds."""
    before, results = tiny.snapshot(), "results/image_preference_binary_classification_based_on_ranking"
    tiny.run(STAGES[-1], "--valence", "linear", "--strict-lopo", "--mode", "released")
    tiny.run(STAGES[-1], "--valence", "linear", "--everybody")
    assert "4 participants (0 excluded)" in capsys.readouterr().out
    tiny.run(STAGES[-1], "--valence", "fau-net", "--seeds", "2")
    out = capsys.readouterr().out
    assert "4 participants (0 excluded)" in out
    assert [name in out for name in ("seed 0", "seed 1", "mean", "min", "max")] == [True] * 5
    suffixes = ("_linear_released_strict", "_linear_everybody", "_NN")
    written = {f"{results}{suffix}{each}.csv" for suffix in suffixes for each in ("", "_selection")}
    assert set(tiny.snapshot()) - set(before) == written
    assert {name: content for name, content in tiny.snapshot().items() if name in before} == before
    table = pd.read_csv(tiny.path(f"{results}_NN.csv"))
    assert tuple(table.columns) == FAU_NET_COLUMNS
    assert table[["AUs_integrated_score_n_correct", "AUs_integrated_score_n_incorrect"]].to_numpy().sum() == 21
    tiny.run(STAGES[-1], "--valence", "fau-net", "--everybody")  # the same, since nobody is excluded anyway
    assert pd.read_csv(tiny.path(f"{results}_NN.csv")).equals(table)
    with pytest.raises(SystemExit):
        tiny.run(STAGES[-1], "--seeds", "2")
