"""Activation values of clips (eqs. 1–2), against values worked by hand, the published ones and a plain loop."""

import numpy as np
import pandas as pd
import pytest
from conftest import clip_text
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from plain import plain_activation

import config
from fergi.activation import ACTIVATION_COLUMNS, activation_tables, clip_activation, resting_activation, window_lengths
from fergi.dataset import Folders, find_clips, read_black_images, read_valid_sessions
from fergi.features import COLUMNS, ClipFeatures, FrameLimits, read_clips, valid_frames

LIMITS = FrameLimits(minimum_detection_confidence=0.9, pitch_ratio=(0.55, 0.85), yaw_ratio=(0.3, 0.7))


def clips(*intensities, frames_per_second=30.0):
    """Clips with the same course of intensity in all AUs, or one column an AU."""
    blocks = []
    for course in intensities:
        course = np.asarray(course, float)
        block = np.zeros((len(course), len(COLUMNS)))
        block[:, 0] = np.arange(1, len(course) + 1)
        block[:, 1] = np.round(np.arange(len(course)) / frames_per_second, 3)
        block[:, 5:] = course.reshape(len(course), -1)
        blocks.append(block)
    return ClipFeatures(np.cumsum([0, *map(len, blocks)]), np.vstack(blocks))


def alpha(features, valid=None, window_seconds=0.1):
    """Activation of AU1 of each clip, all frames valid unless said."""
    valid = np.ones(len(features.values), bool) if valid is None else np.asarray(valid, bool)
    return clip_activation(features, valid, window_seconds)


def test_activation_by_hand():
    """Means of three: 1, 2, 3, 2: highest 3, first 1. Only a rise counts: falling gives 0."""
    found = alpha(clips([0, 1, 2, 3, 4, -1], [4, 3, 2, 1, 0, -1]))
    assert_allclose(found.values[:, 0], [2.0, 0.0], atol=1e-12)
    assert found.first_window.tolist() == [0, 0]
    assert found.valid_share.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("place", [3, 10, 28, 29])
