"""fergi/figures.py: what is drawn is worked out by hand or with NumPy, and read back from the figures."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose
from PIL import Image

import config
from fergi import figures, paper
from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.examples import Example
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.preference.grid_search import Search, search_settings
from fergi.preference.results import ENSEMBLE, SCORERS, VALENCE, search_preferences
from fergi.script import CHECKOUT
from fergi.statistics import EMOTIONS, emotion_rank_sums, rating_correlations

LN2 = np.log(2)


def boxes(axes):
    """Left edge, first quartile, width and third quartile of each box, and the medians, in the order drawn."""
    edges = [patch for patch in axes.patches if patch.get_gid() == "box"]
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_gid() == "median"]
    return [(b.get_x(), b.get_y(), b.get_width(), b.get_y() + b.get_height()) for b in edges], medians


def fills(axes):
    """Colour of each filled part of the boxes, from left to right."""
    parts = [patch for patch in axes.patches if patch.get_gid() != "box"]
    return [to_rgb(part.get_facecolor()) for part in sorted(parts, key=lambda part: part.get_x())]


def texts(figure):
    """All that is written in a figure."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def panels(figure):
    """The panels that hold boxes."""
    return [axes for axes in figure.axes if axes.axison]


@pytest.fixture
def images():
    """Ten images per rating 1–7 and five without one, by two people; the activations are drawn numbers."""
    rng = np.random.default_rng(3)
    rating = np.repeat(np.arange(8), [5, *[10] * 7])
    table = pd.DataFrame({"participant": np.resize(["a", "b"], len(rating)), "overall_rating": rating})
    for emotion in EMOTIONS:
        table[emotion] = rng.integers(0, 2, len(table))
    for unit in ACTION_UNITS:
        table[f"AU{unit}_activation_value"] = rng.exponential(0.3, len(table))
    return table


def correlations(*, rating=(), extremity=(), negative=()):
    """A table of correlations in which the AUs named are significant, with positive ρ except those in ``negative``."""
    table = pd.DataFrame(
        {"rating_rho": 0.1, "rating_p": 1.0, "extremity_rho": 0.1, "extremity_p": 1.0},
        index=pd.Index(ACTION_UNITS, name="AU"),
    )
    table.loc[list(rating), "rating_p"] = 1e-9
    table.loc[list(extremity), "extremity_p"] = 1e-9
    table.loc[list(negative), ["rating_rho", "extremity_rho"]] = -0.1
    return table


def rank_sums(units):
    """A table of rank-sum tests in which the AUs given for each emotion are significant."""
    table = pd.DataFrame(1.0, index=ACTION_UNITS, columns=[f"{emotion}_p" for emotion in EMOTIONS])
    for emotion, significant in units.items():
        table.loc[list(significant), f"{emotion}_p"] = 1e-9
    return table


# --------------------------------------------------------------------------- what is drawn


def test_marked_puts_an_asterisk_below_the_threshold():
    """The threshold is 0.05 / 96 = 0.00052."""
    values = pd.DataFrame({"z": [1.234, -5.678]}, index=[1, 2])
    shown = figures.marked(values, pd.DataFrame({"p": [0.00053, 0.00052]}))
    assert shown["z"].to_list() == ["1.23", "-5.68 *"]


def test_rating_units_are_in_the_order_of_figure_3():
    """Only rating, only extremity, both; the significant sets are those that Section 6.1 prints."""
    table = correlations(rating=(2, 4, 9, 12), extremity=(1, 2, 5, 12, 20))
    units = figures.rating_units(table)
    assert list(units.index) == [4, 9, 1, 5, 20, 2, 12]
    assert units["rating_rho"].isna().to_list() == [False, False, True, True, True, False, False]
    assert units["extremity_rho"].isna().to_list() == [True, True, False, False, False, False, False]


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
    table = figures.pair_predictions(images, results)
    assert table["participant"].to_list() == ["b", "c"]
    assert_allclose(table["difference"], [0.25, 0.3], atol=1e-9)
    assert table["selected"].to_list() == [False, True]
    assert table[VALENCE].to_list() == [True, False]
    assert table[ENSEMBLE].to_list() == [True, False]


