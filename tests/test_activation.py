"""Activation values of clips (eqs. 1–2), against values worked by hand, the published ones and a plain loop."""

import importlib

import numpy as np
import pandas as pd
import pytest
from conftest import clip_text
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from plain import plain_activation

import config
from fergi.activation import ACTIVATION_COLUMNS, clip_activation, window_lengths
from fergi.features import COLUMNS, ClipFeatures, read_clips, valid_frames


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


def alpha(features, valid=None):
    """Activation of each clip, all frames valid unless said."""
    valid = np.ones(len(features.values), bool) if valid is None else np.asarray(valid, bool)
    return clip_activation(features, valid, 0.1)


@pytest.mark.parametrize(
    ("courses", "valid", "values", "shares", "first_windows"),
    [
        # Means of three: 1, 2, 3, 2: highest 3, first 1. Only a rise counts: falling gives 0.
        ([[0, 1, 2, 3, 4, -1], [4, 3, 2, 1, 0, -1]], [1] * 12, [2, 0], [1, 1], [0, 0]),
        # The high start of the second clip is in no window of the first, nor the other way round.
        ([[0, 0, 0, 0, 0], [9, 9, 9, 9, 9], [0, 0, 0, 0, 9]], [1] * 15, [0, 0, 3], [1, 1, 1], [0, 0, 0]),
        # Between invalid frames, 9 9 is too short for a window.
        ([[0, 0, 0, 0, 9, 9, 0, 0, 0, 0]], [1, 1, 1, 0, 1, 1, 0, 1, 1, 1], [0], [0.8], [0]),
        # With frame 2 invalid the reference is the window of frames 3–5, not of 1–3.
        ([[0, 0, 3, 3, 3, 6, 6, 6]], [1, 0, 1, 1, 1, 1, 1, 1], [3], [0.875], [2]),
        # Frames are counted from each clip's own start.
        ([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], [1, 1, 1, 1, 1, 0, 0, 1, 1, 1], [0, 0], [1, 0.6], [0, 2]),
        # Clips without a complete window, first, between and last.
        (
            [[0, 0, 0, 3, 3]] * 5,
            [1, 1, 0, 1, 1] + [1] * 5 + [1, 1, 0, 1, 1] + [1] * 5 + [0] * 5,
            [np.nan, 2, np.nan, 2, np.nan],
            [0.8, 1, 0.8, 1, 0],
            [-1, 0, -1, 0, -1],
        ),
        # A spike of 1.5 is divided by the window, in the last one, too; in the first window it is no rise.
        (1.5 * np.eye(30)[[0, 1, 2, 3, 10, 28, 29]], [1] * 210, [0, 0, 0, 0.5, 0.5, 0.5, 0.5], [1] * 7, [0] * 7),
    ],
)
def test_activation_by_hand(courses, valid, values, shares, first_windows):
    """Mean over three frames, highest less first, over the windows whose frames are all valid, clip by clip."""
    found = alpha(clips(*courses), valid)
    assert_allclose(found.values, np.tile(np.array(values)[:, None], 12), atol=1e-12)
    assert found.valid_share.tolist() == shares
    assert found.first_window.tolist() == first_windows


@pytest.mark.parametrize(
    ("fps", "frames"),
    [(30, 3), (60, 6), (25, 2), (29.97, 3), (24, 2), (15, 2), (10, 1), (1, 1), (25.4, 2), (34.6, 4)],
)
def test_window_length(fps, frames):
    """A tenth of a second in whole frames, of the rate in whole frames (25.4 is 25, 34.6 is 35).

    Halves go to the even number (2.5 → 2, 3.5 → 4); a window has one frame at least.
    """
    assert window_lengths(clips(np.zeros(150), frames_per_second=fps), 0.1).tolist() == [frames]


def test_clips_shorter_than_a_window():
    """A single frame has no rate; the window is that frame. Two frames at 60 FPS have no window."""
    assert window_lengths(clips([1.0]), 0.1).tolist() == [1]
    assert_allclose(alpha(clips([1.0])).values, 0.0)
    assert alpha(clips([0, 3], frames_per_second=60)).first_window.tolist() == [-1]


def test_an_au_that_a_clip_does_not_have():
    """Its activation is NaN; that of the other AUs, and of clips that have it, is as without the gap."""
    course = np.random.default_rng(3).uniform(0, 5, (3, 20, 12)).round(3)
    whole = alpha(clips(*course)).values
    course[1, :, 4] = np.nan
    found = alpha(clips(*course)).values
    assert np.isnan(found[1, 4]) and np.isnan(found).sum() == 1
    there = ~np.isnan(found)
    assert found[there].tobytes() == whole[there].tobytes()


