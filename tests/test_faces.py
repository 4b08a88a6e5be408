"""From a picture to an aligned face; test_picture_operations.py compares each step with the original functions."""

from pathlib import Path

import cv2
import mediapipe
import numpy as np
import pytest
import torch
from formula import formula_weights
from rounding import float32_bound
from skimage.data import astronaut

from fergi.faces.alignment import Crop, align_face, crop_face, face_frame
from fergi.faces.detection import MODEL_FILE, Detection, FaceDetector, detector_model
from fergi.faces.equalisation import equalise
from fergi.faces.landmarks import FACEMESH_POINTS, MOBILEFACENET_FILE, FaceMesh, MobileFaceNetLandmarks, surroundings
from fergi.faces.mobilefacenet import MobileFaceNet
from fergi.faces.pipeline import AlignmentSettings, FaceAligner, alignment_settings
from fergi.files import FergiError
from fergi.weights import save_weights

BLANK = np.zeros((200, 200, 3), np.uint8)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Eileen Collins, from scikit-image, in the public domain: one frontal face."""
    return astronaut()


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner(alignment_settings(Path("no weights"), None))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(detector_model(Path("no weights"))[0])


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory) -> Path:
    """A folder with the checkpoint of which the original network's outputs are known."""
    folder = tmp_path_factory.mktemp("weights")
    save_weights({"state_dict": formula_weights(MobileFaceNet().state_dict())}, folder / MOBILEFACENET_FILE)
    return folder


# Crop


@pytest.mark.parametrize(
    ("side", "box", "origin", "shape", "inside"),
    [
        (300, (100, 50, 40, 80), (95, 34), (100, 50), np.s_[:, :]),  # 16 above, 4 below, 5 at each side
        (50, (-20, 30, 40, 40), (-25, 22), (50, 50), np.s_[:28, 25:]),
        (50, (200, 200, 20, 20), (198, 196), (25, 24), np.s_[:0, :0]),
    ],
)
def test_crop_by_hand(side, box, origin, shape, inside):
    """Black beyond the picture, also if all of it is."""
    crop = crop_face(np.full((side, side, 3), 7, np.uint8), box)
    expected = np.zeros((*shape, 3), np.uint8)
    expected[inside] = 7
    assert crop.origin == origin
    np.testing.assert_array_equal(crop.picture, expected)


# Alignment


@pytest.fixture
def upright_face() -> np.ndarray:
    """Landmarks of a symmetric upright face: eyes at (40, 50) and (80, 50), jaw from 20 to 100, chin at 110."""
    points = np.zeros((68, 2))
    points[0], points[16] = (20, 50), (100, 50)
    points[9] = (60, 110)
    points[36:42], points[42:48] = (40, 50), (80, 50)
    points[31:36] = (60, 78)
    points[48], points[54] = (50, 90), (70, 90)
    return points


def test_frame_by_hand(upright_face):
    """60 from eyes to chin: 63 down and 30 up; 28 of 40 to the nostrils; 20 from each eye to the jaw."""
    frame = face_frame(upright_face)
    np.testing.assert_allclose(frame.corners, [(20, 20), (20, 113), (100, 113), (100, 20)])
    assert (frame.width, frame.height) == (80, 93)
    assert frame.pitch_ratio == pytest.approx(28 / 40)
    assert frame.yaw_ratio == pytest.approx(0.5)
    upright_face[0], upright_face[16] = (35, 50), (95, 50)  # the jaw 5 from the left eye and 15 from the right one
    assert face_frame(upright_face).yaw_ratio == pytest.approx(0.25)


def test_alignment_of_an_upright_frame_cuts_it_out(upright_face):
    """At a scale of one; half a pixel to the right and down, as the release has it: 2 x becomes 2 (20 + x + 0.5)."""
    ramp = np.zeros((200, 127, 3), np.uint8)
    ramp[...] = 2 * np.arange(127)[None, :, None]
    aligned = align_face(ramp, face_frame(upright_face), size=93)
    assert aligned.shape == (93, 80, 3)
    np.testing.assert_array_equal(aligned[:-1, :-1, 0], np.tile(41 + 2 * np.arange(79), (92, 1)))


