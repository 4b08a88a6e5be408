"""A drawn person before a camera: AUs as displacements of the face, head pose, light, and covered parts.

A face is drawn once. For each frame, displacements in face coordinates (see ``people``) add up: those of the AUs,
each times its intensity over 5, then the turn of the head seen on its relief. They are followed back from the pixels
of the frame to the drawing at half the resolution.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from fergi.faces.detection import FaceDetector, detector_model
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from synthetic.people import LEFT, TOP, Person, draw_background, draw_person, opened, random_person

WIDTH, HEIGHT, UNIT = 320, 240, 42.0  # of the frames, and from eye to eye, in pixels
EYE_HEIGHT = 0.52  # of the eyes in the frame, from above, as a share of its height
NOISE = 1.6  # standard deviation of the camera's noise, of 255
TURN = 1.5  # factor of the relief's displacement when the head turns
LEAST_SCORE, TRIES = 0.9, 10  # of the detector in every trial frame; people drawn until one is found
HEAD = (-2.0, -2.0, 2.0, 2.8)  # left, top, right, bottom of what moves, in units

# AU → anchor → (outwards, up) at intensity 5, in units, on both sides of the face; other anchors do not move.
_BROW_UP = {"brow 1": (0, 0.17), "above 1": (0, 0.14), "brow 2": (0, 0.14), "above 2": (0, 0.12), "brow 3": (0, 0.06)}
DISPLACEMENTS: Mapping[int, Mapping[str, tuple[float, float]]] = {
    1: {**_BROW_UP, "glabella": (0, 0.09)},
    2: {
        "brow 2": (0, 0.04), "brow 3": (0, 0.12), "above 3": (0, 0.11), "brow 4": (0, 0.17), "above 4": (0, 0.14),
        "brow 5": (0, 0.15), "above 2": (0, 0.04),
    },
    4: {
        "brow 1": (-0.08, -0.14), "above 1": (-0.06, -0.12), "brow 2": (-0.065, -0.12), "above 2": (-0.05, -0.10),
        "brow 3": (-0.03, -0.075), "above 3": (-0.02, -0.06), "brow 4": (-0.01, -0.03), "glabella": (0, -0.10),
        "upper lid 1": (0, -0.015), "upper lid 2": (0, -0.015),
    },
    5: {"upper lid 1": (0, 0.04), "upper lid 2": (0, 0.06), "upper lid 3": (0, 0.045)},
    6: {
        "lower lid 1": (0, 0.03), "lower lid 2": (0, 0.045), "lower lid 3": (0, 0.035), "cheekbone": (0, 0.09),
        "cheek": (0, 0.05), "temple": (-0.02, -0.01), "upper lid 3": (0, -0.015),
    },
    9: {
        "wing": (0.025, 0.10), "nose tip": (0, 0.05), "nose base": (0, 0.06), "fold": (0.01, 0.06),
        "upper lip": (0, 0.05), "upper lip side": (0, 0.07), "lower lip": (0, 0.02), "lower lip side": (0, 0.03),
        "glabella": (0, -0.06), "brow 1": (-0.01, -0.05), "cheekbone": (0, 0.03),
    },
    12: {
        "corner": (0.15, 0.17), "upper lip side": (0.06, 0.06), "lower lip side": (0.06, 0.05), "beside": (0.11, 0.13),
        "cheek": (0.06, 0.10), "fold": (0.05, 0.06), "cheekbone": (0, 0.06), "lower lid 2": (0, 0.01),
    },
    15: {
        "corner": (0.02, -0.14), "beside": (0.01, -0.09), "lower lip side": (0, -0.04), "upper lip side": (0, -0.03),
        "chin side": (0, -0.04),
    },
    17: {
        "lower lip": (0, 0.06), "lower lip side": (0, 0.05), "upper lip": (0, 0.03), "upper lip side": (0, 0.02),
        "under lip": (0, 0.11), "chin": (0, 0.09), "corner": (0, -0.02),
    },
    20: {
        "corner": (0.17, -0.03), "beside": (0.12, -0.03), "upper lip side": (0.09, 0), "lower lip side": (0.09, -0.01),
        "cheek": (0.04, 0), "chin side": (0.03, 0),
    },
    25: {
        "upper lip": (0, 0.045), "upper lip side": (0, 0.03), "lower lip": (0, -0.12), "lower lip side": (0, -0.085),
        "under lip": (0, -0.06),
    },
    26: {
        "lower lip": (0, -0.22), "lower lip side": (0, -0.17), "under lip": (0, -0.23), "chin": (0, -0.25),
        "chin end": (0, -0.25), "chin side": (0, -0.23), "jaw low": (0, -0.17), "jaw": (0, -0.07),
        "corner": (-0.03, -0.07), "beside": (-0.01, -0.06), "cheek": (0, -0.04),
    },
}  # fmt: skip
UPPER_LIP, LOWER_LIP = ("upper lip", "upper lip side"), ("lower lip", "lower lip side")


@dataclass(frozen=True)
class View:
    """How a person is before the camera."""

    x: float = 0.0  # shift to the right and down, in pixels
    y: float = 0.0
    roll: float = 0.0  # clockwise tilt of the head in the picture, in degrees
    scale: float = 1.0
    yaw: float = 0.0  # turn of the head to the right of the picture, and upwards, within ±35 degrees
    pitch: float = 0.0
    brightness: float = 1.0  # factor of all pixels
    cover: str | None = None  # "eyes" or "mouth": what a dark sleeve covers


@dataclass(frozen=True)
class Format:
    """Size of the frames, and where the face is in them."""

    width: int = WIDTH  # pixels, even
    height: int = HEIGHT
    unit: float = UNIT
    eye_height: float = EYE_HEIGHT


def anchors(person: Person) -> dict[str, tuple[float, float]]:
    """Where the points of ``DISPLACEMENTS``, and those that hold the rest of the face, are on the right side."""
    wide, low = person.mouth_width, person.chin_end
    lid = person.lid
    points = {f"brow {k + 1}": point for k, point in enumerate(person.brow)}
    points |= {f"above {k + 1}": (x, y - 0.16) for k, (x, y) in enumerate(person.brow[:4])}
    points |= {f"upper lid {k}": lid[k] for k in (1, 2, 3)} | {f"lower lid {k}": lid[8 - k] for k in (1, 2, 3)}
    points |= {
        "inner corner": lid[0], "outer corner": lid[4], "glabella": (0, -0.2), "bridge": (0, 0.12),
        "nose tip": (0, 0.58), "nose base": (0, 0.76), "wing": (person.nose_width, 0.66),
        "corner": (wide, person.lip_line(wide)), "beside": (wide + 0.13, 1.05), "fold": (0.42, 0.82),
        "upper lip": (0, 1.03), "upper lip side": (wide / 2, 1.03), "lower lip": (0, 1.13),
        "lower lip side": (wide / 2, 1.12), "under lip": (0, 1.33), "chin": (0, low - 0.2), "chin end": (0, low),
        "chin side": (0.38, low - 0.12), "jaw low": (0.64, 0.79 * low), "jaw": (0.92, 0.58 * low),
        "cheekbone": (0.58, 0.38), "cheek": (0.66, 0.82), "temple": (0.9, -0.02), "ear": (1.05, 0.3),
        "forehead": (0, -0.85), "forehead side": (0.55, -0.8), "hair": (0.0, -1.5), "hair side": (0.9, -1.1),
        "side": (1.3, -0.3), "side low": (1.35, 0.6), "neck": (0, low + 0.42), "neck side": (0.75, low + 0.35),
        "far": (1.3, 1.45), "body": (0, 3.0), "body side": (2.0, 2.6), "body far": (3.5, 3.5), "wall": (3.5, -2.0),
        "wall side": (2.2, 0.5),
    }  # fmt: skip
    return {name: (float(x), float(y)) for name, (x, y) in points.items()}


def _displacements(person: Person, points: np.ndarray, without: tuple[str, ...]) -> np.ndarray:
    """Displacement right and down of points (n, 2) at each AU's intensity 5, shape (12, 2, n), in units."""
    places, values = [], []
    for name, (across, down) in anchors(person).items():
        if name in without:
            continue
        for side in (1, -1) if across else (1,):
            places.append((across * side, down))
            moves = [DISPLACEMENTS[unit].get(name, (0, 0)) for unit in ACTION_UNITS]
            values.append([part for out, up in moves for part in (out * side, -up)])
    found = RBFInterpolator(np.array(places), np.array(values), kernel="thin_plate_spline", degree=1)(points)
    return found.T.reshape(len(ACTION_UNITS), 2, len(points)).astype(np.float32)


