"""Annotation: planted preferences of synthetic people come back, abstentions by hand, and what the script refuses."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import snapshot
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose

import annotate_preferences
import config
from fergi import held_out
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import CLIP_KEY, Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.features import PUBLISHED_ESTIMATOR
from fergi.files import FergiError
from fergi.preference.annotation import Annotator, Certainties, Participant, decide
from fergi.preference.aucomb import AUcomb
from fergi.preference.grid_search import search_settings
from fergi.preference.matching import DistributionMap, activation_quantiles
from fergi.preference.model import PreferenceModel
from fergi.preference.model import held_out as annotate_held_out
from fergi.preference.results import TRAINED_SCORERS
from synthetic.cohort import REACTION, CohortSettings, plan_sessions

DRAWS = {"resamples": 500, "seed": 0}
SETTINGS = {**PUBLISHED_ESTIMATOR, "n_participants": 2, "n_pairs": 2}
QUANTILES = {f"AU{unit}_activation_value": np.linspace(0, 4, 201).tolist() for unit in (4, 12)}
# Eq. 5 with k = ln 2 and w = 1/2: an AU of 1 counts 1/4, of 2 counts 3/8. A slope of 4 ln 3 makes 1/4 a probability
# of 3/4, 1/8 one of sqrt(3)/(1 + sqrt(3)), and 1/2 one of 9/10.
BY_HAND = PreferenceModel(
    "aucomb", AUcomb(np.log(2), 0.5, 0.25), 4 * np.log(3), SETTINGS, activation_quantiles=QUANTILES
)


def planted(strength, seed=0):
    """What the cameras would see of the synthetic cohort: true activations, and how much each image is liked."""
    settings = CohortSettings(
        seed=seed,
        strength=strength,
        n_participants=32,
        n_sessions=8,
        reaction_seconds=1.0,
        baseline_seconds=0.5,
        n_black=0,
    )
    rows = []
    for participant, number, session in plan_sessions(settings):
        for place, image in enumerate(session.images):
            means = sliding_window_view(image.takes[REACTION].intensities, 3, axis=0).mean(axis=-1)
            rank = len(session.images) - session.ranking.index(place)
            rows.append((participant, number, place + 1, rank, image.preference, *(means.max(axis=0) - means[0])))
    columns = ["participant", *CLIP_KEY, "rank_score", "preference", *ACTIVATION_COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def write_people(root, people):
    """The tables of stage 7."""
    folders = Folders(root)
    folders.activation_tables("reaction").mkdir(parents=True, exist_ok=True)
    for name, table in people.groupby("participant"):
        path = folders.activation_tables("reaction") / f"{name}.csv"
        table.reindex(columns=[*CLIP_KEY, *ACTIVATION_COLUMNS]).to_csv(path, index=False)
    return folders


def fit_on(root, valence, people, others):
    """A model fitted on some people in ``AU_models/``, and the tables of others."""
    fitted = people.reset_index(drop=True)
    model = PreferenceModel.fit(valence, fitted, config.VALENCE_MODELS[valence], settings=PUBLISHED_ESTIMATOR)
    folders = write_people(root, others)
    model.save(folders.au_models / f"preference_{valence}.json")
    return folders


def run(root, *options):
    """The script; returns the table of pairs."""
    annotate_preferences.main(["--root", str(root), *map(str, options)])
    text = dict.fromkeys(["participant", "prompt", "verdict", "reason"], str)
    return pd.read_csv(
        Folders(root).preferences, dtype=text, keep_default_na=False, na_values={"probability_first": [""]}
    )


@pytest.mark.parametrize("valence", ["linear", "aucomb"])
def test_planted_preferences_of_people_who_never_ranked_come_back_at_the_stated_probability(tmp_path, valence, capsys):
    """Fitted on 20 people, 12 others are annotated; the intervals of what is expected and of what is found overlap."""
    people = planted(4.0)
    others = people["participant"] >= "028"
    folders = fit_on(tmp_path, valence, people[~others], people[others])
    liked = people.set_index(["participant", *CLIP_KEY])["preference"]
    for minimum, right in ((0.5, 0.7), (0.7, 0.85), (0.8, 0.88)):
        pairs = run(tmp_path, "--valence", valence, "--minimum-probability", minimum)
        expected = re.search(r"right: (\S+) % \[(\S+), (\S+)\] of (\d+) verdicts", capsys.readouterr().out)
        assert len(pairs) == 12 * 8 * 10 and pairs["probability_first"].notna().all()
        decided = pairs[pairs["verdict"] != "abstain"]
        assert len(decided) == int(expected[4]) > 0.4 * len(pairs)
        first, second = (
            liked.loc[pd.MultiIndex.from_frame(decided[["participant", "session_index", f"{side}_image"]])].to_numpy()
            for side in ("first", "second")
        )
        table = held_out.calibration_table(decided.assign(first_preferred=first > second), (0.5, 1.0), **DRAWS)
        middle, lower, upper = (float(expected[each]) for each in (1, 2, 3))
        assert table["said"].item() == pytest.approx(middle, abs=0.06)
        assert lower <= table["upper"].item() and table["lower"].item() <= upper
        assert table["found"].item() > 100 * right
    surest = run(tmp_path, "--valence", valence, "--coverage", "0.2")
    assert 0.15 < (surest["verdict"] != "abstain").mean() <= 0.2
    assert json.loads(folders.preferences_settings.read_text())["coverage"] == 0.2


def test_where_nothing_is_planted_it_abstains(tmp_path, capsys):
    people = planted(0.0)
    others = people["participant"] >= "028"
    for valence in ("linear", "aucomb"):
        fit_on(tmp_path, valence, people[~others], people[others])
        pairs = run(tmp_path, "--valence", valence)
        assert (pairs["verdict"] == "abstain").all() and (pairs["reason"] == "difference too small").all()
        assert pairs["probability_first"].between(0.35, 0.65).all()
        assert "0 have a verdict, 0.0 % of those.\n" in capsys.readouterr().out


# By hand -----------------------------------------------------------------------------------------------------------


def reactions(rows):
    """A table of reactions from (session, image, AU4, AU12), other AUs 0."""
    table = pd.DataFrame(0.0, index=range(len(rows)), columns=[*CLIP_KEY, *ACTIVATION_COLUMNS])
    table[[*CLIP_KEY, "AU4_activation_value", "AU12_activation_value"]] = rows
    return table.astype(dict.fromkeys(CLIP_KEY, int))


# Valences 1/4, 0, −3/8 in session 1, whose fourth reaction is invalid; the first image of session 2 is black.
SEEN = [(1, 1, 0, 1), (1, 2, 0, 0), (1, 3, 2, 0), (2, 2, 0, 0), (2, 3, 0, 0)]


def test_pairs_and_abstentions_by_hand():
    person = Participant("a", {1: 4, 2: 3, 5: 1}, reactions(SEEN), frozenset({(2, 1)}), {1: "a cat"})
    pairs = decide(Annotator(BY_HAND).pairs(person), 0.8)
    assert list(pairs) == [
        *("participant", "session_index", "prompt", "first_image", "second_image", "first_valence", "second_valence"),
        *("probability_first", "verdict", "reason"),
    ]
    found = [tuple(row) for row in pairs[["session_index", "first_image", "second_image", "verdict", "reason"]].values]
    assert found == [
        (1, 1, 2, "abstain", "difference too small"),
        (1, 1, 3, "first", ""),
        (1, 1, 4, "abstain", "invalid reaction"),
        (1, 2, 3, "first", ""),
        (1, 2, 4, "abstain", "invalid reaction"),
        (1, 3, 4, "abstain", "invalid reaction"),
        (2, 1, 2, "abstain", "black image"),
        (2, 1, 3, "abstain", "black image"),
        (2, 2, 3, "abstain", "difference too small"),
    ]
    assert_allclose(pairs["probability_first"][[0, 1, 3]], [0.75, 3**2.5 / (1 + 3**2.5), 3**1.5 / (1 + 3**1.5)])
    assert_allclose(pairs["first_valence"][:4], [0.25, 0.25, 0.25, 0.0])
    assert pairs["probability_first"].isna().sum() == 5
    assert pairs["prompt"].isna().tolist() == [False] * 6 + [True] * 3
    assert (decide(pairs, 0.75)["verdict"] == "first").sum() == 3  # 0.75 is enough
    assert (decide(pairs, 0.5)["verdict"] == "abstain").sum() == 6  # a tie is not decided


def test_a_missing_unit_an_excluded_participant_and_missing_scores_are_reasons():
    person = Participant("a", {1: 2}, reactions(SEEN[:2]).assign(AU12_activation_value=np.nan))
    assert Annotator(BY_HAND).pairs(person)["reason"].item() == "missing AU12"
    person = Participant("a", {1: 2}, reactions(SEEN[:2]), excluded=True)
    assert Annotator(BY_HAND).pairs(person)["reason"].item() == "participant excluded"
    people = planted(4.0).query("participant < '012'")
    scored = people.assign(**{name: people["preference"] + place for place, name in enumerate(TRAINED_SCORERS)})
    model = PreferenceModel.fit(
        "linear", scored, {"ridge": 0.3}, search=search_settings("paper", **config.PREFERENCE_SEARCH),
        settings=PUBLISHED_ESTIMATOR,
    )  # fmt: skip
    own = scored.query("participant == '008' and session_index == 1").reset_index(drop=True)
    person = Participant("008", {1: 5}, own, scores=own.loc[own["image_index"] != 2, [*CLIP_KEY, *TRAINED_SCORERS]])
    person.reactions.drop(columns=list(TRAINED_SCORERS), inplace=True)
    pairs = Annotator(model, with_scorers=True).pairs(person)
    assert (pairs["reason"] == "no scores").tolist() == [
        2 in row for row in pairs[["first_image", "second_image"]].values
    ]
    # The scores are exactly how much images are liked, so that hardly a doubt is left.
    liked = own.set_index("image_index")["preference"][:5]
    known = decide(pairs, 0.5).query("verdict != 'abstain'")
    assert (liked.loc[known["first_image"]].to_numpy() > liked.loc[known["second_image"]].to_numpy()).tolist() == (
        known["verdict"] == "first"
    ).tolist()


@pytest.mark.parametrize("valence", ["linear", "aucomb", "fau-net"])
def test_no_model_sees_the_numbers_of_images(valence):
    """Numbers permuted: the same fit, and each image keeps its valence."""
    people = planted(4.0).query("participant < '014' and session_index < 4").reset_index(drop=True)
    rng = np.random.default_rng(0)
    permuted = people.assign(
        image_index=people.groupby(["participant", "session_index"])["image_index"].transform(rng.permutation)
    )
    permuted = permuted.sample(frac=1, random_state=0).reset_index(drop=True)
    options = {name: value for name, value in config.VALENCE_MODELS[valence].items() if name != "steps"}
    options |= {"steps": 20} if valence == "fau-net" else {}
    found = [annotate_held_out(valence, table, options).images for table in (people, permuted)]
    same = [table["preference"].to_numpy() for table in (people, permuted)]  # says which image is which
    one, other = (each["valence"].to_numpy()[np.argsort(key)] for each, key in zip(found, same, strict=True))
    assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_threshold_of_a_coverage():
    """Ten pairs, two of them equally sure at 0.8: a share of 0.3 is reached without them, one of 0.4 with them."""
    first = np.array([0.99, 0.05, 0.9, 0.8, 0.2, 0.7, 0.6, 0.55, 0.5, np.nan, 0.52])
    certainties, table = Certainties(), pd.DataFrame({"probability_first": first, "reason": ""})
    certainties.add(table[:4])
    certainties.add(table[4:])
    for coverage, n in ((0.1, 1), (0.3, 3), (0.4, 3), (0.49, 3), (0.5, 5), (1.0, 9)):
        decided = decide(table, certainties.minimum_probability(coverage))
        assert (decided["verdict"] != "abstain").sum() == n
    with pytest.raises(FergiError, match=r"1 of 10 pairs are equally sure, .* than the share 0\.05"):
        certainties.minimum_probability(0.05)


def test_figures_on_held_out_people_by_hand():
    """Two people, four pairs: right at 0.9, wrong at 0.8, right at 0.6 (later preferred), and a tie."""
    rows = [("a", 1, 1, 2, 1, 0.9), ("a", 1, 1, 3, 0, 0.8), ("a", 1, 2, 3, 0, 0.4), ("b", 1, 1, 2, 1, 0.5)]
    names = ["participant", "session_index", "first_image", "second_image", "first_preferred", "probability_first"]
    table = pd.DataFrame(rows, columns=names).assign(model="aucomb", difference=0.0, selected=[1.0, 1.0, 0.0, 0.0])
    found = held_out.summary(table, **DRAWS)["estimate"]
    assert found["accuracy"] == 50.0  # a tie is not right
    assert found["order-balanced"] == 50.0  # 1 of 2, and 1 of 2
    assert found["at its thresholds"] == 50.0
    assert found["log loss"] == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.5]).mean())
    bins = held_out.calibration_table(table, (0.5, 0.75, 1.0), **DRAWS)
    assert_allclose(bins[["n_pairs", "said", "found"]], [[2, 55, 75], [2, 85, 50]])
    assert found["calibration error"] == pytest.approx((2 * 35 + 40 + 0) / 4)  # 0.8 and 0.9 share a bin
    covered = held_out.accuracy_by_coverage(table, (0.25, 0.5, 1.0), **DRAWS)
    assert_allclose(
        covered[["coverage", "minimum_probability", "accuracy"]], [[0.25, 0.9, 100], [0.5, 0.8, 50], [1, 0.5, 50]]
    )


def test_published_people_by_models_that_never_saw_them(published_root):
    """AUcomb at its own thresholds: 72.70 % of 685; on all pairs 58.55 %, order-balanced 58.3; linear 59.7."""
    folders = Folders(published_root)
    sessions = read_valid_sessions(folders)
    for excluded in read_excluded_participants(folders, sessions):
        del sessions[excluded]
    table = read_image_reactions(folders, sessions, image_columns=["rank_score"], activation_columns=ACTIVATION_COLUMNS)
    figures = {}
    for name in ("aucomb", "linear"):
        pairs = annotate_held_out(name, table, config.VALENCE_MODELS[name]).pairs
        predictions = held_out.as_predictions(name, pairs)
        figures[name] = held_out.summary(predictions, **DRAWS)
        bins = held_out.calibration_table(predictions, **DRAWS)
        assert ((bins["lower"] <= bins["said"]) & (bins["said"] <= bins["upper"])).sum() >= len(bins) - 2
        covered = held_out.accuracy_by_coverage(predictions, (0.1, 1.0), **DRAWS)["accuracy"]
        assert covered[0] > 70 > 62 > covered[1]
    aucomb, linear = figures["aucomb"], figures["linear"]
    assert aucomb.loc["at its thresholds", ["estimate", "n_pairs"]].tolist() == [pytest.approx(100 * 498 / 685), 685]
    assert aucomb.loc["accuracy", ["estimate", "n_pairs"]].tolist() == [pytest.approx(100 * 2069 / 3534), 3534]
    assert aucomb.loc["order-balanced", "estimate"] == pytest.approx(58.25, abs=0.01)
    assert linear.loc["accuracy", "estimate"] == pytest.approx(59.7, abs=0.1)
    for table in figures.values():
        assert 0.64 < table.loc["log loss", "estimate"] < 0.67
        assert table.loc["calibration error", "estimate"] < 4


# The script --------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """One person, 101, with the reactions of ``SEEN`` and the model worked out by hand; no other file."""
    folders = write_people(tmp_path, reactions(SEEN).assign(participant="101"))
    BY_HAND.save(folders.au_models / "preference_aucomb.json")
    return tmp_path


def test_which_images_there_are(root):
    """From features, videos, pictures, ``data.json``, the list of black images and the table; prompts with commas."""
    folders = Folders(root)
    for session, name in ((1, "reaction_clip_4_features.csv"), (2, "baseline_clip_2.MP4"), (3, "image2.png")):
        folders.session("101", session).mkdir(parents=True)
        (folders.session("101", session) / name).touch()
    folders.session("101", 4).mkdir()
    (folders.session("101", 4) / "data.json").write_text(
        json.dumps({"prompt": 'a "red", cat\nat noon', "survey": [0] * 3})
    )
    (folders.session("101", 4) / "notes.txt").touch()
    assert {each: n for each, n in count_pairs(run(root, "--valence", "aucomb"))} == {1: 6, 2: 3, 3: 1, 4: 3}
    folders.valid_sessions.write_text('{"101": [1, 2, 4]}')
    folders.black_images.write_text('{"101": {"1": [5], "2": [1]}}')
    folders.excluded_participants.write_text("[]")
    pairs = run(root, "--valence", "aucomb", "--minimum-probability", "0.5")
    assert {each: n for each, n in count_pairs(pairs)} == {1: 10, 2: 3, 4: 3}
    assert pairs.loc[pairs["session_index"] == 4, "prompt"].tolist() == ['a "red", cat\nat noon'] * 3
    assert pairs["reason"].value_counts().to_dict() == {
        "": 3, "black image": 6, "invalid reaction": 6, "difference too small": 1,
    }  # fmt: skip
    settings = json.loads(folders.preferences_settings.read_text())
    assert (settings["valence_model"], settings["minimum_probability"], settings["match_distribution"]) == (
        "aucomb",
        0.5,
        False,
    )
    assert (settings["estimator"], settings["estimator_version"]) == ("fergi", "published")
    folders.excluded_participants.write_text('["101"]')
    with pytest.raises(
        FergiError,
        match=r"None of 16 pairs .* in 3 sessions of 1 participants .* participant excluded.*Take --valence linear",
    ):
        run(root, "--valence", "aucomb")


def count_pairs(pairs):
    return pairs["session_index"].value_counts().items()


def refuses(root, *options):
    """What the script says when it stops; every file is as it was."""
    before = snapshot(root)
    with pytest.raises(FergiError) as caught:
        annotate_preferences.main(["--root", str(root), *map(str, options)])
    assert "\n" not in str(caught.value)
    assert snapshot(root) == before
    return str(caught.value)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def table_of(root, table):
    write_people(root, table.assign(participant="101"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: shutil.rmtree(root / "preparation"), r"no tables of activation values .*reaction_data\.py first"),
        (
            lambda root: table_of(root, reactions([(1, 1, 0, 0), (3, 1, 0, 0)])),
            "No session of 2 sessions .* has two images",
        ),
        (lambda root: table_of(root, reactions([(1, 0, 0, 0)])), r"101\.csv or a list names the image 0 of session 1"),
        (lambda root: table_of(root, reactions([(1, 10**7, 0, 0)])), "names the image 10000000 of session 1"),
        (
            lambda root: table_of(root, reactions([(1, 2, 0, 0), (2, 3, 0, 0)])),
            r"None of 4 pairs .*\(4 invalid reaction\)",
        ),
        (
            lambda root: Folders(root).black_images.write_text('{"101": {"1": [1, 2, 3], "2": [1, 2, 3]}}'),
            r"None of 6 pairs .*\(6 black image\)\. Record",
        ),
        (
            lambda root: table_of(root, reactions(SEEN).assign(AU4_activation_value=np.nan)),
            r"\(4 missing AU4, 2 invalid reaction\)\. Take --valence aucomb, or fit",
        ),
        (
            lambda root: Folders(root).activation_tables("reaction").joinpath("101.csv").write_text("a\n1\n"),
            "no column",
        ),
        (lambda root: (root / "AU_models/preference_aucomb.json").unlink(), "fit_preference_model.py --valence aucomb"),
        (
            lambda root: rewrite(root / "AU_models/preference_aucomb.json", format=2),
            "is no preference model: its format is 2, and this version reads 1",
        ),
        (
            lambda root: rewrite(root / "AU_models/preference_aucomb.json", parameters={"AU3": 1}),
            "is no preference model: parameters has no decay",
        ),
        (
            lambda root: (Folders(root).activation_tables("reaction") / "settings.json").write_text(
                '{"estimator": "blendshapes", "estimator_version": "1"}'
            ),
            r"come from the estimator blendshapes \(1\), and the preference model was fitted on values of fergi",
        ),
        (
            lambda root: Folders(root).valid_sessions.write_text('{"101": [1], "102": [1]}'),
            "1 of 2 participants has no",
        ),
        (
            lambda root: [
                Folders(root).session("101", 1).mkdir(parents=True),
                (Folders(root).session("101", 1) / "data.json").write_text('{"prompt": 3}'),
            ],
            r"session_1/data\.json has no prompt",
        ),
        (lambda root: (root / "results").write_text("a file"), r"Cannot write into .*results: .*choose another --root"),
    ],
)
def test_what_cannot_be_annotated_is_said_in_one_sentence(root, spoil, sentence):
    spoil(root)
    assert re.search(sentence, refuses(root, "--valence", "aucomb"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--with-scorers"], r"preference_aucomb\.json was fitted without scoring models"),
        (["--match-distribution"], "There are 5 valid reactions, and mapping their distribution needs 50"),
        (["--model", "nowhere.json"], r"nowhere\.json"),
        (["--model", "narrow.json", "--match-distribution"], "has no distribution of AU12"),
        (["--export", "hpd-v3", "--out", "preparation"], "is no empty folder. Move it away or change --out"),
        (["--export", "hpd-v3", "--out", "preparation/preprocessed_reaction_data/101.csv/x"], "Cannot write"),
        (
            ["--export", "hpd-v3", "--out", "new"],
            "nothing to export as hpd-v3: of 3 pairs with a verdict, 0 are .* 3 lack",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(root, options, sentence, monkeypatch):
    monkeypatch.chdir(root)
    narrow = {name: QUANTILES[name] for name in ("AU4_activation_value",)}
    replace(BY_HAND, activation_quantiles=narrow).save(root / "narrow.json")
    valence = [] if "--model" in options else ["--valence", "aucomb"]
    assert re.search(sentence, refuses(root, *valence, *options))


@pytest.mark.parametrize(
    "options",
    [
        *(["--coverage", "0"], ["--minimum-probability", "0.4"], ["--export", "hpd-v3"], ["--hard-labels"]),
        *(["--everybody"], ["--held-out", "--with-scorers"]),
    ],
)
def test_impossible_options(root, options):
    with pytest.raises(SystemExit):
        run(root, *options)


def test_held_out_writes_the_three_models_side_by_side(tiny, capsys):
    """On four people, of whom stage 8 excludes one; the table is read again by what shows it."""
    tiny.run("annotate_preferences", "--held-out")
    table = held_out.read_held_out(Folders(tiny.root))
    assert table["model"].value_counts().to_dict() == dict.fromkeys(["aucomb", "fau-net", "linear"], 3 + 3 + 3 + 1 + 10)
    assert set(table["participant"]) == {"101", "102", "103"}
    assert table.groupby("model")["selected"].apply(lambda each: each.notna().all()).to_dict() == {
        "aucomb": True, "fau-net": False, "linear": False,
    }  # fmt: skip
    assert re.search(r"\n +AUcomb +FAU-Net +linear\naccuracy +\d+\.\d\d \[", capsys.readouterr().out)
    tiny.run("annotate_preferences", "--held-out", "--everybody")
    assert "104" in set(held_out.read_held_out(Folders(tiny.root))["participant"])
    Folders(tiny.root).preferences_held_out.unlink()
    with pytest.raises(
        FergiError, match=r"held_out\.csv does not exist\. Run annotate_preferences\.py --held-out first"
    ):
        held_out.read_held_out(Folders(tiny.root))


# Another estimator -------------------------------------------------------------------------------------------------


def test_ranks_are_mapped_by_hand():
    """Own values 1–100, the model's quantiles 0–2 evenly: the value with rank (i − ½)/100 becomes twice that."""
    own = pd.DataFrame(dict.fromkeys(ACTIVATION_COLUMNS, np.arange(1.0, 101))).assign(AU9_activation_value=np.nan)
    mapped = DistributionMap([own[:30], own[30:]], {name: np.linspace(0, 2, 5) for name in ACTIVATION_COLUMNS[:6]})
    found = mapped(own)
    assert mapped.n_reactions == 100
    assert_allclose(found["AU4_activation_value"], 2 * (np.arange(1, 101) - 0.5) / 100)
    assert found["AU9_activation_value"].isna().all()
    assert_allclose(found["AU12_activation_value"], own["AU12_activation_value"])  # the model knows nothing of it
    ties = own.assign(AU4_activation_value=np.repeat([0.0, 5.0], [40, 60]))
    mapped = DistributionMap([ties], {"AU4_activation_value": np.linspace(0, 2, 5)})(ties)["AU4_activation_value"]
    assert_allclose(mapped.unique(), [2 * 0.2, 2 * 0.7])  # the middle of the ranks


