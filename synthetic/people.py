"""Drawn people: the parameters of a face, and its picture in colour and relief.

No picture of a person is read. Coordinates are those of the face: origin between the eyes, x to
the right of the picture, y down, z towards the camera, unit = distance from eye to eye. Colours are RGB, 0–255.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

LEFT, TOP, RIGHT, BOTTOM = -4.2, -2.8, 4.2, 4.0  # what is drawn of a person, in units; the picture shows less of it
OVERSAMPLING = 2

Colour = tuple[float, float, float]
SKINS = (
    (247, 222, 204), (240, 206, 182), (226, 184, 153), (203, 154, 119), (170, 119, 86), (133, 90, 64), (97, 65, 48),
)  # fmt: skip
HAIRS = {
    "black": (34, 29, 30), "dark brown": (58, 41, 33), "brown": (92, 62, 42), "chestnut": (122, 72, 45),
    "red": (160, 82, 45), "blond": (201, 163, 108), "grey": (142, 140, 139), "white": (212, 209, 205),
}  # fmt: skip
STYLES = ("short", "side", "fringe", "bob", "long", "curly", "bun", "buzz", "receding", "bald")
BEARDS = ("none", "stubble", "moustache", "full")
IRISES = ((72, 45, 28), (96, 62, 34), (112, 92, 52), (88, 108, 84), (84, 112, 140))
CLOTHES = (
    (60, 72, 96), (120, 52, 56), (62, 96, 80), (196, 190, 180), (52, 52, 56), (170, 130, 70), (110, 90, 130),
    (92, 130, 160), (214, 170, 168),
)  # fmt: skip
WALLS = (
    (206, 200, 190), (178, 190, 198), (196, 206, 190), (214, 196, 180), (150, 160, 172), (226, 222, 216),
    (132, 140, 128), (186, 176, 192),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """The parameters of a face. Shapes are relative to an average face: 0 is average, 0.1 is a tenth more."""

    jaw: float  # width
    chin: float  # length
    nose: float  # width
    mouth: float  # width
    lips: float  # height
    eyes: float  # height
    brows: float  # height, in units
    brow_weight: float  # thickness; 1 is average
    eye_tilt: float  # slant, in units
    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    wall: Colour
    style: str  # of the hair: one of STYLES
    beard: str  # one of BEARDS
    age: float  # 0 (about twenty) to 1 (about eighty): folds, lines, shadows under the eyes
    light: float  # from the left (-0.25) or the right (0.25)
    gamma: float  # exponent of the picture's tones
    texture: int  # seed of strands, skin grain and background

    @property
    def mouth_width(self) -> float:
        """From the middle to a corner of the mouth, in units."""
        return 0.385 * (1 + self.mouth)

    @property
    def nose_width(self) -> float:
        """From the middle to a wing of the nose, in units."""
        return 0.215 * (1 + self.nose)

    @property
    def chin_end(self) -> float:
        """From the eyes to the tip of the chin, in units."""
        return 1.74 + 0.6 * self.chin

    @cached_property
    def outline(self) -> np.ndarray:
        """The face without hair, a closed curve, shape (n, 2)."""
        jaw, low = 1 + self.jaw, self.chin_end
        right = [
            (0, -1.4), (0.52, -1.28), (0.9, -0.86), (1.07, -0.2), (1.06, 0.3), (1.0 + 0.3 * self.jaw, 0.75),
            (0.80 * jaw, 0.68 * low), (0.47 * jaw, 0.9 * low), (0.17, 0.992 * low), (0, low),
        ]  # fmt: skip
        return closed(both_sides(right))

    @cached_property
    def brow(self) -> np.ndarray:
        """Middle line of the right brow from the nose outwards, shape (5, 2)."""
        heights = np.array([0.0, -0.045, -0.085, -0.075, 0.0]) - 0.32 - self.brows
        return np.stack([[0.19, 0.34, 0.51, 0.67, 0.82], heights - self.eye_tilt * np.linspace(0, 0.6, 5)], axis=1)

    @cached_property
    def lid(self) -> np.ndarray:
        """The right eye's opening: inner corner, three of the upper lid, outer corner, three of the lower."""
        high, low = -0.118 * (1 + self.eyes), 0.082 * (1 + self.eyes)
        x = np.array([0.27, 0.38, 0.505, 0.63, 0.735, 0.63, 0.5, 0.38])
        y = np.array([0.035, 0.72 * high, high, 0.68 * high, -0.005, 0.8 * low, low, 0.85 * low])
        return np.stack([x, y - self.eye_tilt * (x - 0.5) * 2], axis=1)

    def lip_line(self, x: np.ndarray) -> np.ndarray:
        """Height of the line where the lips meet, in units."""
        across = np.clip(np.abs(x) / self.mouth_width, 0, 1)
        return 1.075 + 0.009 * np.cos(3 * np.pi * across) * (1 - across) - 0.03 * across**3

    def relief(self, x: np.ndarray, y: np.ndarray, spread: float = 1.0) -> np.ndarray:
        """Height of the head above the plane of the ears, in units, at points of the picture.

        ``spread`` widens the dome beyond the face, to hair and ears.
        """

        def hill(height: float, at: tuple[float, float], width: float, length: float) -> np.ndarray:
            across = (np.abs(x) - at[0]) if at[0] else x
            return height * np.exp(-((across / width) ** 2) - ((y - at[1]) / length) ** 2)

        low = self.chin_end
        middle, half = (low - 1.6) / 2, (low + 1.6) / 2 + 0.15
        head = 1.02 * np.clip(1 - (x / (1.2 * spread)) ** 2 - ((y - middle) / (half * spread)) ** 2, 0, None)
        along = np.clip((y + 0.2) / 0.8, 0, 1)
        bridge = (0.06 + 0.26 * along**1.3) * np.exp(-((x / (0.1 + 0.06 * along * (1 + self.nose))) ** 2))
        tip, root = (1 + np.exp(np.clip(each, -30, 30)) for each in ((y - 0.70) / 0.035, -(y + 0.28) / 0.06))
        nose = bridge / tip / root
        return (
            head
            + nose
            + hill(0.10, (0, 0.57), 0.15 * (1 + self.nose / 2), 0.11)
            + hill(0.11, (0.72 * self.nose_width, 0.65), 0.075, 0.075)
            + hill(0.05, (0.45, -0.27), 0.38, 0.11)
            + hill(-0.11, (0.46, 0.02), 0.25, 0.15)
            + hill(0.07, (0.6, 0.45), 0.28, 0.24)
            + hill(0.05 * (1 + self.lips), (0, 1.02), 0.28, 0.05)
            + hill(0.07 * (1 + self.lips), (0, 1.16), 0.22, 0.06)
            + hill(-0.045, (0, 1.33), 0.24, 0.06)
            + hill(0.07, (0, low - 0.17), 0.2, 0.13)
        )


