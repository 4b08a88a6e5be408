"""fergi/figures.py: what is drawn is worked out by hand or with NumPy, and read back from the figures."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import snapshot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose
from PIL import Image

from fergi import figures
from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import EMOTIONS, Folders, read_image_reactions, read_valid_sessions
from fergi.examples import Example
from fergi.features import ACTION_UNITS
from fergi.paper import RANK_SUMS
from fergi.preference.results import ENSEMBLE, VALENCE
from fergi.script import CHECKOUT
from fergi.statistics import emotion_rank_sums, rating_correlations

FIGURE_3 = ["(a) AU4", "(b) AU9", "(c) AU1", "(d) AU5", "(e) AU20", "(f) AU2", "(g) AU12"]


def boxes(axes):
    """Left edge, first quartile, width, third quartile, median and colour of each box, from left to right."""
    found = []
    for drawn in axes.containers:
        for box, median in zip(drawn.boxes, drawn.medians, strict=True):
            ends = box.get_path().get_extents()
            colour = to_rgb(box.get_facecolor())
            found.append((ends.x0, ends.y0, ends.width, ends.y1, median.get_ydata()[0], colour))
    return sorted(found)


def quartiles(axes):
    """First quartile, median and third quartile of each box, from left to right."""
    return [(low, median, high) for _, low, _, high, median, _ in boxes(axes)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def panels(figure):
    """The panels that hold boxes."""
    return [axes for axes in figure.axes if axes.axison]


@pytest.fixture
def images():
    """Ten images per rating 1–7 and five without one; the activations are drawn numbers."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"overall_rating": np.repeat(np.arange(8), [5, *[10] * 7])})
    table[list(EMOTIONS)] = rng.integers(0, 2, (len(table), len(EMOTIONS)))
    table[list(ACTIVATION_COLUMNS)] = rng.exponential(0.3, (len(table), len(ACTIVATION_COLUMNS)))
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


def test_figure_3_boxes_are_quartiles_of_the_rated_images(images):
    """Seven boxes a panel, from NumPy's quartiles; images without a rating do not count; nothing else is visible."""
    figure = figures.rating_figure(images, correlations(rating=(4,), extremity=(12,)))
    assert len(panels(figure)) == 2
    for axes, unit in zip(panels(figure), (4, 12), strict=True):
        groups = [images.loc[images["overall_rating"] == r, f"AU{unit}_activation_value"] for r in range(1, 8)]
        assert_allclose(quartiles(axes), [np.percentile(group, [25, 50, 75]) for group in groups])
        assert_allclose([left + width / 2 for left, _, width, *_ in boxes(axes)], range(1, 8))
        assert len([line for line in axes.lines if line.get_linewidth()]) == 7
        assert axes.get_ylim()[0] == 0
    assert any("70 in all" in text and "10, 10, 10, 10\n10, 10, 10" in text for text in texts(figure))


def titles(figure):
    return [axes.get_title(loc="left") for axes in panels(figure)]


def test_figure_3_panels_name_the_au_and_what_is_significant(images):
    """The seven panels of the paper, in its order; the colour is never alone in saying what is significant."""
    table = correlations(rating=(2, 4, 9, 12), extremity=(1, 2, 5, 12, 20), negative=(4, 9))
    shown = titles(figures.rating_figure(images, table))
    assert [title.split("\n")[0] for title in shown] == FIGURE_3
    assert shown[0].endswith("AU4\nρ = −0.10 (rating)")
    assert shown[2].endswith("AU1\nρ = 0.10 (extremity)")
    assert shown[6].endswith("AU12\nρ = 0.10 (rating)\nρ = 0.10 (extremity)")


def test_figure_3_colours(images):
    """Blue left and brown right where both are significant; darker towards more activation, by the sign of ρ."""
    table = correlations(rating=(2, 4), extremity=(2,), negative=(4,))
    falling, both = panels(figures.rating_figure(images, table))
    colours = [colour for *_, colour in boxes(both)]
    assert len(colours) == 14
    assert_allclose([left + width for left, _, width, *_ in boxes(both)][::2], [left for left, *_ in boxes(both)][1::2])
    blue, brown = colours[::2], colours[1::2]
    assert all(b > r for r, _, b in blue)
    assert all(r > b for r, _, b in brown)
    lightness = np.array([sum(colour) for colour in blue])
    assert (np.diff(lightness) < 0).all()  # positive ρ: darkest at rating 7
    lightness = np.array([sum(colour) for colour in brown])
    assert (np.diff(lightness[3:]) < 0).all()
    assert_allclose(lightness, lightness[::-1], atol=1e-9)  # ratings 1 and 7 are equally extreme
    assert (np.diff([sum(colour) for *_, colour in boxes(falling)]) > 0).all()  # negative ρ: darkest at rating 1