@pytest.mark.parametrize("change", [lambda p: 0 * p, lambda p: np.nan * p, lambda p: np.where(p == 110, 20, p)])
def test_points_that_make_no_face(upright_face, change):
    """One point, no points, and a chin above the eyes."""
    with pytest.raises(ValueError, match="do not make a face"):
        face_frame(change(upright_face))


def test_a_frame_outside_the_picture(upright_face):
    with pytest.raises(ValueError, match="outside the picture"):
        align_face(np.zeros((50, 50, 3), np.uint8), face_frame(upright_face + 500))


# Contrast


@pytest.mark.parametrize(("levels", "expected"), [((100, 200), (0, 255)), ((100, 100), (100, 100))])
def test_equalisation_by_hand(levels, expected):
    """Two equally frequent greys go to 0 and 255, equalised as well as stretched; a single one stays."""
    face, equalised = (np.repeat(each, 8).reshape(4, 4, 1).astype(np.uint8) + [0] * 3 for each in (levels, expected))
    np.testing.assert_array_equal(equalise(face.astype(np.uint8)), equalised)


def test_luma_orders_differ_in_red_and_blue_only():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8), 3, axis=2)
    np.testing.assert_array_equal(equalise(grey, "released"), equalise(grey, "correct"))
    coloured = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    released, correct = equalise(coloured, "released"), equalise(coloured, "correct")
    assert (released != correct).any()
    np.testing.assert_array_equal(equalise(coloured[..., ::-1], "correct")[..., ::-1], released)


# Detection


def test_of_two_faces_the_wider_counts(picture, detector):
    small = cv2.resize(picture, (300, 300))
    both = np.zeros((512, 812, 3), np.uint8)
    both[:300, :300], both[:, 300:] = small, picture
    wide, alone = detector.detect(both), detector.detect(picture)
    assert abs(wide.box[0] - 300 - alone.box[0]) < 10 and abs(wide.box[2] - alone.box[2]) < 10


def test_a_file_that_is_no_detector(tmp_path):
    (tmp_path / MODEL_FILE).write_text("not a model")
    with pytest.raises(FergiError, match=r"blaze_face_short_range.tflite is no face detector that mediapipe can load"):
        FaceDetector(detector_model(tmp_path)[0])


# Landmarks


def test_facemesh_points_lie_on_the_face(picture, detector):
    """Read off the picture by eye: pupils, mouth corners, tip of the nose, chin; within 6 pixels."""
    face = detector.detect(picture)
    crop = crop_face(picture, face.box)
    (points,) = FaceMesh().locate([picture], [face], [crop])
    points = points + crop.origin
    for found, seen in (
        (points[36:42].mean(axis=0), (203, 101)),
        (points[42:48].mean(axis=0), (245, 104)),
        (points[48], (202, 139)),
        (points[54], (244, 141)),
        (points[30], (223, 127)),
        (points[8], (222, 177)),
    ):
        assert np.hypot(*(found - seen)) < 6
    assert len(set(FACEMESH_POINTS)) == 68


@pytest.mark.parametrize("enlarged", [1, 2])
def test_facemesh_is_mediapipes_to_the_last_bit(picture, detector, enlarged):
    """Its points are read from the graph's bytes, past mediapipe's Python class, which is the truth here."""
    seen = cv2.resize(picture, None, fx=enlarged, fy=enlarged)
    face = detector.detect(seen)
    (found,) = FaceMesh().locate([seen], [face], [Crop(seen, (0, 0))])
    part, origin = surroundings(seen, face.box)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
    (points,) = mesh.process(np.ascontiguousarray(part)).multi_face_landmarks
    unit = np.array([(points.landmark[index].x, points.landmark[index].y) for index in FACEMESH_POINTS])
    np.testing.assert_array_equal(found, unit * part.shape[1::-1] + origin)