@st.composite
def clip_files(draw):
    """Texts of a few clips with faces lost here and there, values with 3 decimals."""
    texts = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 40))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        lost = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.4, 0.9]))
        intensities = np.where(lost[:, None], -1.0, rng.uniform(-1, 5, (n, 12)).round(3))
        confidence = rng.choice([0.899, 0.9, 0.95], n, p=[0.05, 0.5, 0.45])
        pitch = rng.choice([0.55, 0.7, 0.85, 0.851], n, p=[0.4, 0.3, 0.25, 0.05])
        yaw = rng.choice([0.3, 0.5, 0.7, 0.299], n, p=[0.4, 0.3, 0.25, 0.05])
        others = {
            "face_detection_confidence_score": np.where(lost, 0.0, confidence),
            "pitch_indicative_ratio": np.where(lost, -1.0, pitch),
            "yaw_indicative_ratio": np.where(lost, -1.0, yaw),
        }
        texts.append(clip_text(intensities, draw(st.sampled_from([10.0, 25.0, 30.0, 60.0])), **others))
    return texts


@given(clip_files())
def test_against_the_plain_loop(tmp_path_factory, texts):
    """The same values, shares and clips without a window as window by window; alone as in a batch, to the last bit."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{i}.csv" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)

    def activation(chosen):
        features, problems = read_clips(chosen)
        assert problems == []
        return clip_activation(features, valid_frames(features, config.FRAME_LIMITS), 0.1)

    found = activation(paths)
    assert found.values.tobytes() == np.vstack([activation([path]).values for path in paths]).tobytes()
    for path, values, share, first in zip(paths, found.values, found.valid_share, found.first_window, strict=True):
        expected, expected_share = plain_activation(path, limits=config.FRAME_LIMITS, window_seconds=0.1)
        assert share == expected_share
        assert (first < 0) == (expected is None)
        if expected is not None:
            assert_allclose(values, expected, atol=1e-12, rtol=0)
            assert (values >= 0).all()


@pytest.mark.parametrize(("n_lost", "valid"), [(5, True), (6, True), (7, False)])
def test_clip_with_a_fifth_of_its_frames_lost_is_valid(tiny, capsys, n_lost, valid):
    """6 of 30 frames lost leave 0.8, which is enough; 7 do not. The black image's clip counts as valid."""
    name = "data/102/session_1/reaction_clip_2_features.csv"
    confidence = np.where(np.arange(30) < n_lost, 0.0, 0.95)
    tiny.path(name).write_text(clip_text(np.zeros(30), face_detection_confidence_score=confidence))
    tiny.run("preprocess_reaction_data")
    table = pd.read_csv(tiny.path("preparation/preprocessed_reaction_data/102.csv"))
    assert ((table["session_index"] == 1) & (table["image_index"] == 2)).any() == valid
    out = capsys.readouterr().out
    assert f"{20 if valid else 19} clips are valid, 1 of them reactions to black images" in out
    later = f"In 1 clips the first valid window starts after the first frame (at most {n_lost} frames later)."
    assert (later in out) == valid


PRINTED = """{0} {kind} clips of 33 participants, {1} frames.
{2} clips are valid{black}.
{3} clips x 12 AUs = {4} activation values.
In {5} clips the first valid window starts after the first frame (at most 30 frames later)."""
OF_BLACK = ", 36 of them reactions to black images, which are not in the tables"


@pytest.mark.parametrize(
    ("kind", "counts", "black"),
    [
        ("baseline", (2880, 435_375, 2044, 2044, 24_528, 126), ""),
        ("reaction", (2880, 433_035, 2253, 2217, 26_604, 184), OF_BLACK),
    ],
)
def test_published_values(published, published_root, kind, counts, black, capsys):
    """All 51,132 published activation values, exactly, and no other row; clips, frames, valid clips, later starts."""
    n_rows = n_values = 0
    for expected in sorted((published / "preparation" / f"preprocessed_{kind}_data").glob("*.csv")):
        ours = pd.read_csv(published_root / "preparation" / f"preprocessed_{kind}_data" / expected.name)
        pd.testing.assert_frame_equal(ours, pd.read_csv(expected), check_exact=True)
        n_rows += len(ours)
        n_values += ours[list(ACTIVATION_COLUMNS)].size
    assert (n_rows, n_values) == counts[3:5]
    importlib.import_module(f"preprocess_{kind}_data").main(["--root", str(published_root)])
    printed = capsys.readouterr().out.rpartition("\nWrote 33 tables to ")[0]
    assert printed == PRINTED.format(*counts, kind=kind, black=black)