def test_a_spike_is_divided_by_the_window(place):
    """One frame of height h after the first window gives h / 3, wherever it is, in the last window, too."""
    course = np.zeros(30)
    course[place] = 1.5
    assert_allclose(alpha(clips(course)).values, 0.5, atol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_spike_in_the_first_window_is_no_rise(place):
    """There it belongs to the start, and nothing later is higher."""
    course = np.zeros(30)
    course[place] = 1.5
    assert_allclose(alpha(clips(course)).values, 0.0, atol=1e-12)


def test_each_unit_on_its_own():
    """Twelve AUs with spikes of 3, 6, …, 36 give 1, 2, …, 12, in the order of the columns."""
    course = np.zeros((10, 12))
    course[6] = 3 * np.arange(1, 13)
    assert_allclose(alpha(clips(course)).values, [np.arange(1, 13)], atol=1e-12)
    assert ACTIVATION_COLUMNS[2] == "AU4_activation_value"
    assert ACTIVATION_COLUMNS[6] == "AU12_activation_value"


@pytest.mark.parametrize(
    ("fps", "frames"),
    [(30, 3), (60, 6), (25, 2), (29.97, 3), (24, 2), (15, 2), (10, 1), (1, 1), (25.4, 2), (34.6, 4)],
)
def test_window_length(fps, frames):
    """A tenth of a second in whole frames, of the rate in whole frames (25.4 is 25, 34.6 is 35).

    Halves go to the even number (2.5 → 2, 3.5 → 4); a window has one frame at least.
    """
    assert window_lengths(clips(np.zeros(150), frames_per_second=fps), 0.1).tolist() == [frames]


def test_window_length_of_one_frame():
    """A single frame has no rate; the window is that frame."""
    assert window_lengths(clips([1.0]), 0.1).tolist() == [1]
    assert_allclose(alpha(clips([1.0])).values, 0.0)


def test_window_length_is_each_clips_own():
    """Spikes of 6 at 60 and 30 FPS in one batch give 6 / 6 and 6 / 3."""
    spike = np.where(np.arange(40) == 20, 6.0, 0.0)
    fast, slow = clips(spike, frames_per_second=60), clips(spike, frames_per_second=30)
    both = ClipFeatures(np.array([0, 40, 80]), np.vstack([fast.values, slow.values]))
    assert_allclose(alpha(both).values[:, 0], [1.0, 2.0], atol=1e-12)


def test_windows_do_not_span_clips():
    """The high start of the second clip does not reach into the end of the first, nor the other way round."""
    found = alpha(clips([0, 0, 0, 0, 0], [9, 9, 9, 9, 9], [0, 0, 0, 0, 9]))
    assert_allclose(found.values[:, 0], [0.0, 0.0, 3.0], atol=1e-12)


def test_windows_do_not_span_invalid_frames():
    """Of 0 0 0 x 9 9 x 0 0 0 with both x invalid, 9 9 is too short for a window, so nothing rises."""
    course = [0, 0, 0, 0, 9, 9, 0, 0, 0, 0]
    valid = [1, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    assert_allclose(alpha(clips(course), valid).values, 0.0, atol=1e-12)
    assert alpha(clips(course), valid).valid_share.tolist() == [0.8]


def test_values_of_invalid_frames_do_not_matter():
    """Whatever stands in an invalid frame, −1 or 1000, gives the same."""
    valid = np.ones(20, bool)
    valid[[8, 9]] = False
    found = []
    for intruder in (-1.0, 0.0, 1000.0):
        course = np.linspace(0, 1, 20).round(3)
        course[[8, 9]] = intruder
        found.append(alpha(clips(course), valid).values)
    assert_allclose(found[0], found[1], atol=1e-12)
    assert_allclose(found[0], found[2], atol=1e-9)


def test_first_valid_window():
    """With frame 2 invalid the reference is the window of frames 3–5, not of 1–3."""
    course = [0, 0, 3, 3, 3, 6, 6, 6]
    valid = [1, 0, 1, 1, 1, 1, 1, 1]
    found = alpha(clips(course), valid)
    assert_allclose(found.values, 3.0, atol=1e-12)
    assert found.first_window.tolist() == [2]


def test_first_window_of_two_clips():
    """Frames are counted from each clip's own start."""
    valid = [1, 1, 1, 1, 1, 0, 0, 1, 1, 1]
    found = alpha(clips([0, 0, 0, 0, 0], [0, 0, 1, 1, 1]), valid)
    assert found.first_window.tolist() == [0, 2]
    assert found.valid_share.tolist() == [1.0, 0.6]


def test_clip_without_a_complete_window():
    """NaN and −1, beside clips that have one, first, between and last."""
    valid = [1, 1, 0, 1, 1] + [1] * 5 + [1, 1, 0, 1, 1] + [1] * 5 + [0] * 5
    found = alpha(clips(*[[0, 0, 0, 3, 3]] * 5), valid)
    assert found.first_window.tolist() == [-1, 0, -1, 0, -1]
    assert np.isnan(found.values[[0, 2, 4]]).all()
    assert_allclose(found.values[[1, 3]], 2.0, atol=1e-12)


def test_batch_shorter_than_a_window():
    """Two frames at 60 FPS and nothing else: no window, as in any larger batch."""
    assert alpha(clips([0, 3], frames_per_second=60)).first_window.tolist() == [-1]


@st.composite
def clip_files(draw):
    """Texts of a few clips with faces lost here and there, values with 3 decimals."""
    texts = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 40))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        lost = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.4, 0.9]))
        intensities = np.where(lost[:, None], -1.0, rng.uniform(-1, 5, (n, 12)).round(3))
        others = {
            "face_detection_confidence_score": np.where(
                lost, 0.0, rng.choice([0.899, 0.9, 0.95], n, p=[0.05, 0.5, 0.45])
            ),
            "pitch_indicative_ratio": np.where(
                lost, -1.0, rng.choice([0.55, 0.7, 0.85, 0.851], n, p=[0.4, 0.3, 0.25, 0.05])
            ),
            "yaw_indicative_ratio": np.where(
                lost, -1.0, rng.choice([0.3, 0.5, 0.7, 0.299], n, p=[0.4, 0.3, 0.25, 0.05])
            ),
        }
        texts.append(clip_text(intensities, draw(st.sampled_from([10.0, 25.0, 30.0, 60.0])), **others))
    return texts