def test_figure_3_without_a_significant_au(images):
    """The AU with the smallest p for the rating and that for the extremity are drawn, and called what they are."""
    table = correlations()
    table.loc[12, "rating_p"], table.loc[4, "extremity_p"] = 0.01, 0.02
    figure = figures.rating_figure(images, table)
    assert titles(figure) == ["(a) AU12\nρ = 0.10 (rating)", "(b) AU4\nρ = 0.10 (extremity)"]
    assert [len(boxes(axes)) for axes in panels(figure)] == [7, 7]
    assert figure.get_suptitle().startswith("No AU is significant after the Bonferroni correction")
    assert not [text for text in texts(figure) if text.startswith("significant")]
    # No AU moves, or nobody gave a rating: a figure all the same.
    figure = figures.rating_figure(images, correlations() * np.nan)
    assert "No AU is significant." in texts(figure)
    assert not panels(figure) and not figure.get_suptitle()
    axes = panels(figures.rating_figure(images[images["overall_rating"] != 3], correlations(rating=(4,))))[0]
    assert len(boxes(axes)) == 6


def test_figure_4_left_box_is_with_the_emotion(images):
    """Pairs of boxes for the significant AUs, quartiles by NumPy, counts in the legend."""
    images["scared"] = 0
    images.loc[:11, "scared"] = 1
    rank_sums = pd.DataFrame(1.0, index=ACTION_UNITS, columns=[f"{emotion}_p" for emotion in EMOTIONS])
    rank_sums.loc[[4, 5], "scared_p"] = rank_sums.loc[12, "amused_p"] = 1e-9
    figure = figures.emotion_figure(images, rank_sums)
    assert titles(figure) == [f"({letter}) {emotion}" for letter, emotion in zip("abcdef", EMOTIONS, strict=True)]
    axes = figure.axes[EMOTIONS.index("scared")]
    felt = images["scared"] == 1
    groups = [images.loc[which, f"AU{unit}_activation_value"] for unit in (4, 5) for which in (felt, ~felt)]
    assert_allclose(quartiles(axes), [np.percentile(group, [25, 50, 75]) for group in groups])
    assert len([line for line in axes.lines if line.get_linewidth()]) == 4
    assert [label.get_text() for label in axes.get_xticklabels()] == ["AU4", "AU5"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["yes (12)", "no (63)"]
    assert "no AU is significant" in texts(figure)


def test_selection_figure_marks_table_1():
    """Curves and marks of two kinds; a mark below forty percent is on the figure; without selected pairs, no mark."""
    values = {"share": [25.0, 75.0, 100.0], VALENCE: [100.0, 70.0, 50.0], ENSEMBLE: [100.0, 70.0, 75.0]}
    bands = {f"{name}_{end}": values[name] for name in (VALENCE, ENSEMBLE) for end in ("lower", "upper")}
    curve = pd.DataFrame(values | bands)
    table_1 = pd.Series({"n_pairs": 4, "n_selected": 2, "share": 50.0, VALENCE: 0.0, ENSEMBLE: 50.0})
    axes = figures.selection_figure(curve, table_1).axes[0]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [(50, 0), (50, 50)]
    assert axes.get_ylim()[0] == 0
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert_allclose([line.get_ydata() for line in lines], curve[[VALENCE, ENSEMBLE]].T)
    assert len({line.get_linestyle() for line in lines}) == 2
    nothing = pd.Series({"n_pairs": 4, "n_selected": 0, "share": 0.0, VALENCE: np.nan, ENSEMBLE: np.nan})
    axes = figures.selection_figure(curve, nothing).axes[0]
    assert not [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert axes.get_ylim()[0] == 40


def test_objective_figure_shows_the_choices_of_the_folds():
    """Three folds at one point and one at another; k grows upwards; cells of 0 and less are blank."""
    objective = pd.DataFrame([[-3.0, 5.0], [0.0, 2.0]], index=[0.5, 0.6], columns=[0.0, 0.02])
    axes = figures.objective_figure(objective, {(0.5, 0.02): 3, (0.6, 0.0): 1}).axes[0]
    assert {text.get_text(): text.xy for text in axes.texts} == {"3": (1.5, 0.5), "1": (0.5, 1.5)}
    assert axes.collections[0].get_array().tolist() == [[None, 5.0], [None, 2.0]]
    assert axes.get_ylim() == (0, 2)
    assert (axes.get_xticklabels()[0].get_text(), axes.get_yticklabels()[0].get_text()) == ("0.0", "0.5")


@pytest.mark.parametrize("limit", [0.5, 20])
def test_participant_figure_shows_the_rule(limit):
    """From the highest percentile to the lowest; the excluded one is named; diamonds, boxes and limit are inside."""
    table = pd.DataFrame({"AU4_activation_value": np.arange(11) / 10, "AU12_activation_value": np.arange(11) / 5})
    baseline, reaction = {"calm": table / 10, "restless": table}, {"calm": table, "restless": table}
    rule = {"percentile": 90, "limit": limit, "excluded": ["restless"]}
    au4, au12 = figures.participant_figure(baseline, reaction, {"calm": 0.09, "restless": 0.9}, **rule).axes
    wide = (0.25, 0.5, 0.75)
    assert_allclose(quartiles(au4), [wide, wide, (0.025, 0.05, 0.075), wide])
    diamonds = next(line for line in au4.lines if line.get_marker() == "D")
    assert_allclose(diamonds.get_ydata(), [0.9, 0.09])
    assert [label.get_text() for label in au12.get_xticklabels()] == ["restless, excluded", "calm"]
    (shade,) = [patch for patch in au4.patches if to_rgb(patch.get_facecolor()) == to_rgb("#f3d9d3")]
    assert (shade.get_x(), shade.get_width()) == (-0.5, 1)
    assert limit in [line.get_ydata()[0] for line in au4.lines if line.get_linestyle() == "--"]
    assert au4.get_ylim()[0] == 0 and au4.get_ylim()[1] > max(0.9, limit)


def intervals(modes, numbers):
    """One model and one difference in each table and mode, all with the same numbers."""
    rows = [
        (mode, table, f"{name}, {pairs}", kind, *numbers)
        for mode in modes
        for table, pairs in (("Table 1", "selected"), ("Table 2", "all"))
        for kind, name in (("accuracy", "CLIP"), ("difference", "AUcomb - CLIP"))
    ]
    return pd.DataFrame(rows, columns=["mode", "table", "figure", "kind", "estimate", "lower", "upper"])


def test_accuracy_figure_draws_estimates_and_intervals():
    """Modes that agree share a mark; the others have marks of their own shape."""
    table = intervals(("released", "paper"), (60.0, 55.0, 66.0))
    table.loc[2, "estimate"] = 58.0  # released, Table 2
    figure = figures.accuracy_figure(table)
    marks = [
        [(line.get_marker(), line.get_xdata()[0]) for line in axes.lines if line.get_marker() not in ("None", "")]
        for axes in figure.axes
    ]
    assert marks == [[("o", 60)], [("o", 60), ("s", 58)], [("o", 60)], [("o", 60)]]
    bars = [list(line.get_xdata()) for line in figure.axes[0].lines if list(line.get_xdata()) != [50, 50]]
    assert [55.0, 66.0] in bars
    assert [axes.get_yticklabels()[0].get_text() for axes in figure.axes[::2]] == ["CLIP", "AUcomb − CLIP"]
    # Without selected pairs: no number, no mark; an estimate without an interval is a mark all the same.
    table = intervals(("paper",), (40.0, np.nan, np.nan))
    table.loc[table["table"] == "Table 1", "estimate"] = np.nan
    figure = figures.accuracy_figure(table)
    marks = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] for axes in figure.axes]
    assert [np.isfinite(each).tolist() for each in marks] == [[False], [True]] * 2
    figure.draw_without_rendering()


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