def test_pair_predictions_use_the_means_of_the_others(two_people):
    """With equal weights b's order depends on the standard deviations among c's images, and the other way round.

    c's images: sd of ImageReward 1/√2, of PickScore 2/√2. b's images differ by +1 and −1: z differences √2 and −√2/2,
    so ImageReward wins; with b's own deviations it would be a tie, which is not right.
    """
    images, results = two_people
    images.loc[[2, 3], "PickScore"] = [8.0, 9.0]
    results.loc[1, ["ImageReward_weight", "PickScore_weight"]] = [0.5, 0.5]
    assert figures.pair_predictions(images, results)[ENSEMBLE].to_list() == [True, False]
    images.loc[0, "PickScore"] = 8.9  # now c's PickScore varies less, and PickScore wins
    assert figures.pair_predictions(images, results)[ENSEMBLE].to_list() == [False, False]


def test_pair_predictions_refuse_results_of_other_people(two_people):
    """Results made before somebody was left out do not fit the images."""
    images, results = two_people
    with pytest.raises(ValueError, match="the results are of 1 participants, the images of 2"):
        figures.pair_predictions(images, results[:1])


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
    curve = figures.selection_curve(predictions, resamples=200, seed=0)
    assert curve["difference"].to_list() == [0.5, 0.4, 0.1]
    assert curve["n_selected"].to_list() == [1, 3, 4]
    assert curve["share"].to_list() == [25, 75, 100]
    assert_allclose(curve[VALENCE], [100, 200 / 3, 50])
    assert_allclose(curve[ENSEMBLE], [100, 200 / 3, 75])


def test_selection_curve_draws_people_and_not_pairs(predictions):
    """Of all pairs, a has 1 of 2 right and b 1 of 2: 50 % whoever is drawn. The ensemble: a 2 of 2, b 1 of 2."""
    last = figures.selection_curve(predictions, resamples=200, seed=0).iloc[-1]
    assert (last[f"{VALENCE}_lower"], last[f"{VALENCE}_upper"]) == (50, 50)
    assert (last[f"{ENSEMBLE}_lower"], last[f"{ENSEMBLE}_upper"]) == (50, 100)


def test_selection_curve_can_be_thinned_but_keeps_its_ends(predictions):
    """Two points are the largest difference and all pairs."""
    assert figures.selection_curve(predictions, resamples=1, seed=0, points=2)["n_selected"].to_list() == [1, 4]


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
    objective = figures.objective_by_decay_and_threshold(two_people[0], search)
    assert objective.index.to_list() == [1.0]
    assert objective.columns.to_list() == [0.0, 0.2, 1.0]
    assert objective.to_numpy().tolist() == [[-1, 1, 0]]


# --------------------------------------------------------------------------- drawing


def test_figure_3_boxes_are_quartiles_of_the_rated_images(images):
    """Seven boxes a panel, from NumPy's quartiles; images without a rating do not count; nothing else is drawn."""
    figure = figures.rating_figure(images, correlations(rating=(4,), extremity=(12,)))
    assert len(panels(figure)) == 2
    for axes, unit in zip(panels(figure), (4, 12), strict=True):
        drawn, medians = boxes(axes)
        groups = [images.loc[images["overall_rating"] == r, f"AU{unit}_activation_value"] for r in range(1, 8)]
        assert_allclose([(low, high) for _, low, _, high in drawn], [np.percentile(g, [25, 75]) for g in groups])
        assert_allclose(medians, [np.median(group) for group in groups])
        assert_allclose([left + width / 2 for left, _, width, _ in drawn], range(1, 8))
        assert len(axes.lines) == 7
        assert axes.get_ylim()[0] == 0
    assert any("70 in all" in text and "10, 10, 10, 10\n10, 10, 10" in text for text in texts(figure))


def test_figure_3_panels_name_the_au_and_what_is_significant(images):
    """The seven panels of the paper, in its order; the colour is never alone in saying what is significant."""
    table = correlations(rating=(2, 4, 9, 12), extremity=(1, 2, 5, 12, 20), negative=(4, 9))
    titles = [axes.get_title(loc="left").split("\n") for axes in panels(figures.rating_figure(images, table))]
    assert [title[0] for title in titles] == [
        "(a) AU4",
        "(b) AU9",
        "(c) AU1",
        "(d) AU5",
        "(e) AU20",
        "(f) AU2",
        "(g) AU12",
    ]
    assert titles[0][1:] == ["ρ = −0.10 (rating)"]
    assert titles[2][1:] == ["ρ = 0.10 (extremity)"]
    assert titles[6][1:] == ["ρ = 0.10 (rating)", "ρ = 0.10 (extremity)"]