def test_another_scale_leaves_verdicts_nearly_as_they_are(tmp_path, capsys):
    """Values of a strange estimator, a monotone function of the true ones, are mapped back by rank."""
    people = planted(4.0)
    others = people["participant"] >= "028"
    folders = fit_on(tmp_path, "linear", people[~others], people[others])
    expected = run(tmp_path)
    values = people.loc[others, list(ACTIVATION_COLUMNS)]
    strange = people[others].assign(**{name: np.sqrt(values[name]) / 7 for name in values})
    write_people(tmp_path, strange)
    settings = {"estimator": "other", "estimator_version": "2.0"}
    (folders.activation_tables("reaction") / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(FergiError, match=r"estimator other \(2\.0\), .* or map the values with --match-distribution"):
        run(tmp_path)
    capsys.readouterr()
    found = run(tmp_path, "--match-distribution")
    assert "values of other were mapped by rank" in capsys.readouterr().out
    kept = json.loads(folders.preferences_settings.read_text())
    assert (kept["estimator"], kept["match_distribution"], kept["matched_reactions"]) == ("other", True, 12 * 8 * 5)
    both = (found["verdict"] != "abstain") & (expected["verdict"] != "abstain")
    assert both.mean() > 0.4 and (found["verdict"] == expected["verdict"])[both].mean() > 0.99
    assert np.corrcoef(found["probability_first"], expected["probability_first"])[0, 1] > 0.97
    assert activation_quantiles(strange.drop(columns="AU4_activation_value")).keys() == set(ACTIVATION_COLUMNS) - {
        "AU4_activation_value"
    }


def test_another_checkpoint_of_the_same_network_is_said(root, capsys):
    version = {"estimator": "fergi", "estimator_version": "0123456789abcdef"}
    (Folders(root).activation_tables("reaction") / "settings.json").write_text(json.dumps(version))
    run(root, "--valence", "aucomb")
    assert "AU model published, and these come from its version 0123456789ab." in capsys.readouterr().out