def test_order_figure_sorts_people_and_draws_rows_on_all_pairs():
    """Dots fall from left to right; a row without pairs and rows on selected pairs are not drawn."""
    people = pd.DataFrame({"earlier": [6, 9], "pairs": [12, 10], "percent": [50.0, 90.0]}, index=["a", "b"])
    everybody = pd.Series({"estimate": 68.2, "lower": 50.0, "upper": 90.0, "pairs": 22, "above_half": 1})
    numbers = [[60, 70, 50, 60, 55, 65], [58, 56, 62, 59, 50, 66], [np.nan] * 6, [80.0] * 6]
    columns = ["accuracy", "earlier", "later", "balanced", "lower", "upper"]
    names = ["CLIP, all", "AUcomb, all", "BLIP, all", "CLIP, selected"]
    figure = figures.order_figure(people, everybody, pd.DataFrame(numbers, names, columns))
    left, right = figure.axes
    assert left.collections[-1].get_offsets().tolist() == [[0, 90], [1, 50]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["b", "a"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["CLIP", "AUcomb"]
    marks = {line.get_label(): line.get_xdata().tolist() for line in right.lines if line.get_marker() != "None"}
    assert marks == {
        "earlier image preferred": [70, 56], "later image preferred": [50, 62],
        "all pairs": [60, 58], "order-balanced": [60, 59],
    }  # fmt: skip
    assert "(a) all: 68.2 % of 22 pairs" in texts(figure)


@pytest.mark.parametrize("own", [None, (19.4, 72.7, 67.6, 77.5)])
def test_held_out_figure_draws_coverage_and_calibration(own):
    """Lines and marks lie where the tables say; the calibration of two models is moved aside by a quarter point."""
    coverage = pd.DataFrame({"coverage": [1.0, 0.2], "accuracy": [58, 74], "lower": [55, 70], "upper": [61, 78]})
    bins = pd.DataFrame({"said": [52.0, 77.0], "found": [51.0, 80.0], "lower": [49, 70], "upper": [53, 90]})
    models = ("AUcomb", "linear")
    figure = figures.held_out_figure(dict.fromkeys(models, coverage), dict.fromkeys(models, bins), own)
    left, right = figure.axes
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines}
    assert drawn["AUcomb"] == drawn["linear"] == ([100, 20], [58, 74])
    marks = [line for line in right.lines if line.get_marker() != "None"]
    assert [line.get_xdata().tolist() for line in marks] == [[51.75, 76.75], [52.25, 77.25]]
    assert [line.get_ydata().tolist() for line in marks] == [[51, 80]] * 2
    bars = right.collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in bars] == [[49, 53], [70, 90]]
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == [*models, *(["AUcomb at its own thresholds"] if own else [])]