def test_figure_3_colours(images):
    """Blue left and brown right where both are significant; darker towards more activation, by the sign of ρ."""
    both, falling = panels(figures.rating_figure(images, correlations(rating=(2, 4), extremity=(2,), negative=(4,))))[
        ::-1
    ]
    colours = fills(both)
    assert len(colours) == 14
    blue, brown = colours[::2], colours[1::2]
    assert all(b > r for r, _, b in blue)
    assert all(r > b for r, _, b in brown)
    lightness = np.array([sum(colour) for colour in blue])
    assert (np.diff(lightness) < 0).all()  # positive ρ: darkest at rating 7
    lightness = np.array([sum(colour) for colour in brown])
    assert (np.diff(lightness[3:]) < 0).all()
    assert_allclose(lightness, lightness[::-1], atol=1e-9)  # ratings 1 and 7 are equally extreme
    assert (np.diff([sum(colour) for colour in fills(falling)]) > 0).all()  # negative ρ: darkest at rating 1


def test_figure_3_without_a_significant_au(images):
    """The AU with the smallest p for the rating and that for the extremity are drawn, and called what they are."""
    table = correlations()
    table.loc[12, "rating_p"], table.loc[4, "extremity_p"] = 0.01, 0.02
    figure = figures.rating_figure(images, table)
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    assert titles == ["(a) AU12\nρ = 0.10 (rating)", "(b) AU4\nρ = 0.10 (extremity)"]
    assert [len(boxes(axes)[0]) for axes in panels(figure)] == [7, 7]
    assert figure.get_suptitle().startswith("No AU is significant after the Bonferroni correction")
    assert not [text for text in texts(figure) if text.startswith("significant")]


def test_figure_3_without_anything_to_show(images):
    """No AU that moves, and a rating that nobody gave: a figure all the same."""
    figure = figures.rating_figure(images, correlations() * np.nan)
    assert "No AU is significant." in texts(figure)
    assert not panels(figure) and not figure.get_suptitle()
    axes = panels(figures.rating_figure(images[images["overall_rating"] != 3], correlations(rating=(4,))))[0]
    assert len(boxes(axes)[0]) == 6