def random_person(random: np.random.Generator) -> Person:
    """A person whose skin, hair, age and light vary as widely as those of others."""

    def some(low: float, high: float) -> float:
        return float(random.uniform(low, high))

    def one_of(options: Sequence, weights: Sequence[float] | None = None):
        share = None if weights is None else np.array(weights) / np.sum(weights)
        return options[int(random.choice(len(options), p=share))]

    tone, age = some(0, 1), some(0, 1)
    places = np.linspace(0, 1, len(SKINS))
    skin = np.array([np.interp(tone, places, channel) for channel in zip(*SKINS, strict=True)])
    skin *= random.normal(1, 0.012, 3)
    light_hair = 1.0 if tone < 0.5 else 0.08
    hair = one_of(tuple(HAIRS), [2, 2, 2, light_hair, light_hair, 1.5 * light_hair, 0, 0])
    if random.random() < (age - 0.45) * 2:
        hair = "white" if random.random() < (age - 0.6) * 2 else "grey"
    style = one_of(STYLES, [2, 2, 1.5, 1.5, 2, 1.5, 1.5, 1, 0.3 + 1.5 * age, 0.8])
    beard = one_of(BEARDS, [1, 1, 0.8, 0.8]) if style in ("short", "side", "buzz", "receding", "bald") else "none"
    return Person(
        jaw=some(-0.1, 0.14),
        chin=some(-0.1, 0.16),
        nose=some(-0.18, 0.35),
        mouth=some(-0.15, 0.15),
        lips=some(-0.25, 0.45) - 0.15 * age,
        eyes=some(-0.2, 0.2),
        brows=some(-0.03, 0.04),
        brow_weight=some(0.75, 1.35),
        eye_tilt=some(-0.02, 0.045),
        skin=_colour(skin),
        hair=_colour(np.array(HAIRS[hair]) * random.uniform(0.85, 1.15)),
        iris=_colour(np.array(one_of(IRISES, [3, 3, 2, light_hair, 1.5 * light_hair]))),
        clothes=_colour(np.array(one_of(CLOTHES))),
        wall=_colour(np.array(one_of(WALLS)) * random.uniform(0.7, 1.05)),
        style=style,
        beard=beard,
        age=age,
        light=some(-0.25, 0.25),
        gamma=some(0.85, 1.2),
        texture=int(random.integers(2**31)),
    )


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    return tuple(float(value) for value in np.clip(values, 0, 255))