def test_example_figure_shows_what_was_seen_and_said():
    """Four panels a reaction: pictures in order, the course with its gap, both means, both windows, the peak."""
    figure = figures.example_figure([an_example(), an_example(issues=None, emotions=(), place=1)])
    *pictures, course = figure.axes[:4]
    assert len(figure.axes) == 8
    assert [axes.images[0].get_array()[0, 0, 0] for axes in pictures] == [50, 0, 90]
    assert [axes.get_title() for axes in pictures] == ["before the image", "the image", "AU4 highest (1.1 s)"]
    assert course.get_title() == "AU4 activation 1.70"
    curve = next(line for line in course.lines if len(line.get_xdata()) == 30)
    assert np.flatnonzero(np.isnan(curve.get_ydata())).tolist() == [20]
    assert_allclose([line.get_ydata() for line in course.lines if line.get_linestyle() == "--"], [[0.5] * 2, [2.2] * 2])
    (peak,) = curve.get_markevery()
    assert (curve.get_marker(), *curve.get_xydata()[peak]) == ("o", 1.1, 2.5)
    assert_allclose([(span.get_x(), span.get_width()) for span in course.patches], [(0, 0.3), (1, 0.3)])
    first, second = (row.get_suptitle().replace("\n", " ") for row in figure.subfigs)
    assert first == (
        "(a) “a $5 note and $6 more” Participant 007, session 3, image 2; ranked 5 of 5; overall rating 2, alignment "
        "none, fidelity 1; felt disappointed; issues: existence of body, blurry."
    )
    assert second.startswith("(b) ") and second.endswith(
        "ranked 1 of 5; overall rating 2, alignment none, fidelity 1; felt none of the emotions."
    )
    captions = [text for row in figure.subfigs for text in row.texts]
    assert not any(text.get_parse_math() for text in captions)  # dollar signs make no formula


