"""From a picture to an aligned face, against what the original functions gave for the same inputs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula import formula_weights
from skimage.data import astronaut

from fergi.faces.alignment import Crop, align_face, crop_face, face_frame
from fergi.faces.detection import MODEL_FILE, Detection, FaceDetector, detector_model
from fergi.faces.equalisation import equalise, pad_to_square
from fergi.faces.landmarks import (
    FACEMESH_POINTS,
    MOBILEFACENET_FILE,
    FaceMesh,
    MobileFaceNetLandmarks,
    choose_back_end,
    load_landmarks,
)
from fergi.faces.mobilefacenet import MobileFaceNet, load_mobilefacenet
from fergi.faces.pipeline import AlignmentSettings, FaceAligner, alignment_settings
from fergi.files import FergiError
from fergi.weights import save_weights


@pytest.fixture
def load_vectors(vectors):
    """Inputs and outputs of an original function, by its name."""
    return lambda name: dict(np.load(vectors / f"{name}.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Eileen Collins, from scikit-image, in the public domain: one frontal face."""
    return astronaut()


@pytest.fixture(scope="module")
def aligner(tmp_path_factory) -> FaceAligner:
    return FaceAligner(alignment_settings(tmp_path_factory.mktemp("no_weights"), None))


# Crop


@pytest.mark.parametrize("case", range(4))
def test_crop_is_the_original_one(case, load_vectors):
    vectors = load_vectors("face_crop")
    box = tuple(int(side) for side in vectors[f"case{case}_box_xywh"])
    np.testing.assert_array_equal(crop_face(vectors["image_rgb"], box).picture, vectors[f"case{case}_crop"])


def test_crop_by_hand():
    """A box of 40 × 80 at (100, 50): 16 above, 4 below, 5 at each side."""
    crop = crop_face(np.full((300, 300, 3), 7, np.uint8), (100, 50, 40, 80))
    assert crop.origin == (95, 34)
    assert crop.picture.shape == (100, 50, 3) and (crop.picture == 7).all()


def test_crop_beyond_the_picture_is_black():
    crop = crop_face(np.full((50, 50, 3), 7, np.uint8), (-20, 30, 40, 40))
    assert crop.origin == (-25, 22)
    inside = np.zeros((50, 50), bool)
    inside[:28, 25:] = True
    assert (crop.picture[inside] == 7).all() and (crop.picture[~inside] == 0).all()


def test_crop_wholly_outside_is_black():
    crop = crop_face(np.full((50, 50, 3), 7, np.uint8), (200, 200, 20, 20))
    assert crop.picture.shape == (25, 24, 3) and not crop.picture.any()


# Alignment


@pytest.mark.parametrize("case", range(6))
def test_alignment_equalisation_and_padding_are_the_original_ones_to_the_pixel(case, load_vectors):
    vectors = {name.removeprefix(f"case{case}_"): array for name, array in load_vectors("face_alignment").items()}
    picture = vectors["input_rgb"]
    frame = face_frame(vectors["landmarks68"].astype(float) * picture.shape[1::-1])
    aligned = align_face(picture, frame)
    np.testing.assert_array_equal(aligned, vectors["aligned_rgb"])
    equalised = equalise(aligned)
    np.testing.assert_array_equal(equalised, vectors["equalized"])
    np.testing.assert_array_equal(pad_to_square(equalised), vectors["padded"])
    np.testing.assert_allclose([frame.pitch_ratio, frame.yaw_ratio], vectors["pir_yir"], rtol=0, atol=1e-12)


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