def both_sides(right: Sequence[tuple[float, float]]) -> np.ndarray:
    """A closed outline from its right half, top to bottom, first and last on the middle line."""
    right = np.array(right, float)
    return np.concatenate([right, right[-2:0:-1] * [-1, 1]])


def closed(points: np.ndarray, n: int = 160) -> np.ndarray:
    """A smooth closed curve through points, shape (n, 2)."""
    around = np.concatenate([points, points[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(around, axis=0), axis=1))])
    return CubicSpline(along, around, bc_type="periodic")(np.linspace(0, along[-1], n, endpoint=False))


def opened(points: np.ndarray, n: int = 40) -> np.ndarray:
    """A smooth open curve through points, shape (n, 2)."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return CubicSpline(along, points)(np.linspace(0, along[-1], n))


def ribbon(line: np.ndarray, widths: Sequence[float]) -> np.ndarray:
    """Outline of a stroke along a line, shape (n, 2), whose half widths run through ``widths``."""
    direction = np.gradient(line, axis=0)
    normal = direction[:, ::-1] * [-1, 1] / np.linalg.norm(direction, axis=1, keepdims=True)
    half = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(widths)), widths)[:, None]
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


class Canvas:
    """A picture in face coordinates that takes soft-edged shapes.

    Attributes
    ----------
    colour : ndarray of float32, shape (height, width, 3)
        RGB.
    cover : ndarray of float32, shape (height, width)
        1 where something is drawn, 0 where not.
    """

    def __init__(self, unit: float):
        """``unit`` is the number of pixels from eye to eye."""
        self.unit, self.origin = unit, (LEFT, TOP)
        shape = round((BOTTOM - TOP) * unit), round((RIGHT - LEFT) * unit)
        self.colour, self.cover = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
        columns = (np.arange(shape[1], dtype=np.float32) + 0.5) / unit + LEFT
        rows = (np.arange(shape[0], dtype=np.float32) + 0.5) / unit + TOP
        self.x, self.y = np.meshgrid(columns, rows)

    def part(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """A canvas that shares the pixels of a rectangle of this one, so that small things cost little."""
        (x, y), unit = self.origin, self.unit
        rows, columns = (
            slice(round((low - at) * unit), round((high - at) * unit))
            for low, high, at in ((top, bottom, y), (left, right, x))
        )
        part = copy.copy(self)
        part.origin = x + columns.start / unit, y + rows.start / unit
        for name in ("colour", "cover", "x", "y"):
            setattr(part, name, getattr(self, name)[rows, columns])
        return part

    def mask(self, points: np.ndarray, soft: float = 0) -> np.ndarray:
        """1 inside an outline, 0 outside, with an edge ``soft`` units wide."""
        mask = np.zeros(self.cover.shape, np.uint8)
        pixels = (np.asarray(points) - self.origin) * self.unit - 0.5
        cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), soft * self.unit)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def paint(self, mask: np.ndarray, colour, opacity: float = 1.0) -> None:
        """Lay a colour, or a picture, over what is there."""
        mask = mask * np.float32(opacity)
        self.colour += mask[..., None] * (np.asarray(colour, np.float32) - self.colour)
        self.cover += mask * (1 - self.cover)

    def shade(self, mask: np.ndarray, factor) -> None:
        """Multiply by ``factor`` where the mask is 1."""
        self.colour *= 1 + mask[..., None] * (np.asarray(factor, np.float32) - 1)


def draw_person(person: Person, unit: float) -> np.ndarray:
    """A person without background, face forward and at rest.

    Parameters
    ----------
    person : Person
        Who.
    unit : float
        Pixels from eye to eye.

    Returns
    -------
    ndarray of uint8, shape (about 6.8 · unit, about 8.4 · unit, 4)
        Red, green, blue and cover (0–255; colours are multiplied by it). Pixel (0, 0) is at (LEFT, TOP).
    """
    canvas = Canvas(unit * OVERSAMPLING)
    strands = _strands(person, canvas)
    _draw_hair_behind(person, canvas, strands)
    _draw_body(person, canvas)
    head = canvas.part(-1.4, -1.6, 1.4, 2.2)
    face = head.mask(person.outline, soft=0.012)
    _draw_skin(person, head, face)
    _draw_beard(person, head, face)
    _draw_brows(person, head)
    _light(person, head, face)
    for side in (-1, 1):
        _draw_eye(person, canvas.part(0.5 * side - 0.45, -0.4, 0.5 * side + 0.45, 0.4), side)
    _draw_hair(person, canvas, strands)
    size = round((RIGHT - LEFT) * unit), round((BOTTOM - TOP) * unit)
    colour = canvas.colour / np.maximum(canvas.cover, 1e-3)[..., None]
    tones = 255 * (np.clip(colour, 0, 255) / 255) ** person.gamma * canvas.cover[..., None]
    drawn = np.dstack([tones, 255 * canvas.cover])
    return np.clip(np.rint(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)), 0, 255).astype(np.uint8)


def _strands(person: Person, canvas: Canvas) -> np.ndarray:
    """Brightness of the hair, about 1: strands from the crown downwards, or curls."""
    random = np.random.default_rng(person.texture)
    if person.style in ("curly", "buzz"):
        noise = random.normal(size=canvas.cover.shape).astype(np.float32)
        grain = (0.075 if person.style == "curly" else 0.02) * canvas.unit
        noise = cv2.GaussianBlur(noise, (0, 0), grain)
        return 1 + 0.16 * noise / noise.std()
    rows = random.normal(size=(2, 720)).astype(np.float32)
    fine = cv2.GaussianBlur(rows[:1], (0, 0), 1)[0]
    broad = cv2.GaussianBlur(rows[1:], (0, 0), 8)[0]
    profile = 0.05 * fine / fine.std() + 0.07 * broad / broad.std()
    parting = 0.45 if person.style == "side" else 0.0
    angle = np.arctan2(canvas.x - parting, np.maximum(canvas.y, -1.0) + 2.1 + 0.3 * np.abs(canvas.x))
    return 1 + np.interp(angle, np.linspace(-np.pi, np.pi, 720), profile).astype(np.float32)


def _hair_colour(person: Person, canvas: Canvas, strands: np.ndarray) -> np.ndarray:
    """Strands with a sheen that follows the round of the head."""
    sheen = 1 + 0.28 * np.exp(-(((canvas.y + 1.22 + 0.25 * canvas.x**2 - 0.2 * canvas.x * person.light) / 0.2) ** 2))
    side = 1 + person.light * 0.6 * canvas.x
    dark = 1 - 0.25 * np.clip(np.abs(canvas.x) - 0.8, 0, 0.6) - 0.12 * np.clip(canvas.y, 0, 2)
    return np.array(person.hair, np.float32) * (strands * sheen * side * dark)[..., None] + 10 * (sheen - 1)[..., None]


def _draw_hair_behind(person: Person, canvas: Canvas, strands: np.ndarray) -> None:
    """What falls behind neck and shoulders."""
    outlines = {
        "bob": [(0, -1.62), (0.8, -1.45), (1.25, -0.8), (1.38, 0.2), (1.36, 1.0), (1.15, 1.5), (0.5, 1.4), (0, 1.3)],
        "long": [(0, -1.62), (0.8, -1.45), (1.25, -0.8), (1.36, 0.2), (1.42, 1.3), (1.5, 2.4), (0.9, 2.9), (0, 2.6)],
        "curly": [(0, -1.95), (0.9, -1.75), (1.5, -1.05), (1.62, -0.1), (1.5, 0.8), (1.1, 1.3), (0.5, 1.2), (0, 1.1)],
        "bun": [(0, -2.12), (0.28, -2.05), (0.42, -1.8), (0.4, -1.5), (0.25, -1.2), (0, -1.1)],
    }  # fmt: skip
    if person.style not in outlines:
        return
    mask = canvas.mask(closed(both_sides(outlines[person.style])), soft=0.02)
    canvas.paint(mask, 0.72 * _hair_colour(person, canvas, strands))


def _draw_body(person: Person, canvas: Canvas) -> None:
    """Neck and shoulders."""
    skin, low = np.array(person.skin), person.chin_end
    neck = [(0, 0.8), (0.56, 0.9), (0.55, 1.75), (0.64, 2.08), (1.0, 2.3), (0.8, 3.2), (0, 3.4)]
    round_neck = 1 - 0.22 * np.clip(np.abs(canvas.x) / 0.7, 0, 1) ** 2 + person.light * 0.5 * canvas.x
    under_chin = 1 - 0.42 * np.exp(-np.clip(canvas.y - low + 0.12, 0, None) / 0.32)
    canvas.paint(canvas.mask(closed(both_sides(neck)), soft=0.01), skin * (round_neck * under_chin)[..., None])
    shoulders = np.array([
        (-0.7, 1.98), (-1.1, 2.17), (-1.9, 2.42), (-2.5, 2.78), (-2.85, 3.45), (-3.0, 4.6), (3.0, 4.6), (2.85, 3.45),
        (2.5, 2.78), (1.9, 2.42), (1.1, 2.17), (0.7, 1.98), (0.58, 2.28), (0.3, 2.5), (0, 2.56), (-0.3, 2.5),
        (-0.58, 2.28),
    ])  # fmt: skip
    folds = 1 + 0.06 * np.sin(3.1 * canvas.x + 1.3 * canvas.y + person.texture % 7) - 0.1 * (np.abs(canvas.x) / 3) ** 2
    folds += 0.4 * person.light * canvas.x / 2
    body = canvas.mask(shoulders, soft=0.02)
    canvas.shade(canvas.mask(shoulders - np.array([0, 0.05]), soft=0.06), 0.8)
    canvas.paint(body, np.array(person.clothes) * folds[..., None])


def _draw_skin(person: Person, canvas: Canvas, face: np.ndarray) -> None:
    """Ears and face without light: skin, cheeks, lips, grain, shadows under the eyes."""
    skin, age = np.array(person.skin), person.age
    for side in (-1, 1):
        ear = closed(np.array([(1.02, -0.1), (1.16, -0.2), (1.24, -0.05), (1.2, 0.25), (1.1, 0.5), (1.02, 0.5)]))
        inner = closed(np.array([(1.09, -0.02), (1.16, -0.06), (1.17, 0.1), (1.12, 0.28), (1.08, 0.2)]))
        canvas.paint(canvas.mask(ear * [side, 1], soft=0.012), skin * (0.84 + 0.4 * person.light * side))
        canvas.shade(canvas.mask(inner * [side, 1], soft=0.03), (0.78, 0.72, 0.7))
    canvas.paint(face, skin)
    for side in (-1, 1):
        x = canvas.x * side
        cheek = np.exp(-(((x - 0.62) / 0.3) ** 2) - ((canvas.y - 0.5) / 0.24) ** 2)
        canvas.shade(cheek * face, (1.02, 0.93, 0.92))
        under = np.exp(-(((x - 0.5) / 0.24) ** 2) - ((canvas.y - 0.21) / 0.07) ** 2)
        canvas.shade(under, 1 - np.array([0.09, 0.12, 0.10]) * (0.5 + 1.2 * age))
        lid = np.exp(-(((x - 0.5) / 0.26) ** 2) - ((canvas.y + 0.1) / 0.11) ** 2)
        canvas.shade(lid, (0.93, 0.88, 0.87))
    canvas.shade(np.exp(-((canvas.x / 0.24) ** 2) - ((canvas.y - 0.6) / 0.16) ** 2), (1.01, 0.95, 0.94))
    random = np.random.default_rng(person.texture + 1)
    grain = cv2.GaussianBlur(random.normal(size=canvas.cover.shape).astype(np.float32), (0, 0), 0.03 * canvas.unit)
    canvas.shade(face, (1 + (0.006 + 0.010 * age) * grain / grain.std())[..., None])
    _draw_lips(person, canvas)


def lip_outlines(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lip as outlines, shape (n, 2) each."""
    wide, high = person.mouth_width, 1 + person.lips
    across = np.linspace(-1, 1, 61)
    line = np.stack([across * wide, person.lip_line(across * wide)], axis=1)
    bow = 0.085 * high * (1 - np.abs(across) ** 1.7) - 0.02 * high * np.exp(-((across / 0.13) ** 2))
    full = 0.115 * high * (1 - np.abs(across) ** 2.2)
    above, below = line - np.stack([0 * across, bow], axis=1), line + np.stack([0 * across, full], axis=1)
    return np.concatenate([above, line[::-1]]), np.concatenate([line, below[::-1]])