def test_figure_4_left_box_is_with_the_emotion(images):
    """Pairs of boxes for the significant AUs, quartiles by NumPy, counts in the legend."""
    images["scared"] = 0
    images.loc[:11, "scared"] = 1
    figure = figures.emotion_figure(images, rank_sums({"scared": (4, 5), "amused": (12,)}))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"({letter}) {emotion}" for letter, emotion in zip("abcdef", EMOTIONS, strict=True)
    ]
    axes = figure.axes[EMOTIONS.index("scared")]
    drawn, medians = boxes(axes)
    felt = images["scared"] == 1
    groups = [images.loc[which, f"AU{unit}_activation_value"] for unit in (4, 5) for which in (felt, ~felt)]
    assert_allclose([(low, high) for _, low, _, high in drawn], [np.percentile(g, [25, 75]) for g in groups])
    assert_allclose(medians, [np.median(group) for group in groups])
    assert np.all(np.diff([left for left, *_ in drawn]) > 0)
    assert len(axes.lines) == 4
    assert [label.get_text() for label in axes.get_xticklabels()] == ["AU4", "AU5"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["yes (12)", "no (63)"]
    assert "no AU is significant" in texts(figure)


def test_selection_figure_marks_the_operating_point(predictions):
    """Two of four pairs are selected: the valence score is right on both, the ensemble on one."""
    figure = figures.selection_figure(predictions, resamples=20, seed=0, least_pairs=1)
    axes = figure.axes[0]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [(50, 100), (50, 50)]
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert_allclose(curves[0].get_ydata(), [100, 200 / 3, 50])
    assert len({line.get_linestyle() for line in curves}) == 2


def test_selection_curves_of_few_pairs_begin_at_a_tenth():
    """Of 30 pairs, all with their own difference, the curves begin at 3."""
    table = pd.DataFrame({"participant": ["a", "b"] * 15, "difference": np.arange(30) / 30, "selected": False})
    axes = figures.selection_figure(table.assign(**{VALENCE: True, ENSEMBLE: True}), resamples=20, seed=0).axes[0]
    assert min(axes.lines[0].get_xdata()) == pytest.approx(10)


def test_objective_figure_shows_the_choices_of_the_folds():
    """Three folds at one point and one at another; cells of 0 and less are left blank."""
    objective = pd.DataFrame([[-3.0, 5.0], [0.0, 2.0]], index=[0.5, 0.6], columns=[0.0, 0.02])
    results = pd.DataFrame({"exp_decay_coef": [0.5, 0.5, 0.6, 0.5], "diff_threshold": [0.02, 0.02, 0.0, 0.02]})
    axes = figures.objective_figure(objective, results).axes[0]
    assert {text.get_text(): text.xy for text in axes.texts} == {"3": (0.02, 0.5), "1": (0.0, 0.6)}
    assert axes.collections[0].get_array().tolist() == [[None, 5.0], [None, 2.0]]


def test_participant_figure_shows_the_rule():
    """Percentile 80 of 0, 0.1, …, 1 is 0.8; people stand from the highest to the lowest; the one left out is named."""
    table = pd.DataFrame({"AU4_activation_value": np.arange(11) / 10, "AU12_activation_value": np.arange(11) / 5})
    baseline = {"calm": table / 10, "restless": table}
    reaction = {"calm": table, "restless": table}
    figure = figures.participant_figure(baseline, reaction, percentile=80, limit=0.5, excluded=["restless"])
    au4, au12 = figure.axes
    drawn, medians = boxes(au4)
    assert_allclose(
        [(low, high) for _, low, _, high in drawn], [(0.25, 0.75), (0.25, 0.75), (0.025, 0.075), (0.25, 0.75)]
    )
    assert_allclose(medians, [0.5, 0.5, 0.05, 0.5])
    diamonds = next(line for line in au4.lines if line.get_marker() == "D")
    assert_allclose(diamonds.get_ydata(), [0.8, 0.08])
    assert [label.get_text() for label in au12.get_xticklabels()] == ["restless", "calm"]
    assert [(text.get_text(), text.get_position()[0]) for text in au4.texts] == [("left out", 0)]
    assert 0.5 in [line.get_ydata()[0] for line in au4.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize("top", [1.0, 0.01])
def test_participant_figure_hides_nothing(top):
    """The highest diamond and box are those of the one left out: inside, and below these words; as is the limit."""
    table = pd.DataFrame({"AU4_activation_value": [0, top / 4, top], "AU12_activation_value": [0, top / 4, top]})
    people = {"calm": table / 10, "restless": table}
    figure = figures.participant_figure(people, people, percentile=95, limit=top / 2, excluded=["restless"])
    figure.draw_without_rendering()
    for axes in figure.axes:
        words = axes.texts[0].get_window_extent()
        highest = max(line.get_ydata().max() for line in axes.lines if line.get_marker() == "D" or line.get_gid())
        assert axes.transData.transform((0, highest))[1] + 4 < words.y0 < words.y1 < axes.get_window_extent().y1
        for patch in (patch for patch in axes.patches if patch.get_gid() == "box"):
            assert not patch.get_window_extent().overlaps(words)
    calm = figures.participant_figure(people, people, percentile=0, limit=20 * top, excluded=[])
    assert calm.axes[0].get_ylim()[1] > 20 * top


def test_accuracy_figure_draws_estimates_and_intervals():
    """Modes that agree share a mark; the others have marks of their own shape."""
    row = {"estimate": 60.0, "lower": 55.0, "upper": 66.0}
    rows = [
        {"mode": mode, "table": table, "figure": name, "kind": kind, **row}
        for mode in ("released", "paper")
        for table, pairs in (("Table 1", "selected"), ("Table 2", "all"))
        for kind, name in (("accuracy", f"CLIP, {pairs}"), ("difference", f"AUcomb - CLIP, {pairs}"))
    ]
    rows[2]["estimate"] = 58.0  # released, Table 2
    figure = figures.accuracy_figure(pd.DataFrame(rows))
    marks = [
        [(line.get_marker(), line.get_xdata()[0]) for line in axes.lines if line.get_marker() not in ("None", "")]
        for axes in figure.axes
    ]
    assert marks == [[("o", 60)], [("o", 60), ("s", 58)], [("o", 60)], [("o", 60)]]
    bars = [list(line.get_xdata()) for line in figure.axes[0].lines if list(line.get_xdata()) != [50, 50]]
    assert [55.0, 66.0] in bars
    assert [axes.get_yticklabels()[0].get_text() for axes in figure.axes[::2]] == ["CLIP", "AUcomb − CLIP"]


def test_accuracy_figure_without_selected_pairs():
    """No number, no mark; an estimate without an interval is a mark all the same."""
    rows = [
        {"mode": "paper", "table": table, "figure": f"CLIP, {pairs}", "kind": kind}
        | dict(zip(("estimate", "lower", "upper"), numbers, strict=True))
        for (table, pairs), numbers in (
            (("Table 1", "selected"), (np.nan, np.nan, np.nan)),
            (("Table 2", "all"), (40.0, np.nan, np.nan)),
        )
        for kind in ("accuracy", "difference")
    ]
    figure = figures.accuracy_figure(pd.DataFrame(rows))
    marks = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] for axes in figure.axes]
    assert [np.isfinite(each).tolist() for each in marks] == [[False], [True]] * 2
    figure.draw_without_rendering()