@pytest.mark.parametrize("degrees", [-40, 17, 90])
def test_frame_turns_with_the_face(upright_face, degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned, frame = face_frame(upright_face @ turn * 2.5 + 300), face_frame(upright_face)
    np.testing.assert_allclose(turned.corners, frame.corners @ turn * 2.5 + 300)
    assert turned.pitch_ratio == pytest.approx(frame.pitch_ratio)
    assert turned.yaw_ratio == pytest.approx(frame.yaw_ratio)


def test_yaw_ratio_by_hand(upright_face):
    """The jaw 5 from the left eye and 15 from the right one."""
    upright_face[0], upright_face[16] = (35, 50), (95, 50)
    assert face_frame(upright_face).yaw_ratio == pytest.approx(0.25)


def test_alignment_of_an_upright_frame_cuts_it_out(upright_face):
    """At a scale of one; half a pixel to the right and down, as the release has it: 2 x becomes 2 (20 + x + 0.5)."""
    ramp = np.zeros((200, 127, 3), np.uint8)
    ramp[...] = 2 * np.arange(127)[None, :, None]
    aligned = align_face(ramp, face_frame(upright_face), size=93)
    assert aligned.shape == (93, 80, 3)
    np.testing.assert_array_equal(aligned[:-1, :-1, 0], np.tile(41 + 2 * np.arange(79), (92, 1)))


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_points_that_make_no_face(points):
    with pytest.raises(ValueError, match="do not make a face"):
        face_frame(points)


def test_an_upside_down_chin_makes_no_face(upright_face):
    upright_face[9] = (60, 20)
    with pytest.raises(ValueError, match="do not make a face"):
        face_frame(upright_face)


def test_a_frame_outside_the_picture(upright_face):
    with pytest.raises(ValueError, match="outside the picture"):
        align_face(np.zeros((50, 50, 3), np.uint8), face_frame(upright_face + 500))


# Contrast


def test_equalisation_by_hand():
    """Grey of two equally frequent values 100 and 200: equalised to 0 and 255 and stretched to 0 and 255."""
    face = np.full((4, 4, 3), 100, np.uint8)
    face[:, 2:] = 200
    expected = np.zeros_like(face)
    expected[:, 2:] = 255
    np.testing.assert_array_equal(equalise(face), expected)


def test_a_face_of_one_brightness_stays():
    face = np.full((4, 4, 3), 100, np.uint8)
    np.testing.assert_array_equal(equalise(face), face)


def test_luma_orders_differ_in_red_and_blue_only():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8), 3, axis=2)
    np.testing.assert_array_equal(equalise(grey, "released"), equalise(grey, "correct"))
    coloured = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    released, correct = equalise(coloured, "released"), equalise(coloured, "correct")
    assert (released != correct).any()
    np.testing.assert_array_equal(equalise(coloured[..., ::-1], "correct")[..., ::-1], released)


def test_an_unknown_luma_order():
    with pytest.raises(ValueError, match="luma must be one of released, correct, not 'blue'"):
        equalise(np.zeros((2, 2, 3), np.uint8), "blue")


@pytest.mark.parametrize(("shape", "place"), [((112, 107), (0, 2)), ((104, 112), (4, 0)), ((112, 112), (0, 0))])
def test_padding_is_centred(shape, place):
    padded = pad_to_square(np.full((*shape, 3), 9, np.uint8))
    assert padded.shape == (112, 112, 3)
    inside = np.zeros((112, 112), bool)
    inside[place[0] : place[0] + shape[0], place[1] : place[1] + shape[1]] = True
    assert (padded[inside] == 9).all() and not padded[~inside].any()


# Detection


def test_the_detector_finds_the_astronaut(picture, aligner):
    """Score and box as measured with mediapipe's own demonstration of the same model."""
    face = aligner._detector.detect(picture)
    assert face.score == pytest.approx(0.92174, abs=5e-6)
    assert face.box == (177, 82, 95, 95)


def test_the_detector_finds_nothing_in_nothing(aligner):
    assert aligner._detector.detect(np.zeros((480, 640, 3), np.uint8)) is None


def test_of_two_faces_the_wider_counts(picture, aligner):
    small = cv2.resize(picture, (300, 300))
    both = np.zeros((512, 812, 3), np.uint8)
    both[:300, :300], both[:, 300:] = small, picture
    wide = aligner._detector.detect(both)
    alone = aligner._detector.detect(picture)
    assert abs(wide.box[0] - 300 - alone.box[0]) < 10 and abs(wide.box[2] - alone.box[2]) < 10


def test_the_detector_comes_from_the_weights_folder_if_it_is_there(tmp_path):
    bundled, where = detector_model(tmp_path)
    assert "bundled" in where
    (tmp_path / MODEL_FILE).write_bytes(bundled.read_bytes())
    file, what = detector_model(tmp_path)
    assert file == tmp_path / MODEL_FILE and what.startswith(f"{MODEL_FILE}, SHA-256 ")


def test_a_file_that_is_no_detector(tmp_path):
    (tmp_path / MODEL_FILE).write_text("not a model")
    with pytest.raises(FergiError, match=r"blaze_face_short_range.tflite is no face detector that mediapipe can load"):
        FaceDetector(detector_model(tmp_path)[0])


# Landmarks


def test_facemesh_points_lie_on_the_face(picture, aligner):
    """Read off the picture by eye: pupils, mouth corners, tip of the nose, chin; within 6 pixels."""
    face = aligner._detector.detect(picture)
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


def test_facemesh_finds_nothing_in_nothing():
    blank = np.zeros((200, 200, 3), np.uint8)
    face = Detection((50, 50, 80, 80), 0.9)
    assert FaceMesh().locate([blank], [face], [crop_face(blank, face.box)]) == [None]