def _draw_lips(person: Person, canvas: Canvas) -> None:
    skin = np.array(person.skin)
    red = skin * (0.86, 0.62, 0.62) + (14, 2, 6)
    red = red + (skin.mean() - red.mean()) * 0.25 * person.age
    upper, lower = lip_outlines(person)
    canvas.paint(canvas.mask(upper, soft=0.012), red * 0.88)
    canvas.paint(canvas.mask(lower, soft=0.014), red)
    line = upper[61:]
    canvas.paint(canvas.mask(ribbon(line, [0.006, 0.013, 0.010, 0.013, 0.006]), soft=0.008), red * 0.42, 0.85)


def _draw_beard(person: Person, canvas: Canvas, face: np.ndarray) -> None:
    """Hair on lip, cheeks and chin that leaves the mouth and its corners free."""
    if person.beard == "none":
        return
    random = np.random.default_rng(person.texture + 2)
    grain = cv2.GaussianBlur(random.normal(size=canvas.cover.shape).astype(np.float32), (0, 0), 0.014 * canvas.unit)
    # A mixture of hair and skin, as short hair looks.
    colour = 0.65 * np.array(person.hair) + 0.25 * np.array(person.skin)
    colour = colour * (1 + 0.08 * grain / grain.std())[..., None]
    wide, low = person.mouth_width, person.chin_end
    lip = closed(both_sides([
        (0, 0.905), (0.14, 0.885), (0.6 * wide, 0.925), (1.08 * wide, 1.005), (0.9 * wide, 1.02), (0.45 * wide, 0.99),
        (0, 1.0),
    ]))  # fmt: skip
    jaw = both_sides([(0, 1.3), (0.3, 1.27), (0.62, 1.02), (0.86, 0.5), (1.2, 0.2), (1.3, 1.2), (0.6, 2.3), (0, 2.4)])
    upper, lower = lip_outlines(person)
    free = 1 - np.maximum(canvas.mask(upper, soft=0.02), canvas.mask(lower, soft=0.02))
    cheeks = canvas.mask(closed(jaw), soft=0.07) * face * free
    moustache = canvas.mask(lip, soft=0.025) * free
    if person.beard == "stubble":
        canvas.paint(np.maximum(cheeks, moustache), colour, 0.26)
    else:
        canvas.paint(moustache, colour, 0.72)
    if person.beard == "full":
        canvas.paint(cheeks, colour, 0.66)
        tuft = closed(both_sides([(0, low - 0.3), (0.5, low - 0.25), (0.42, low + 0.05), (0, low + 0.12)]))
        canvas.paint(canvas.mask(tuft, 0.05) * free, colour * 0.92, 0.6)