def _displacement_fields(person: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Displacement right and down of a grid's points at each AU's intensity 5, shape (12, 2, *x.shape), in units.

    Where the lips meet, only the upper lip moves points above the line, and only the lower lip points below it.
    """
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    above, below = (_displacements(person, points, lip).reshape(-1, 2, *x.shape) for lip in (LOWER_LIP, UPPER_LIP))
    beyond = np.clip(np.abs(x) / person.mouth_width - 0.97, 0, None)
    lower = 1 / (1 + np.exp(-np.clip((y - person.lip_line(x)) / (0.006 + 0.5 * beyond), -30, 30)))
    moves = above + (below - above) * lower.astype(np.float32)
    pixel = y[1, 0] - y[0, 0]
    rim = np.minimum.reduce([x - HEAD[0], HEAD[2] - x, y - HEAD[1], HEAD[3] - y])
    fade = np.clip(rim / 0.4, 0, 1).astype(np.float32)
    return np.array([[fade * cv2.GaussianBlur(part, (0, 0), 0.02 / pixel) for part in unit] for unit in moves])


def _shadow_fields(person: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much darker each point is at each AU's intensity 5, shape (12, *x.shape), as a share."""
    shadows = {unit: np.zeros(x.shape, np.float32) for unit in ACTION_UNITS}
    older = 1 + 0.5 * person.age

    def stroke(unit: int, line: Sequence[tuple[float, float]], width: float, depth: float) -> None:
        for side in (-1, 1):
            points = opened(np.array(line) * [side, 1], 12)
            distance = np.min([np.hypot(x - across, y - down) for across, down in points], axis=0)
            shadow = depth * older * np.exp(-((distance / width) ** 2))
            shadows[unit] = np.maximum(shadows[unit], shadow.astype(np.float32))

    wide, wing = person.mouth_width, person.nose_width
    stroke(4, [(0.085, -0.42), (0.075, -0.3), (0.09, -0.17)], 0.045, 0.18)
    for height in (-0.62, -0.75):
        stroke(1, [(0.0, height), (0.2, height - 0.01), (0.42, height + 0.03)], 0.03, 0.14)
        stroke(2, [(0.4, height + 0.02), (0.6, height), (0.78, height + 0.06)], 0.03, 0.12)
    stroke(6, [(0.3, 0.17), (0.5, 0.22), (0.7, 0.15)], 0.03, 0.16)
    stroke(6, [(0.8, 0.03), (0.88, 0.05), (0.96, 0.09)], 0.025, 0.12)
    stroke(9, [(0.0, 0.06), (0.07, 0.07), (0.13, 0.02)], 0.025, 0.22)
    stroke(9, [(wing, 0.62), (wing + 0.08, 0.72), (wing + 0.14, 0.84)], 0.035, 0.22)
    stroke(12, [(wing + 0.01, 0.68), (0.38, 0.82), (wide + 0.08, 0.99)], 0.045, 0.2)
    stroke(15, [(wide + 0.02, 1.12), (wide + 0.06, 1.2), (wide + 0.05, 1.3)], 0.035, 0.2)
    stroke(17, [(0.0, 1.36), (0.1, 1.37), (0.18, 1.41)], 0.035, 0.22)
    stroke(20, [(wide + 0.05, 1.03), (wide + 0.09, 1.1), (wide + 0.07, 1.18)], 0.03, 0.16)
    return np.array([shadows[unit] for unit in ACTION_UNITS])


class Actor:
    """A person before a camera, drawn once; an instance belongs to one process."""

    def __init__(self, person: Person, form: Format = Format()):
        self.person, self.form = person, form
        self._drawing = draw_person(person, form.unit)
        self._wall = draw_background(person, form.width, form.height)
        # Only the head moves, so the grid of displacements covers no more, at half the drawing's resolution.
        self._step = 2 / form.unit
        left, top, right, bottom = HEAD
        columns, rows = np.arange(left, right, self._step), np.arange(top, bottom, self._step)
        self._x, self._y = (each.astype(np.float32) for each in np.meshgrid(columns, rows))
        moves, shadows = (make(person, self._x, self._y) for make in (_displacement_fields, _shadow_fields))
        self._fields = np.concatenate([moves, shadows[:, None]], axis=1)
        relief = person.relief(self._x, self._y, 1.15).astype(np.float32)
        relief = TURN * relief**2 / (relief + 0.3).clip(0.3)  # flat towards the edge, so that the picture does not tear
        self._relief = cv2.GaussianBlur(relief, (0, 0), 0.06 / self._step)
        pixels = np.meshgrid(*(np.arange(0.5, end, 2, dtype=np.float32) for end in (form.width, form.height)))
        self._pixels = np.stack(pixels, axis=-1)
        self._eyes = np.array([form.width / 2, form.eye_height * form.height])
        across = np.linspace(-1, 1, 41) * person.mouth_width
        self._lip_line = np.stack([across, person.lip_line(across)], axis=1)
        self._lip_moves = [_displacements(person, self._lip_line, lip) for lip in (LOWER_LIP, UPPER_LIP)]

    def frame(
        self, intensities: np.ndarray, view: View = View(), noise: np.random.Generator | None = None
    ) -> np.ndarray:
        """One picture.

        Parameters
        ----------
        intensities : array_like, shape (12,)
            Of the AUs in the order of ``ACTION_UNITS``, 0–5.
        view : View
            Pose, light, cover.
        noise : Generator, optional
            Source of the camera's noise; without it there is none.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB.

        Raises
        ------
        ValueError
            If the intensities are of another shape, not finite, or outside 0–5.
        """
        intensities = np.asarray(intensities, float)
        if intensities.shape != (len(ACTION_UNITS),) or not ((intensities >= 0) & (intensities <= 5)).all():
            raise ValueError(f"intensities must be {len(ACTION_UNITS)} numbers within 0–5, not {intensities}")

        form, weights = self.form, (intensities / 5).astype(np.float32)
        active = np.flatnonzero(weights)
        right, down, shadow = np.tensordot(weights[active], self._fields[active], 1)
        moved = np.dstack(self._turned(right, down, self._x, self._y, self._relief, view)) / np.float32(self._step)
        turn, shift = self._placing(view)
        # Back from the frame to the drawing: first the placing, which is exact, then the moves, step by step.
        target = ((self._pixels - shift) @ np.linalg.inv(turn).T).astype(np.float32)
        target = (target - np.array(HEAD[:2], np.float32)) / np.float32(self._step)
        source = target
        for _ in range(7):  # beyond the grid nothing moves
            source = target - cv2.remap(moved, source[..., 0], source[..., 1], cv2.INTER_LINEAR)
        fine = cv2.resize(source, (form.width, form.height)) * 2
        fine += np.array([HEAD[0] - LEFT, HEAD[1] - TOP], np.float32) * np.float32(form.unit) - np.float32(0.5)
        person = cv2.remap(self._drawing, fine[..., 0], fine[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shadow = cv2.remap(shadow, source[..., 0], source[..., 1], cv2.INTER_LINEAR)
        light = 1 - cv2.resize(shadow, (form.width, form.height))
        picture = person[..., :3] * light[..., None]
        self._open_mouth(picture, weights, view, turn, shift)
        picture += self._wall * (1 - person[..., 3:] * np.float32(1 / 255))
        if view.cover:
            self._hold_before(picture, view.cover, turn, shift)
        if view.brightness != 1:
            picture *= np.float32(view.brightness)
        if noise is not None:
            picture += NOISE * noise.standard_normal((form.height, form.width, 1), dtype=np.float32)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    @staticmethod
    def _turned(right, down, x, y, depth, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Displacements right and down, in units, of points at (x, y) and their depth after the head's turn as well."""
        if view.yaw or view.pitch:
            yaw, pitch = np.radians([view.yaw, view.pitch])
            # The head turns about the middle between the ears, below the eyes; points without relief stay.
            head, axis = np.clip(depth / 0.35, 0, 1), np.float32(0.35)
            x, y = x + right, y + down
            right = right + head * x * np.float32(np.cos(yaw) - 1) + depth * np.float32(np.sin(yaw))
            down = down + head * (y - axis) * np.float32(np.cos(pitch) - 1) - depth * np.float32(np.sin(pitch))
            # Seen from below, nose and mouth stand out further than the relief that yaw and light need.
            muzzle = 0.55 * np.exp(-((x / 0.4) ** 2) - ((y - 0.78) / 0.38) ** 2)
            down = down - muzzle * np.float32(np.sin(max(pitch, 0)))
        return right, down

    def _placing(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Matrix and shift from face coordinates to pixels."""
        angle, unit = np.radians(view.roll), self.form.unit
        turn = unit * view.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        neck = np.array([0, 1.9])  # the head tilts and grows about the neck
        return turn, self._eyes + [view.x, view.y] + unit * neck - turn @ neck - 0.5

    def _open_mouth(
        self, picture: np.ndarray, weights: np.ndarray, view: View, turn: np.ndarray, shift: np.ndarray
    ) -> None:
        """Darkness, and a hint of teeth, where the lips have parted."""
        x, y = self._lip_line.T
        at = ((self._lip_line - HEAD[:2]) / self._step).astype(np.float32)
        depth = cv2.remap(self._relief, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0]
        upper, lower = (
            self._lip_line + np.stack(self._turned(*np.tensordot(weights, moves, 1), x, y, depth, view), axis=1)
            for moves in self._lip_moves
        )
        gap = lower[:, 1] - upper[:, 1] - 0.02  # lips stretch a little before they part
        if gap.max() < 0.01:
            return
        lower = upper + np.stack([0 * gap, np.clip(gap + 0.02, 0, None)], axis=1)
        teeth = upper + np.stack([0 * gap, np.clip(0.4 * gap, 0, 0.08)], axis=1)
        light = np.array(self.person.skin, np.float32).mean() / 255 * 0.5 + 0.5
        for edge, colour, opacity in ((lower, (58, 22, 24), 1.0), (teeth, (206, 194, 182), 0.8)):
            outline = np.concatenate([upper, edge[::-1]]) @ turn.T + shift
            self._fill(picture, outline, np.array(colour) * light, opacity)

    def _fill(
        self, picture: np.ndarray, outline: np.ndarray, colour: np.ndarray, opacity: float = 1.0, soft: float = 0.015
    ) -> None:
        """Lay a colour over what is inside an outline in pixels, with an edge ``soft`` units wide."""
        soft = soft * self.form.unit
        least = np.floor(outline.min(axis=0) - 4 * soft).astype(int).clip(0, None)
        most = np.ceil(outline.max(axis=0) + 4 * soft).astype(int).clip(0, [self.form.width, self.form.height])
        if (most <= least).any():
            return
        mask = np.zeros((most - least)[::-1], np.uint8)
        cv2.fillPoly(mask, [np.round((outline - least) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        mask = cv2.GaussianBlur(mask, (0, 0), soft)[..., None] * np.float32(opacity / 255)
        part = picture[least[1] : most[1], least[0] : most[0]]
        part += mask * (colour.astype(np.float32) - part)

    def _hold_before(self, picture: np.ndarray, cover: str, turn: np.ndarray, shift: np.ndarray) -> None:
        """A sleeve before the eyes or the mouth, held up from the right of the picture."""
        middle, half = {"eyes": (0.0, 0.42), "mouth": (1.05, 0.48)}[cover]
        along = opened(np.array([(-1.2, middle), (1.3, middle), (7.0, middle + 1.5)]))
        around = np.linspace(np.pi / 2, 3 * np.pi / 2, 20)
        for share, brightness in ((1.0, 0.5), (0.75, 0.62), (0.4, 0.72)):  # round, and lit in front
            width = half * share
            end = along[0] + width * np.stack([np.cos(around), np.sin(around)], axis=1)
            sides = along - np.array([0, width]), along[::-1] + np.array([0, width])
            outline = np.concatenate([end, *sides]) @ turn.T + shift
            self._fill(picture, outline, np.array(self.person.clothes) * brightness, soft=0.05 / share)


@functools.cache
def _detector(pretrained_models: Path) -> FaceDetector:
    """One detector for the process."""
    return FaceDetector(detector_model(pretrained_models)[0])


def trial_frames() -> list[tuple[np.ndarray, View]]:
    """Frames in which the detector must find an actor: at rest, frowning, smiling, speaking, slightly moved."""
    faces = expression(), expression(AU4=4, AU9=1), expression(AU12=4, AU6=3), expression(AU1=2, AU25=2, AU26=3)
    turns = (-6, -6, 3, 0), (6, -6, 0, 4), (-6, 6, -3, 0), (6, 6, 0, -4)
    return [(face, View(x=x, y=y, roll=roll, yaw=yaw)) for face in faces for x, y, roll, yaw in ((0, 0, 0, 0), *turns)]


def expression(**intensities: float) -> np.ndarray:
    """Intensities from names and values, ``expression(AU4=2.5)``; the other AUs are at rest. Shape (12,)."""
    vector = np.zeros(len(ACTION_UNITS))
    for name, value in intensities.items():
        vector[ACTION_UNITS.index(int(name.removeprefix("AU")))] = value
    return vector


def find_actor(random: np.random.Generator, pretrained_models: Path = Path("pretrained_models")) -> Actor:
    """The first of the people drawn by ``random`` whose face the detector finds well in every trial frame.

    Raises
    ------
    FergiError
        If the detector is missing, or ``TRIES`` people in a row are not found.
    """
    detector = _detector(pretrained_models)
    for _ in range(TRIES):
        actor = Actor(random_person(random))
        found = (detector.detect(actor.frame(*each)) for each in trial_frames())
        if all(face is not None and face.score >= LEAST_SCORE for face in found):
            return actor
    raise FergiError(
        f"{TRIES} drawn people in a row were not found by the face detector with a score of {LEAST_SCORE} in every "
        "trial frame. Choose another --seed."
    )


SHEET = {
    "neutral": expression(), "AU1+2": expression(AU1=4, AU2=4), "AU4": expression(AU4=3), "AU5": expression(AU5=5),
    "AU6": expression(AU6=5), "AU9": expression(AU9=4), "AU12": expression(AU12=3),
    "AU6+12": expression(AU6=4, AU12=5), "AU15": expression(AU15=4), "AU17": expression(AU17=5),
    "AU20": expression(AU20=4), "AU25": expression(AU25=4), "AU25+26": expression(AU25=3, AU26=3),
}  # fmt: skip
SYNTHETIC = "synthetic data: drawn faces, no real people"
STAMP, LABELS = 44, 28  # pixels: strips above the pictures


def contact_sheet(actors: Mapping[str, Actor]) -> np.ndarray:
    """Every actor (rows) with every expression (columns), labelled, and above them that it is synthetic; RGB uint8."""
    side = round(4.2 * UNIT)  # the square of a frame that the head at rest fills
    left, top = (WIDTH - side) // 2, int(EYE_HEIGHT * HEIGHT - 0.5 * side + 0.2 * UNIT)
    close = np.s_[top : top + side, left : left + side]
    rows = [np.hstack([actor.frame(each)[close] for each in SHEET.values()]) for actor in actors.values()]
    sheet = np.vstack([np.full((STAMP + LABELS, side * len(SHEET), 3), 255, np.uint8), *rows])

    def write(text: str, x: int, y: int, colour: tuple[int, int, int] = (20, 20, 20)) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)

    (width, height), _ = cv2.getTextSize(SYNTHETIC, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    write(SYNTHETIC, sheet.shape[1] - width - 8, (STAMP + height) // 2, (122, 51, 0))
    for column, name in enumerate(SHEET):
        write(name, column * side + 8, STAMP + LABELS - 10)
    for row, name in enumerate(actors):
        write(name, 8, STAMP + LABELS + row * side + 20)
    return sheet
