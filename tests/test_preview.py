"""The picture of a video: what it shows, and that finished clips get theirs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from filmed import GREY, film, moving_face, portrait, shared_aligner, snapshot, without_workers
from PIL import Image
from test_clips import FACEMESH

import clips_facial_process as stage
import config
from fergi import preview
from fergi.action_units.network import random_network
from fergi.features import NO_FACE, format_clip, read_clips, valid_frames
from fergi.files import FergiError
from fergi.preview import preview_figure, write_preview
from fergi.weights import save_weights

FACE = [0.95, 0.7, 0.5, *[1.0] * 12]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with an AU model and two videos, one of them without any face."""
    root = tmp_path_factory.mktemp("preview")
    save_weights(random_network("ir10-thin", 5).state_dict(), root / "AU_models/checkpoint_epoch3.pth")
    film(root / "in/me/face.avi", [*moving_face(8), GREY], "MJPG", rate=10)
    film(root / "in/none.avi", [GREY] * 4, "MJPG")
    return root


def written(path: Path, values: list, rate: float = 30.0) -> Path:
    path.write_bytes(format_clip(np.arange(len(values)) / rate, values, 3))
    return path


def texts(figure) -> list[str]:
    """Everything that is written in a figure."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def test_finished_clips_get_their_pictures_once(root, capsys, monkeypatch):
    """In the subfolders of the features; made again for newer features, and for no others."""
    without_workers(monkeypatch)
    options = ["--root", str(root), "--videos", str(root / "in"), "--out", str(root / "out"), "--workers", "1"]
    options += ["--network", "ir10-thin", "--device", "cpu"]
    stage.main(options)
    features = snapshot(root / "out")
    stage.main([*options, "--preview", str(root / "seen")])
    assert "Wrote 2 pictures into " in capsys.readouterr().out
    pictures = snapshot(root / "seen")
    assert list(pictures) == ["me/face.png", "none.png"] and snapshot(root / "out") == features
    for name in pictures:
        image = np.asarray(Image.open(root / "seen" / name).convert("RGB"))
        assert image.shape[0] > 1000 and image.std() > 10
    (root / "seen/none.png").write_bytes(b"mine")
    newer = (root / "seen/me/face.png").stat().st_mtime + 2
    os.utime(root / "out/me/face_features.csv", (newer, newer))
    stage.main([*options, "--preview", str(root / "seen")])
    assert "Wrote 1 pictures into " in capsys.readouterr().out
    assert snapshot(root / "seen", "none.png") == {"none.png": b"mine"}


def shown(tmp_path, values: list, pictures: list[np.ndarray]):
    """The figure of a clip of those values and pictures at 10 FPS."""
    clip, problems = read_clips([written(tmp_path / "features.csv", values, 10.0)])
    assert problems == []
    aligned = shared_aligner(FACEMESH).align(pictures)
    frames = [preview._shown(number, *each) for number, each in enumerate(zip(pictures, aligned, strict=True))]
    return preview_figure("holiday $1.mp4", frames, clip, valid_frames(clip, config.FRAME_LIMITS), "made up"), frames


def test_what_a_figure_shows(tmp_path):
    """Every AU that was estimated has a panel with its course; missing ones are named; invalid frames are shaded."""
    one = [0.95, 0.7, 0.5, *np.arange(12.0)]
    two = [0.5, *one[1:]]  # not detected well enough
    for row in (one, two):
        row[3 + 5] = np.nan  # AU9
    figure, frames = shown(tmp_path, [one, NO_FACE, two, one], [portrait(), GREY, portrait(), portrait()])
    said = texts(figure)
    assert "holiday $1.mp4: 4 frames, 3 with a face, 2 valid; not estimated: AU9\nmade up" in said
    assert "AU12, lip corner puller" in said and "AU4, brow lowerer" in said
    assert not any(text.startswith("AU9") for text in said)
    assert "2: frame 2, 0.10 s, not valid\nno face" in said
    assert sum(text.endswith(("pitch 0.70, yaw 0.50", "no face")) or "score" in text for text in said) == 4
    panels = {panel.get_title("left"): panel for panel in figure.findobj(preview.Axes) if panel.get_title("left")}
    assert len(panels) == 11
    (course,) = panels["AU12, lip corner puller"].get_lines()
    np.testing.assert_array_equal(course.get_ydata(), [6, np.nan, 6, 6])
    (shade,) = (patch for patch in panels["AU12, lip corner puller"].patches if patch.get_facecolor()[:3] != (1, 1, 1))
    assert shade.get_extents().width > 0
    low, high = shade.get_x(), shade.get_x() + shade.get_width()
    assert (low, high) == pytest.approx((0.05, 0.25))  # frames 2 and 3, from half a frame before to half behind
    assert frames[1].landmarks is None and frames[0].landmarks.shape == (68, 2)
    assert ((frames[0].landmarks > 0) & (frames[0].landmarks < 300)).all()


def test_a_video_without_a_face(tmp_path):
    figure, _ = shown(tmp_path, [NO_FACE] * 2, [GREY] * 2)
    said = texts(figure)
    assert "No frame has a face, so there are no AUs." in said and "1: frame 1, 0.00 s, not valid\nno face" in said
    assert "holiday $1.mp4: 2 frames, 0 with a face, 0 valid\nmade up" in said
    assert not any(text.startswith("AU") for text in said)


def test_landmarks_stay_on_the_face_in_a_large_picture(tmp_path):
    """1920 × 1080 with the face in a corner: the part around it is shown, and the pupils are where they were."""
    large = np.full((1080, 1920, 3), 90, np.uint8)
    large[-960:, -960:] = cv2.resize(portrait(), (960, 960))
    _, (frame, _) = shown(tmp_path, [FACE, FACE], [large, portrait()])
    assert frame.picture.shape == (300, 300, 3)
    scale = 300 / (1.6 * max(frame.face.box[2:]))
    eyes = frame.landmarks[36:48].mean(axis=0) / scale + np.add(frame.face.box[:2], np.divide(frame.face.box[2:], 2))
    eyes = eyes - 150 / scale
    (alone,) = shared_aligner(FACEMESH).align([portrait()])
    expected = alone.landmarks[36:48].mean(axis=0) * 5 + (960, 120)
    assert np.hypot(*(eyes - expected)) < 10


@pytest.mark.parametrize(("n_features", "content", "message"), [
    (9, None, r"a\.avi has no frame 6, though a_features\.csv has\. Put the video there that the features were made"),
    (4, b"not a video", r"a\.avi is not a video that OpenCV can open\. Put the whole video there\."),
    (0, None, r"a_features\.csv has a header but no frames\. Make it again with clips_facial_process\.py\."),
])  # fmt: skip
def test_videos_and_features_that_do_not_fit(tmp_path, n_features, content, message):
    """One sentence, and no picture."""
    video = film(tmp_path / "a.avi", [GREY] * 4, "MJPG")
    if content:
        video.write_bytes(content)
    features = written(tmp_path / "a_features.csv", [NO_FACE] * n_features)
    before = snapshot(tmp_path)
    with pytest.raises(FergiError, match=message) as caught:
        write_preview(tmp_path / "a.png", video, features, shared_aligner(FACEMESH), limits=config.FRAME_LIMITS)
    assert "\n" not in str(caught.value) and snapshot(tmp_path) == before