def _draw_brows(person: Person, canvas: Canvas) -> None:
    line, weight = opened(person.brow), person.brow_weight
    hair = np.minimum(np.array(person.hair) * 0.78, np.array(person.skin) * 0.52)  # darker than the skin at any age
    for side in (-1, 1):
        stroke = ribbon(line * [side, 1], np.array([0.03, 0.05, 0.046, 0.032, 0.006]) * weight)
        canvas.paint(canvas.mask(stroke, soft=0.018), hair, 0.86)


def _light(person: Person, canvas: Canvas, face: np.ndarray) -> None:
    """Light from above, a little from one side, on the relief of the face; folds and hollows of age."""
    small = np.s_[::OVERSAMPLING, ::OVERSAMPLING]
    relief = person.relief(canvas.x[small], canvas.y[small]).astype(np.float32)
    relief = cv2.GaussianBlur(relief, (0, 0), 0.025 * canvas.unit / OVERSAMPLING)
    step = OVERSAMPLING / canvas.unit
    slope_y, slope_x = np.gradient(relief, step)
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    source = np.array([2.4 * person.light, -0.42, 0.9])
    source = source / np.linalg.norm(source)
    lit = (-slope_x * source[0] - slope_y * source[1] + source[2]) / length
    shine = np.clip((-slope_x * source[0] - slope_y * (source[1] - 0.1) + source[2] + 0.9) / length / 1.9, 0, 1) ** 24
    lit, shine = (cv2.resize(each, canvas.cover.shape[::-1]) for each in (lit, shine))
    brightness = np.clip(0.50 + 0.56 * lit, 0.3, 1.1)[..., None]
    canvas.shade(face, brightness ** np.array([0.85, 1.05, 1.12], np.float32))
    canvas.colour += (shine * face * 16)[..., None]
    wrinkled = person.age > 0.45

    def line(points: Sequence[tuple[float, float]], widths: Sequence[float], soft: float, factor, side: int = 1):
        canvas.shade(canvas.mask(ribbon(opened(np.array(points)) * [side, 1], widths), soft), factor)

    for side in (-1, 1):
        fold = (0.9 * person.nose_width + 0.03, 0.68), (0.38, 0.86), (person.mouth_width + 0.1, 1.08)
        line(fold, [0.012, 0.03, 0.012], 0.025, 1 - 0.05 - 0.26 * person.age, side)
        nostril = np.array([(0.05, 0.715), (0.11, 0.69), (0.16, 0.705), (0.12, 0.735)]) * [1 + 0.8 * person.nose, 1]
        canvas.shade(canvas.mask(closed(nostril) * [side, 1], 0.016), (0.34, 0.26, 0.25))
        for k in range(3 * wrinkled):
            foot = (0.80, 0.0 + 0.06 * k), (0.88, -0.03 + 0.08 * k), (0.96, -0.05 + 0.11 * k)
            line(foot, [0.008, 0.008], 0.012, 1 - 0.35 * (person.age - 0.35), side)
    for k in range(3 * wrinkled):
        across = (-0.5, -0.62 - 0.13 * k), (0, -0.65 - 0.13 * k), (0.5, -0.62 - 0.13 * k)
        line(across, [0.0, 0.012, 0.0], 0.02, 1 - 0.4 * (person.age - 0.35))