# --------------------------------------------------------------------------- examples


def an_example(**changes):
    """A reaction of thirty frames at ten a second, with one frame that does not count."""
    course = np.full(30, 0.5)
    course[10:13] = [2.0, 2.5, 2.1]
    given = {
        "participant": "007",
        "session": 3,
        "image": 2,
        "unit": 4,
        "prompt": "a $5 note and $6 more",
        "ratings": (2, 0, 1),
        "place": 5,
        "n_images": 5,
        "issues": ("existence_of_body", "blurry"),
        "emotions": ("disappointed",),
        "picture": np.zeros((40, 40, 3), np.uint8),
        "before": np.full((48, 64, 3), 50, np.uint8),
        "at_peak": np.full((48, 64, 3), 90, np.uint8),
        "times": np.arange(30) / 10,
        "intensities": course,
        "valid": np.arange(30) != 20,
        "first_window": slice(0, 3),
        "highest_window": slice(10, 13),
        "peak": 11,
        "activation": 1.7,
    }
    return Example(**given | changes)


def test_example_figure_shows_what_was_seen_and_said():
    """Four panels a reaction: pictures in order, the course with its gap, both means, both windows, the peak."""
    figure = figures.example_figure([an_example(), an_example(issues=None, emotions=(), place=1)])
    before, picture, peak, course = figure.axes[:4]
    assert len(figure.axes) == 8
    assert [axes.images[0].get_array()[0, 0, 0] for axes in (before, picture, peak)] == [50, 0, 90]
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "before the image",
        "the image",
        "AU4 at its highest (1.1 s)",
        "AU4 activation 1.70",
    ]
    curve = next(line for line in course.lines if len(line.get_xdata()) == 30)
    assert np.flatnonzero(np.isnan(curve.get_ydata())).tolist() == [20]
    assert_allclose([line.get_ydata() for line in course.lines if line.get_linestyle() == "--"], [[0.5] * 2, [2.2] * 2])
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in course.lines if line.get_marker() == "o"] == [
        (1.1, 2.5)
    ]
    assert_allclose([(span.get_x(), span.get_width()) for span in course.patches], [(0, 0.3), (1, 0.3)])
    first, second = (text.get_text().replace("\n", " ") for text in figure.texts)
    assert first == (
        "(a) “a $5 note and $6 more” Participant 007, session 3, image 2; ranked 5 of 5; overall rating 2, alignment "
        "none, fidelity 1; felt disappointed; issues: existence of body, blurry."
    )
    assert second.startswith("(b) ") and second.endswith(
        "ranked 1 of 5; overall rating 2, alignment none, fidelity 1; felt none of the emotions."
    )
    assert not any(text.get_parse_math() for text in figure.texts)  # dollar signs make no formula


@pytest.mark.parametrize(
    ("frame", "picture"), [((480, 640), (512, 512)), ((1280, 720), (512, 512)), ((720, 1280), (300, 900))]
)
def test_example_figure_has_no_overlaps(frame, picture):
    """Panels and captions of upright, usual and wide pictures, with a prompt of many lines, stay apart and inside."""
    example = an_example(
        before=np.zeros((*frame, 3), np.uint8),
        at_peak=np.zeros((*frame, 3), np.uint8),
        picture=np.zeros((*picture, 3), np.uint8),
        prompt="a very long prompt, " * 20,
    )
    figure = figures.example_figure([example] * 3)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:place])


# --------------------------------------------------------------------------- small cohorts