@pytest.mark.parametrize("shift", [-90, 90, 250])
def test_facemesh_does_not_take_somebody_else(picture, shift):
    """A face beside the detection, nearby or far away, is not the one that was detected."""
    face = Detection((177 + shift, 82, 95, 95), 0.9)
    assert FaceMesh().locate([picture], [face], [crop_face(picture, face.box)]) == [None]


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory) -> Path:
    """A folder with the checkpoint of which the original network's outputs are known."""
    folder = tmp_path_factory.mktemp("weights")
    save_weights({"state_dict": formula_weights(MobileFaceNet().state_dict())}, folder / MOBILEFACENET_FILE)
    return folder


def test_mobilefacenet_is_the_original_network(weights_folder, load_vectors):
    vectors = load_vectors("network_forward")
    pictures = torch.from_numpy(vectors["images_uint8"]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        output = load_mobilefacenet(weights_folder / MOBILEFACENET_FILE).eval()(pictures).numpy()
    expected = vectors["mobilefacenet_output"]
    assert np.abs(output - expected).max() < 1e-4 * np.abs(expected).max()


def test_mobilefacenet_entries_are_those_of_the_checkpoint(vectors):
    entries = {name: list(entry.shape) for name, entry in MobileFaceNet().state_dict().items()}
    assert list(entries.items()) == list(json.loads((vectors / "mobilefacenet_state_dict.json").read_text()).items())


def test_mobilefacenet_landmarks_do_not_depend_on_the_batch_and_scale_with_the_crop(weights_folder):
    back_end = MobileFaceNetLandmarks(weights_folder / MOBILEFACENET_FILE)
    random = np.random.default_rng(0)
    crops = [Crop(random.integers(0, 256, (112, 112, 3), np.uint8), (0, 0)) for _ in range(11)]
    together = back_end.locate([None] * 11, [None] * 11, crops)
    for crop, points in zip(crops, together, strict=True):
        (alone,) = back_end.locate([None], [None], [crop])
        np.testing.assert_array_equal(points, alone)
    wider = Crop(np.repeat(crops[0].picture, 2, axis=1), (0, 0))
    (points,) = back_end.locate([None], [None], [wider])
    assert points.shape == (68, 2)
    assert back_end.locate([], [], []) == []


def test_the_papers_landmarks_are_the_default_where_their_weights_are(tmp_path, weights_folder):
    assert choose_back_end(None, tmp_path) == "facemesh"
    assert choose_back_end(None, weights_folder) == "mobilefacenet"
    assert choose_back_end("facemesh", weights_folder) == "facemesh"
    assert load_landmarks("mobilefacenet", weights_folder).name == "mobilefacenet"
    with pytest.raises(ValueError, match="back_end must be one of mobilefacenet, facemesh, not 'dlib'"):
        load_landmarks("dlib", weights_folder)


def test_missing_and_damaged_landmark_weights(tmp_path, weights_folder):
    with pytest.raises(FergiError, match=MOBILEFACENET_FILE):
        load_landmarks("mobilefacenet", tmp_path)
    content = (weights_folder / MOBILEFACENET_FILE).read_bytes()
    (tmp_path / MOBILEFACENET_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(FergiError, match=MOBILEFACENET_FILE):
        load_landmarks("mobilefacenet", tmp_path)


# The whole way


def test_the_astronaut_is_aligned_and_looks_ahead(picture, aligner):
    face, nothing = aligner.align([picture, np.zeros_like(picture)])
    assert nothing is None
    assert face.picture.shape == (112, 112, 3) and face.picture.dtype == np.uint8
    assert 0.55 <= face.pitch_ratio <= 0.85
    assert 0.3 <= face.yaw_ratio <= 0.7


def test_a_frame_does_not_depend_on_those_before_it(picture, aligner):
    moved = np.roll(picture, 40, axis=1)
    after = aligner.align([moved, picture, moved])
    alone = aligner.align([picture])[0]
    np.testing.assert_array_equal(after[1].picture, alone.picture)
    np.testing.assert_array_equal(after[0].picture, after[2].picture)
    assert after[1].score == alone.score


def test_landmarks_that_make_no_face_count_as_no_face(picture, weights_folder):
    """The network with weights made by a rule puts landmarks anywhere."""
    settings = AlignmentSettings(weights_folder, "mobilefacenet")
    aligner = FaceAligner(settings)
    aligner._landmarks.locate = lambda pictures, faces, crops: [np.zeros((68, 2)) for _ in crops]
    assert aligner.align([picture]) == [None]


def test_settings_say_what_was_used(tmp_path, weights_folder):
    assert alignment_settings(tmp_path, None).settings["landmarks"] == "facemesh"
    (tmp_path / MODEL_FILE).touch()
    assert alignment_settings(tmp_path, None).settings["mediapipe"].startswith("0.10")
    described = alignment_settings(weights_folder, None, "correct").settings
    assert described["landmarks"] == "mobilefacenet" and described["luma"] == "correct"
    assert "mediapipe 0.10" in described["detector"]