def _draw_eye(person: Person, canvas: Canvas, side: int) -> None:
    skin, dark = np.array(person.skin), np.array(person.skin) * 0.12 + (12, 8, 8)
    lid = person.lid * [side, 1]
    opening = closed(lid)
    inside = canvas.mask(opening, soft=0.006)
    middle = np.array([0.5 * side, lid[[2, 6], 1].mean() - 0.012])
    shadow = 1 - 0.32 * np.exp(-np.clip(canvas.y - lid[2, 1], 0, None) / 0.045)
    canvas.paint(inside, np.array([232, 228, 224]) * (0.9 + 0.3 * person.light * side) * shadow[..., None])
    distance = np.hypot(canvas.x - middle[0], canvas.y - middle[1])
    iris = np.clip((0.118 - distance) * canvas.unit / 2 + 0.5, 0, 1) * inside
    ring = 0.62 + 0.55 * np.clip(1 - np.abs(distance - 0.07) / 0.05, 0, 1) + 0.25 * (canvas.y - middle[1]) / 0.1
    canvas.paint(iris, np.array(person.iris) * (ring * shadow)[..., None])
    canvas.paint(np.clip((0.05 - distance) * canvas.unit / 2 + 0.5, 0, 1) * inside, (14, 12, 12))
    glint = np.hypot(canvas.x - middle[0] - 0.03 - 0.1 * person.light, canvas.y - middle[1] + 0.038)
    canvas.paint(np.clip((0.021 - glint) * canvas.unit / 1.5 + 0.5, 0, 1) * inside, (250, 250, 250), 0.9)
    upper, lower = opened(lid[:5]), opened(np.concatenate([lid[4:], lid[:1]]))
    lashes = ribbon(upper - np.array([0, 0.006]), [0.008, 0.016, 0.02, 0.02, 0.012])
    canvas.paint(canvas.mask(lashes, soft=0.006), dark, 0.9)
    canvas.shade(canvas.mask(ribbon(lower + np.array([0, 0.01]), [0.006, 0.01, 0.006]), 0.01), (0.72, 0.64, 0.62))
    crease = upper * [1, 1.25] + np.array([0, -0.05])
    canvas.shade(canvas.mask(ribbon(crease, [0.004, 0.014, 0.012, 0.006]), 0.012), (0.70, 0.64, 0.62))
    corner = closed(lid[:1] + 0.025 * np.array([(-1, 0), (0, -1), (1, 0), (0, 1)]))
    canvas.paint(canvas.mask(corner, 0.01), skin * (0.8, 0.58, 0.56), 0.5)