@given(clip_files())
def test_against_the_plain_loop(tmp_path_factory, texts):
    """Window by window gives the same values, the same shares and the same clips without a window."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{i}.csv" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    features, problems = read_clips(paths)
    assert problems == []
    found = clip_activation(features, valid_frames(features, LIMITS), 0.1)
    for path, values, share, first in zip(paths, found.values, found.valid_share, found.first_window, strict=True):
        expected, expected_share = plain_activation(path, limits=LIMITS, window_seconds=0.1)
        assert share == expected_share
        assert (first < 0) == (expected is None)
        if expected is not None:
            assert_allclose(values, expected, atol=1e-12, rtol=0)
            assert (values >= 0).all()


@given(clip_files())
def test_alone_as_in_a_batch(tmp_path_factory, texts):
    """To the last bit, whatever the neighbours are."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{i}.csv" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)

    def values(chosen):
        features, _ = read_clips(chosen)
        return clip_activation(features, valid_frames(features, LIMITS), 0.1).values

    assert values(paths).tobytes() == np.vstack([values([path]) for path in paths]).tobytes()


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_a_constant_added_to_all_frames_changes_nothing(seed, constant):
    """Activation is a rise, not a level."""
    course = np.random.default_rng(seed).uniform(-1, 5, (25, 12))
    assert_allclose(alpha(clips(course + constant)).values, alpha(clips(course)).values, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_frames_in_reverse_order_of_units(seed):
    """The AUs do not mix: their columns reversed give the values reversed, to the last bit."""
    course = np.random.default_rng(seed).uniform(-1, 5, (25, 12)).round(3)
    assert alpha(clips(course[:, ::-1])).values.tobytes() == alpha(clips(course)).values[:, ::-1].tobytes()


def test_percentile_at_rest():
    """Linear between values: of 0, 1, 2, 3, 4 the 80th percentile is 3.2."""
    tables = {"101": pd.DataFrame({"AU4_activation_value": [4.0, 0.0, 2.0, 1.0, 3.0]})}
    assert resting_activation(tables, 4, 80)["101"] == pytest.approx(3.2)


def settings(**changed):
    """The settings of the scripts."""
    return {
        "limits": config.FRAME_LIMITS,
        "minimum_valid_share": config.MINIMUM_VALID_SHARE,
        "window_seconds": config.WINDOW_SECONDS,
        **changed,
    }


@pytest.mark.parametrize(("n_lost", "valid"), [(5, True), (6, True), (7, False)])
def test_clip_with_a_fifth_of_its_frames_lost_is_valid(tiny, n_lost, valid):
    """6 of 30 frames lost leave 0.8, which is enough; 7 do not."""
    name = "data/102/session_1/reaction_clip_2_features.csv"
    confidence = np.where(np.arange(30) < n_lost, 0.0, 0.95)
    tiny.path(name).write_text(clip_text(np.zeros(30), face_detection_confidence_score=confidence))
    found = activation_tables(Folders(tiny.root), "reaction", {"102": [1, 3]}, **settings())
    keys = list(found.tables["102"][["session_index", "image_index"]].itertuples(index=False, name=None))
    assert ((1, 2) in keys) == valid
    assert (found.n_clips, found.n_frames, found.n_valid_clips) == (5, 150, 5 if valid else 4)
    assert (found.n_later_start, found.latest_start) == ((1, n_lost) if valid else (0, 0))


def test_black_images_are_left_out_of_reactions_only(tiny):
    """They count as valid clips, and no row is left of them."""
    folders = Folders(tiny.root)
    found = activation_tables(folders, "reaction", {"101": [1, 2]}, **settings(left_out={"101": {(1, 2)}}))
    keys = list(found.tables["101"][["session_index", "image_index"]].itertuples(index=False, name=None))
    assert keys == [(1, 1), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3)]
    assert (found.n_valid_clips, found.n_black) == (7, 1)
    assert "7 clips are valid, 1 of them reactions to black images, which are left out." in found.report()
    at_rest = activation_tables(folders, "baseline", {"101": [1, 2]}, **settings())
    assert len(at_rest.tables["101"]) == 7
    assert_allclose(at_rest.tables["101"]["AU4_activation_value"], 0.1, atol=1e-12)


@pytest.mark.parametrize(("kind", "n_rows", "n_values"), [("baseline", 2044, 24_528), ("reaction", 2217, 26_604)])
def test_published_values(published, published_root, kind, n_rows, n_values):
    """All 51,132 published activation values, exactly, and no other row."""
    n_found = n_rows_found = 0
    for expected in sorted((published / "preparation" / f"preprocessed_{kind}_data").glob("*.csv")):
        ours = pd.read_csv(published_root / "preparation" / f"preprocessed_{kind}_data" / expected.name)
        theirs = pd.read_csv(expected)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
        n_rows_found += len(ours)
        n_found += ours[list(ACTIVATION_COLUMNS)].size
    assert (n_rows_found, n_found) == (n_rows, n_values)


def test_published_counts(published_root):
    """Clips, frames, valid clips, later starts, as the facts have them; the window is 3 in every clip."""
    folders = Folders(published_root)
    sessions = read_valid_sessions(folders)
    reactions = activation_tables(
        folders, "reaction", sessions, **settings(left_out=read_black_images(folders, sessions))
    )
    assert (reactions.n_clips, reactions.n_frames) == (2880, 433_035)
    assert (reactions.n_valid_clips, reactions.n_black) == (2253, 36)
    assert (reactions.n_later_start, reactions.latest_start) == (184, 30)
    baselines = find_clips(folders, "baseline", sessions)
    n_frames = 0
    for own in baselines.values():
        features, _ = read_clips([clip.path for clip in own])
        n_frames += len(features.values)
        assert set(window_lengths(features, config.WINDOW_SECONDS)) == {3}
    assert n_frames == 435_375