@pytest.mark.parametrize("shift", [-90, 90, 250, None])
def test_facemesh_takes_the_detected_face_only(picture, shift):
    """Not one beside the detection, nearby or far away; nor one where there is none."""
    face = Detection((177 + (shift or 0), 82, 95, 95), 0.9)
    seen = BLANK if shift is None else picture
    assert FaceMesh().locate([seen], [face], [crop_face(seen, face.box)]) == [None]


def test_mobilefacenet_landmarks_are_pytorchs_in_pixels_of_each_crop(weights_folder):
    """The network in OpenVINO is that in PyTorch to the rounding of float32; one face is independent of another."""
    back_end, network = MobileFaceNetLandmarks(weights_folder), MobileFaceNet().eval()
    network.load_state_dict(torch.load(weights_folder / MOBILEFACENET_FILE, weights_only=True)["state_dict"])
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, 112, 112, 3), np.uint8)
    with torch.inference_mode():
        unit = network(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).numpy()
    crops = [Crop(picture, (0, 0)) for picture in pictures]
    together = back_end.locate([None] * 3, [None] * 3, crops)
    for crop, points, wanted in zip(crops, together, unit, strict=True):
        np.testing.assert_allclose(points / 112, wanted.reshape(68, 2), rtol=0, atol=float32_bound(unit))
        np.testing.assert_array_equal(points, back_end.locate([None], [None], [crop])[0])
    taller = Crop(np.repeat(pictures[0], 2, axis=0), (0, 0))
    assert back_end.locate([None], [None], [taller])[0].shape == (68, 2)
    assert back_end.locate([], [], []) == []


def test_missing_and_damaged_landmark_weights(tmp_path, weights_folder):
    content = (weights_folder / MOBILEFACENET_FILE).read_bytes()
    for some in (None, content[: len(content) // 2]):
        if some:
            (tmp_path / MOBILEFACENET_FILE).write_bytes(some)
        with pytest.raises(FergiError, match=MOBILEFACENET_FILE):
            FaceAligner(AlignmentSettings(tmp_path, "mobilefacenet"))


# The whole way


def test_the_astronaut_is_aligned_and_looks_ahead(picture, aligner):
    """Whatever the frames before it are."""
    moved = np.roll(picture, 40, axis=1)
    first, face, nothing, last = aligner.align([moved, picture, np.zeros_like(picture), moved])
    assert nothing is None
    assert face.picture.shape == (112, 112, 3) and face.picture.dtype == np.uint8
    assert 0.55 <= face.pitch_ratio <= 0.85
    assert 0.3 <= face.yaw_ratio <= 0.7
    (alone,) = aligner.align([picture])
    np.testing.assert_array_equal(face.picture, alone.picture)
    np.testing.assert_array_equal(first.picture, last.picture)
    assert face.score == alone.score


def test_landmarks_that_make_no_face_count_as_no_face(picture, weights_folder, monkeypatch):
    monkeypatch.setattr(
        MobileFaceNetLandmarks, "locate", lambda _, pictures, *more: [np.zeros((68, 2))] * len(pictures)
    )
    assert FaceAligner(alignment_settings(weights_folder, None)).align([picture]) == [None]


def test_settings_say_what_was_used(tmp_path, weights_folder):
    """The paper's landmarks by default where their weights are; the detector of the weights folder if it is there."""
    by_default = alignment_settings(tmp_path, None).settings
    assert by_default["landmarks"] == "facemesh" and by_default["mediapipe"].startswith("0.10")
    assert "mediapipe 0.10" in by_default["detector"] and "bundled" in by_default["detector"]
    (tmp_path / MODEL_FILE).write_bytes(detector_model(tmp_path)[0].read_bytes())
    assert alignment_settings(tmp_path, None).settings["detector"].startswith(f"{MODEL_FILE}, SHA-256 ")
    assert detector_model(tmp_path)[0] == tmp_path / MODEL_FILE
    of_paper = alignment_settings(weights_folder, None, "correct").settings
    assert of_paper["landmarks"] == "mobilefacenet" and of_paper["luma"] == "correct"
    assert of_paper["landmarks_runtime"].startswith("openvino 20") and "landmarks_runtime" not in by_default
    assert alignment_settings(weights_folder, "facemesh").landmarks == "facemesh"