def _draw_hair(person: Person, canvas: Canvas, strands: np.ndarray) -> None:
    """What lies on the skull and around the face."""
    if person.style == "bald":
        return
    puff = {"short": 0.06, "side": 0.1, "fringe": 0.1, "bob": 0.14, "long": 0.13, "curly": 0.4, "bun": 0.05}
    out = puff.get(person.style, 0.015)
    ears = 0.28 if person.style in ("short", "side", "fringe", "buzz", "receding") else 0.05
    skull = both_sides([
        (0, -1.5 - out), (0.56, -1.36 - out), (0.96 + out / 2, -0.9 - out / 2), (1.12 + out / 2, -0.3), (1.1, ears),
        (1.0, ears + 0.08), (0, 0.6),
    ])  # fmt: skip
    windows = {
        "short": [(0, -1.0), (0.42, -0.97), (0.78, -0.74), (0.95, -0.3), (0.995, 0.2), (1.0, 0.6), (0.9, 1.6), (0, 2)],
        "side": [(0, -1.02), (0.42, -0.96), (0.8, -0.68), (0.96, -0.25), (0.995, 0.2), (1.0, 0.6), (0.9, 1.6), (0, 2)],
        "fringe": [(0, -0.69), (0.5, -0.69), (0.84, -0.6), (0.93, -0.2), (0.985, 0.2), (1.0, 0.6), (0.9, 1.6), (0, 2)],
        "bob": [(0, -1.05), (0.45, -0.93), (0.78, -0.62), (0.9, -0.1), (0.92, 0.5), (0.9, 0.9), (0.8, 1.6), (0, 2.2)],
        "long": [(0, -1.1), (0.42, -0.95), (0.74, -0.66), (0.88, -0.1), (0.93, 0.5), (0.94, 1), (0.95, 2.2), (0, 2.6)],
        "curly": [(0, -0.84), (0.5, -0.8), (0.84, -0.56), (0.96, -0.1), (1.02, 0.5), (1.0, 0.9), (0.9, 1.6), (0, 2)],
        "bun": [(0, -1.08), (0.45, -1.0), (0.8, -0.72), (0.99, -0.25), (1.03, 0.2), (1.04, 0.6), (0.9, 1.6), (0, 2)],
        "buzz": [(0, -0.98), (0.5, -0.93), (0.83, -0.72), (0.97, -0.35), (1.0, 0.2), (1.02, 0.6), (0.9, 1.6), (0, 2)],
        "receding": [(0, -1.1), (0.42, -1.27), (0.86, -0.92), (0.95, -0.45), (1, 0.2), (1.02, 0.6), (0.9, 1.6), (0, 2)],
    }  # fmt: skip
    window = closed(both_sides(windows[person.style]))
    soft = 0.09 if person.style == "curly" else 0.05 if person.style == "buzz" else 0.04
    if person.style in ("bob", "long"):
        low = 1.35 if person.style == "bob" else 2.75
        skull = both_sides([
            (0, -1.6), (0.7, -1.47), (1.15, -0.9), (1.3, -0.1), (1.34, 0.8), (1.3, low - 0.1), (1.05, low), (0, low),
        ])  # fmt: skip
    if person.style == "side":
        fringe = 0.16 * np.clip(-window[:, 0] - 0.45, -0.5, 1) * (window[:, 1] < -0.5)
        window = window + np.stack([0 * fringe, fringe], 1)
    mask = canvas.mask(closed(skull), soft=0.025 if person.style != "curly" else 0.05)
    free = canvas.mask(window, soft=soft)
    under = canvas.mask(window + np.array([0, 0.05]), soft=0.08)
    canvas.shade(np.clip(mask * (1 - under), 0, 1), 0.8)
    opacity = {"buzz": 0.72, "receding": 0.85}.get(person.style, 0.97)
    canvas.paint(mask * (1 - free), _hair_colour(person, canvas, strands), opacity)


def draw_background(person: Person, width: int, height: int) -> np.ndarray:
    """A plain wall with a few soft things before it, RGB uint8, shape (height, width, 3)."""
    random = np.random.default_rng(person.texture + 3)
    wall = np.array(person.wall, np.float32)
    across, down = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in (width, height)))
    picture = wall * (1 + 0.25 * person.light * across - 0.08 * down - 0.06 * across**2)[..., None]
    for _ in range(int(random.integers(0, 4))):
        left, top = random.uniform(-0.1, 0.9) * width, random.uniform(-0.2, 0.6) * height
        size = random.uniform(0.08, 0.35, 2) * (width, height * 1.6)
        colour = 0.75 * wall + 0.25 * np.array(CLOTHES[int(random.integers(len(CLOTHES)))])
        corner, opposite = (int(left), int(top)), (int(left + size[0]), int(top + size[1]))
        cv2.rectangle(picture, corner, opposite, colour.tolist(), -1)
    picture = cv2.GaussianBlur(picture, (0, 0), width / 110)
    return np.clip(np.rint(255 * (np.clip(picture, 0, 255) / 255) ** person.gamma), 0, 255).astype(np.uint8)
