"""Drawn faces before the detector and FaceMesh that real faces meet: found, valid, moved as they were told."""

from pathlib import Path

import numpy as np
import pytest

from fergi.faces.alignment import Crop
from fergi.faces.detection import Detection
from fergi.faces.landmarks import FaceMesh
from fergi.faces.pipeline import FaceAligner, alignment_settings
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from synthetic import expressions
from synthetic.expressions import DISPLACEMENTS, SHEET, Actor, View, anchors, contact_sheet, expression, find_actor
from synthetic.people import BEARDS, STYLES, random_person

REST = expression()
EYES, BROWS, CORNERS = slice(36, 48), slice(20, 24), [48, 54]  # of the 68 landmarks; of the brows the inner ends
INVALID = [
    View(yaw=23), View(yaw=-23), View(pitch=27), View(cover="eyes"), View(cover="mouth"), View(brightness=0.04),
]  # fmt: skip


@pytest.fixture(scope="module")
def no_weights(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("no_weights")


@pytest.fixture(scope="module")
def actors(no_weights) -> list[Actor]:
    return [find_actor(np.random.default_rng([12, seed]), no_weights) for seed in range(4)]


@pytest.fixture(scope="module")
def aligner(no_weights) -> FaceAligner:
    return FaceAligner(alignment_settings(no_weights, "facemesh"))


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


def is_valid(face) -> bool:
    """The limits of the paper's filter (Section 5.1)."""
    return face is not None and face.score >= 0.9 and 0.55 <= face.pitch_ratio <= 0.85 and 0.3 <= face.yaw_ratio <= 0.7


# Before the detector


def test_faces_that_move_a_little_are_valid(actors, aligner):
    """Every actor in poses and expressions that were not those it was chosen by."""
    random = np.random.default_rng(1)
    for actor in actors:
        views = [
            View(*random.uniform(-6, 6, 2), *random.uniform(-3, 3, 1), yaw=random.uniform(-4, 4)) for _ in range(15)
        ]
        frames = [actor.frame(random.uniform(0, 3, 12) * (random.random(12) < 0.3), view, random) for view in views]
        valid = [is_valid(face) for face in aligner.align(frames)]
        assert np.mean(valid) >= 0.8


def test_faces_at_rest_are_upright_and_forward(actors, aligner):
    for face in aligner.align([actor.frame(REST) for actor in actors]):
        assert face.score >= 0.9
        assert face.pitch_ratio == pytest.approx(0.72, abs=0.05)
        assert face.yaw_ratio == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("view", INVALID, ids=str)
def test_the_limits_catch_frames_that_should_not_count(actors, aligner, view):
    assert not any(is_valid(face) for face in aligner.align([actor.frame(REST, view) for actor in actors]))


def test_turns_go_where_they_say(actors, aligner):
    """Turned to the right of the picture the left eye is further from its edge of the face; from below PIR falls."""
    for actor in actors:
        left, right, above, below = aligner.align(
            [actor.frame(REST, view) for view in (View(yaw=-12), View(yaw=12), View(pitch=-12), View(pitch=12))]
        )
        assert left.yaw_ratio < 0.45 and right.yaw_ratio > 0.55
        assert below.pitch_ratio < above.pitch_ratio - 0.05


# Action units, measured back


def heights(mesh: FaceMesh, picture: np.ndarray) -> tuple[float, float]:
    """How high brows and corners of the mouth are above the eyes, in distances from eye to eye."""
    height, width = picture.shape[:2]
    whole = Detection((0, 0, width, height), 1.0)
    (points,) = mesh.locate([picture], [whole], [Crop(picture, (0, 0))])
    eyes = points[EYES]
    unit = np.linalg.norm(eyes[:6].mean(axis=0) - eyes[6:].mean(axis=0))
    above = (eyes[:, 1].mean() - points[:, 1]) / unit
    return above[BROWS].mean(), above[CORNERS].mean()


@pytest.mark.parametrize(("unit", "part", "sign", "least"), [("AU4", 0, -1, 0.05), ("AU12", 1, 1, 0.1)])
def test_brows_and_corners_go_as_far_as_they_are_told(actors, mesh, unit, part, sign, least):
    intensities = np.linspace(0, 5, 9)
    for actor in actors:
        seen = sign * np.array([heights(mesh, actor.frame(expression(**{unit: each})))[part] for each in intensities])
        assert np.corrcoef(intensities, seen)[0, 1] > 0.95
        assert seen[-1] - seen[0] > least
        assert seen[4] - seen[0] > 0.3 * least  # to be seen at 2.5 as well


def test_units_keep_to_their_part_of_the_face(actors):
    """AU4 leaves the mouth, AU12 the brows, alone; the wall never moves."""
    for actor in actors:
        rest = actor.frame(REST).astype(int)
        eyes, half, unit = len(rest) // 2, round(0.5 * expressions.UNIT), expressions.UNIT
        frown, smile = (np.abs(actor.frame(expression(**{unit: 5})) - rest).max(axis=2) for unit in ("AU4", "AU12"))
        assert frown[:eyes].max() > 40 and frown[eyes + round(0.85 * unit) :].max() < 15
        assert smile[eyes + half :].max() > 40 and smile[: eyes - round(0.2 * unit)].max() < 15
        assert not frown[:, :40].any() and not smile[:, :40].any()


def test_every_unit_shows_and_more_so_when_stronger(actors):
    for actor in actors:
        rest = actor.frame(REST).astype(int)
        for unit in ACTION_UNITS:
            weak, strong = (
                np.abs(actor.frame(expression(**{f"AU{unit}": intensity})) - rest).sum() for intensity in (2, 4)
            )
            assert 0 < weak < strong


def test_every_displacement_has_its_anchor():
    known = set(anchors(random_person(np.random.default_rng(0))))
    assert set(DISPLACEMENTS) == set(ACTION_UNITS)
    for unit, moves in DISPLACEMENTS.items():
        assert set(moves) <= known, unit


# Pixels


def test_the_same_calls_give_the_same_bytes(actors):
    """Also from a person made again, and after other frames."""
    view = View(x=3, y=-2, roll=2, scale=1.03, yaw=4, pitch=-2, brightness=0.9)
    first = actors[0].frame(expression(AU4=2.2), view, np.random.default_rng(5))
    again = Actor(random_person(np.random.default_rng(8)))
    np.testing.assert_array_equal(actors[0].frame(expression(AU4=2.2), view, np.random.default_rng(5)), first)
    np.testing.assert_array_equal(
        again.frame(REST, view), Actor(random_person(np.random.default_rng(8))).frame(REST, view)
    )
    np.testing.assert_array_equal(Actor(actors[0].person).frame(REST), actors[0].frame(REST))


def test_shift_is_in_pixels_to_the_right_and_down(mesh, actors):
    picture = actors[0].frame(REST)
    moved = actors[0].frame(REST, View(x=9, y=5))
    whole = Detection((0, 0, *picture.shape[1::-1]), 1.0)
    before, after = mesh.locate([picture, moved], [whole] * 2, [Crop(picture, (0, 0)), Crop(moved, (0, 0))])
    np.testing.assert_allclose((after - before).mean(axis=0), [9, 5], atol=1.5)


def test_light_and_noise(actors):
    picture = actors[0].frame(REST).astype(float)
    np.testing.assert_allclose(actors[0].frame(REST, View(brightness=0.5)), picture * 0.5, atol=1)
    noise = actors[0].frame(REST, noise=np.random.default_rng(0)) - picture
    assert 1 < noise.std() < 2.2 and abs(noise.mean()) < 0.1


def test_people_differ():
    people = [random_person(np.random.default_rng(seed)) for seed in range(150)]
    assert {person.style for person in people} == set(STYLES)
    assert {person.beard for person in people} == set(BEARDS)
    skins = np.array([np.mean(person.skin) for person in people])
    assert skins.min() < 90 and skins.max() > 215
    assert (np.histogram(skins, 4, (70, 225))[0] > 15).all()
    ages = np.array([person.age for person in people])
    assert (np.histogram(ages, 4, (0, 1))[0] > 20).all()
    assert len({person.texture for person in people}) == len(people)


@pytest.mark.parametrize(
    "intensities", [np.zeros(11), np.zeros((1, 12)), np.eye(12)[2] * 5.1, np.eye(12)[6] * -0.1, np.eye(12)[0] * np.nan]
)
def test_impossible_intensities_are_refused(actors, intensities):
    with pytest.raises(ValueError, match="must be 12 numbers within 0–5"):
        actors[0].frame(intensities)


def test_people_whom_the_detector_does_not_find_are_not_taken(no_weights, monkeypatch):
    monkeypatch.setattr(expressions, "LEAST_SCORE", 1.1)
    monkeypatch.setattr(expressions, "TRIES", 3)
    with pytest.raises(FergiError, match=r"3 drawn people in a row were not found .* Choose another --seed\.$"):
        find_actor(np.random.default_rng(0), no_weights)


# Contact sheet


def test_contact_sheet_shows_everybody_and_everything(actors):
    sheet = contact_sheet({"008": actors[0], "009": actors[1]})
    side = sheet.shape[1] // len(SHEET)
    assert sheet.shape == (sheet.shape[0], side * len(SHEET), 3) and sheet.dtype == np.uint8
    head, rows = sheet[: -2 * side], sheet[-2 * side :].reshape(2, side, len(SHEET), side, 3)
    strip, labels = head[:40], head[-28:]
    assert (strip[:, -2 * side :] < 100).any() and (strip[:, :side] == 255).all()  # that it is synthetic
    for column in range(len(SHEET)):
        assert (labels[:, column * side : (column + 1) * side] < 100).any()
        assert (rows[0, :, column] != rows[1, :, column]).any()
    for column in range(1, len(SHEET)):
        assert (np.abs(rows[:, :, column].astype(int) - rows[:, :, 0]).max(axis=(1, 2, 3)) > 15).all()