@pytest.mark.parametrize(
    ("frame", "picture"), [((480, 640), (512, 512)), ((1280, 720), (512, 512)), ((720, 1280), (300, 900))]
)
def test_example_figure_has_no_overlaps(frame, picture):
    """Panels and captions of upright, usual and wide pictures, with a prompt of many lines, stay apart and inside."""
    face, picture = (np.zeros((*shape, 3), np.uint8) for shape in (frame, picture))
    example = an_example(before=face, at_peak=face, picture=picture, prompt="a very long prompt, " * 20)
    figure = figures.example_figure([example] * 3)
    figure.draw_without_rendering()
    texts = [*figure.legends, *(text for row in figure.subfigs for text in row.texts)]
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [each.get_window_extent() for each in texts]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_save_writes_both_files_and_no_date(tmp_path):
    """The same figure twice gives the same bytes, with hatches too."""
    for name in ("one", "two"):
        figure = Figure()
        figure.subplots().bar([1], [2], hatch="//")
        figures.save(figure, tmp_path / name, "name")
    first, second = (snapshot(tmp_path / name) for name in ("one", "two"))
    assert first == second
    assert {name: content[:4] for name, content in first.items()} == {"name.pdf": b"%PDF", "name.png": b"\x89PNG"}
    assert b"CreationDate" not in first["name.pdf"]


def test_a_stamp_stands_above_the_figure_and_changes_nothing_in_it(tmp_path):
    """The stamped PNG is the other one with a strip of 0.28 inches on top, in which there is colour; so is the PDF."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    figure.subplots().plot([1, 2], [3, 4], label="a line that has a name")
    figure.legend(loc="outside upper left")
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
    assert plain.with_suffix(".pdf").read_bytes() == again.with_suffix(".pdf").read_bytes()
    assert b"/MediaBox [ 0 0 360 236.16 ]" in stamped.with_suffix(".pdf").read_bytes()  # 3.28 inches of 72 points


def test_save_writes_nothing_if_one_kind_fails(tmp_path, monkeypatch):
    """The PNG cannot be drawn: the old PDF stays and no part is left lying about."""
    (tmp_path / "name.pdf").write_text("old")
    figure = Figure()
    draw = figure.savefig

    def failing(file, *, format, **options):
        if format == "png":
            raise MemoryError
        draw(file, format=format, **options)

    monkeypatch.setattr(figure, "savefig", failing)
    with pytest.raises(MemoryError):
        figures.save(figure, tmp_path, "name")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("name.pdf", "old")]


def test_no_window_no_config_and_no_video_library():
    """Pyplot, which seaborn imports, knows no figure: nothing opens or stays. Without videos OpenCV is not needed."""
    code = """if True:
        import sys
        import numpy as np
        import pandas as pd
        from fergi import examples, figures
        figures.objective_figure(pd.DataFrame(np.eye(2)), {})
        import matplotlib.pyplot
        sys.exit(bool(matplotlib.pyplot.get_fignums()) or bool({'config', 'cv2', 'torch'} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0


def test_published_figures_have_the_panels_of_the_paper(published):
    """Figures 3 and 4: AUs, their order and the counts in the captions and in Section 6.1."""
    folders = Folders(published)
    columns = {"image_columns": ["overall_rating", *EMOTIONS], "activation_columns": ACTIVATION_COLUMNS}
    reacted = read_image_reactions(folders, read_valid_sessions(folders), **columns)
    figure_3 = figures.rating_figure(reacted, rating_correlations(reacted))
    assert [title.split("\n")[0] for title in titles(figure_3)] == FIGURE_3
    assert any("104, 185, 258, 456\n581, 403, 216" in text for text in texts(figure_3))
    figure_4 = figures.emotion_figure(reacted, emotion_rank_sums(reacted))
    expected = [[f"AU{unit}" for felt, unit, *_ in RANK_SUMS if felt == emotion] for emotion in EMOTIONS]
    assert [[label.get_text() for label in axes.get_xticklabels()] for axes in figure_4.axes] == expected
    for figure in (figure_3, figure_4):
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(sizes) >= 7
        assert figure.get_figwidth() < 7.2