@pytest.mark.parametrize("seed", [0, 1])
def test_every_figure_of_a_small_cohort(seed):
    """Three to six people, one or two sessions, three to five images; nobody scared, nobody rates 1 or 5.

    With the first seed no face ever moves.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {"participant": f"{person:03d}", "session_index": session, "image_index": image, "rank_score": image}
        | {"overall_rating": rng.choice([0, 2, 3, 4, 6, 7])}
        | {emotion: rng.integers(0, 2) * (emotion != "scared") for emotion in EMOTIONS}
        | {name: rng.normal() for name in SCORERS}
        | {f"AU{unit}_activation_value": rng.exponential(0.3 if seed else 0) for unit in ACTION_UNITS}
        for person in range(rng.integers(3, 7))
        for session in range(1, rng.integers(2, 4))
        for image in range(1, rng.integers(4, 7))
    ]
    table = pd.DataFrame(rows)
    search = search_settings("paper", **config.PREFERENCE_SEARCH)
    results = search_preferences(table, search)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of tests with nothing to test
        correlations, sums = rating_correlations(table), emotion_rank_sums(table)
        intervals = paper.tables_1_and_2(results, resamples=50, seed=0).assign(mode="paper").reset_index()
    by_person = dict(iter(table.groupby("participant")))
    for figure in (
        figures.rating_figure(table, correlations),
        figures.emotion_figure(table, sums),
        figures.accuracy_figure(intervals),
        figures.selection_figure(figures.pair_predictions(table, results), resamples=50, seed=0),
        figures.objective_figure(figures.objective_by_decay_and_threshold(table, search), results),
        figures.participant_figure(by_person, by_person, percentile=80, limit=0.5, excluded=[]),
    ):
        figure.draw_without_rendering()
    shown = figures.marked(sums[[f"{emotion}_z" for emotion in EMOTIONS]], sums[[f"{e}_p" for e in EMOTIONS]])
    assert (shown["scared_z"] == "–").all()


def test_selection_figure_shows_marks_below_forty_percent(predictions):
    """Nothing that was selected is right: the marks are on the figure all the same."""
    predictions[VALENCE] = ~predictions["selected"]
    axes = figures.selection_figure(predictions, resamples=20, seed=0).axes[0]
    assert axes.get_ylim()[0] == 0
    nothing = figures.selection_figure(predictions.assign(selected=False), resamples=20, seed=0).axes[0]
    assert not [line for line in nothing.lines if line.get_marker() in ("o", "s")]


# --------------------------------------------------------------------------- files


def a_figure():
    """A figure with hatches, text and a line."""
    figure = Figure()
    figure.subplots().bar([1], [2], hatch="//")
    return figure


def test_save_writes_both_files_and_no_date(tmp_path):
    """A PDF and a PNG; the same figure twice gives the same bytes."""
    first = figures.save(a_figure(), tmp_path / "one", "name")
    second = figures.save(a_figure(), tmp_path / "two", "name")
    assert [path.name for path in first] == ["name.pdf", "name.png"]
    assert [path.read_bytes()[:4] for path in first] == [b"%PDF", b"\x89PNG"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"CreationDate" not in first[0].read_bytes()
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["name.pdf", "name.png"]


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_a_stamp_stands_above_the_figure_and_changes_nothing_in_it(tmp_path, layout):
    """The stamped PNG is the other one with a strip of 0.28 inches on top, in which there is colour."""
    figure = Figure(figsize=(5, 3), layout=layout)
    figure.subplots().plot([1, 2], [3, 4], label="a line that has a name")
    figure.legend(loc="outside upper left" if layout else "upper left")
    _, plain = figures.save(figure, tmp_path, "plain")
    _, stamped = figures.save(figure, tmp_path, "stamped", "synthetic data")
    _, again = figures.save(figure, tmp_path, "again")
    plain_pixels, pixels = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (plain, stamped))
    assert pixels.shape == (656, 1000, 3)
    assert (pixels[56:] == plain_pixels).all()
    strip = pixels[:56]
    assert (strip.max(axis=2) - strip.min(axis=2)).max() > 100  # the frame
    drawn = np.flatnonzero((strip < 255).any(axis=(0, 2)))
    assert drawn.min() > 500 and drawn.max() < 1000
    assert plain.read_bytes() == again.read_bytes()
    assert (tmp_path / "plain.pdf").read_bytes() == (tmp_path / "again.pdf").read_bytes()


def test_a_stamp_is_on_the_pdf_too(tmp_path):
    """The page is as much higher: 3.28 inches of 72 points."""
    figures.save(Figure(figsize=(5, 3)), tmp_path, "stamped", "synthetic data")
    assert b"/MediaBox [ 0 0 360 236.16 ]" in (tmp_path / "stamped.pdf").read_bytes()


def test_save_into_a_folder_that_cannot_be(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(FergiError, match=r"Cannot write .*figures"):
        figures.save(a_figure(), tmp_path / "figures", "name")
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


def test_save_writes_nothing_if_one_kind_fails(tmp_path, monkeypatch):
    """The PNG cannot be drawn: the old PDF stays and no part is left lying about."""
    (tmp_path / "name.pdf").write_text("old")
    figure = a_figure()
    draw = figure.savefig

    def failing(file, *, format, **options):
        if format == "png":
            raise MemoryError
        draw(file, format=format, **options)

    monkeypatch.setattr(figure, "savefig", failing)
    with pytest.raises(MemoryError):
        figures.save(figure, tmp_path, "name")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("name.pdf", "old")]


def test_importing_does_no_work():
    """No pyplot, so no window and no state; and nothing is read from config."""
    code = "import sys, fergi.figures; sys.exit('matplotlib.pyplot' in sys.modules or 'config' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0


# --------------------------------------------------------------------------- the published data


@pytest.fixture(scope="module")
def published_tables(published):
    """Images with a valid reaction, those of the included participants, and the published results."""
    folders = Folders(published)
    sessions = read_valid_sessions(folders)
    reacted = read_image_reactions(
        folders,
        sessions,
        image_columns=["overall_rating", "rank_score", *EMOTIONS, *SCORERS],
        activation_columns=[f"AU{unit}_activation_value" for unit in ACTION_UNITS],
    )
    left_out = read_excluded_participants(folders, sessions)
    results = pd.read_csv(
        published / "expected/image_preference_binary_classification_based_on_ranking.csv", dtype={"user_id": str}
    )
    return reacted, reacted[~reacted["participant"].isin(left_out)], results


def test_published_pairs(published_tables):
    """Table 1: 685 pairs, AUcomb right on 498 and the ensemble on 456; all pairs: 2069 (eq. 5) and 2325 of 3534."""
    _, included, results = published_tables
    table = figures.pair_predictions(included, results)
    selected = table[table["selected"]]
    assert (len(selected), selected[VALENCE].sum(), selected[ENSEMBLE].sum()) == (685, 498, 456)
    assert (len(table), table[VALENCE].sum(), table[ENSEMBLE].sum()) == (3534, 2069, 2325)
    curve = figures.selection_curve(table, resamples=1, seed=0)
    assert_allclose(curve.iloc[-1][["n_selected", VALENCE]].astype(float), [3534, 100 * 2069 / 3534])


def test_published_objective_peaks_where_20_folds_are(published_tables):
    """Section 6.2.4: k = 0.5 and d = 0.26 in 20 of 30 folds."""
    _, included, _ = published_tables
    search = search_settings(
        "paper",
        **config.PREFERENCE_SEARCH,
    )
    assert figures.objective_by_decay_and_threshold(included, search).stack().idxmax() == (0.5, 0.26)


def test_published_figures_have_the_panels_of_the_paper(published_tables):
    """Figures 3 and 4: AUs, their order and the counts in the captions and in Section 6.1."""
    reacted, _, _ = published_tables
    figure_3 = figures.rating_figure(reacted, rating_correlations(reacted))
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in panels(figure_3)]
    assert titles == ["(a) AU4", "(b) AU9", "(c) AU1", "(d) AU5", "(e) AU20", "(f) AU2", "(g) AU12"]
    assert any("104, 185, 258, 456\n581, 403, 216" in text for text in texts(figure_3))
    figure_4 = figures.emotion_figure(reacted, emotion_rank_sums(reacted))
    assert [[label.get_text() for label in axes.get_xticklabels()] for axes in figure_4.axes] == [
        ["AU1", "AU2", "AU4", "AU12"],
        ["AU4", "AU5", "AU9", "AU25"],
        ["AU9", "AU12", "AU25", "AU26"],
        ["AU4", "AU5", "AU9"],
        ["AU6", "AU9", "AU12", "AU20", "AU25"],
        ["AU4", "AU5"],
    ]
    for figure in (figure_3, figure_4):
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(sizes) >= 7
        assert figure.get_figwidth() < 7.2
