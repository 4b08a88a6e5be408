"""Prompts of simple scenes, and drawn pictures of them, good and bad, in place of generated images.

A picture's quality is the mean of two cues: how much of the prompt it shows (match) and how well it is drawn
(fidelity). Its light varies as well and is no part of the quality.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

OVERSAMPLING = 2
SIDE = 256

Colour = tuple[float, float, float]  # RGB, 0–255

COLOURS: dict[str, Colour] = {
    "red": (214, 48, 49), "orange": (240, 138, 36), "yellow": (247, 209, 60), "green": (46, 160, 84),
    "blue": (46, 104, 208), "purple": (128, 66, 178), "pink": (242, 140, 184), "white": (245, 245, 242),
}  # fmt: skip
NUMBERS = ("a", "two", "three")
# Horizon and foreground.
GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "a grassy hill": ((128, 176, 92), (84, 138, 70)),
    "a snowy field": ((226, 234, 242), (196, 210, 226)),
    "a sandy beach": ((236, 218, 172), (212, 184, 130)),
    "a stony plain": ((158, 152, 148), (118, 112, 112)),
}
# Top of the sky, horizon, the light on everything; height, radius and colour of sun or moon.
TIMES: dict[str, tuple[Colour, Colour, float, float, float, Colour]] = {
    "in the morning": ((136, 186, 226), (250, 224, 208), 1.0, 0.5, 0.07, (255, 238, 190)),
    "at noon": ((84, 156, 224), (196, 226, 242), 1.05, 0.1, 0.06, (255, 250, 220)),
    "at sunset": ((96, 92, 150), (250, 168, 110), 0.92, 0.6, 0.1, (255, 120, 70)),
    "at night": ((18, 24, 58), (70, 84, 130), 0.72, 0.13, 0.06, (236, 236, 214)),
}
CREAM, BROWN, INK, GREEN = (250, 236, 208), (122, 84, 56), (40, 36, 44), (60, 130, 66)
OWN, DARK, LIGHT = 1.0, 0.72, 1.25  # factors of the thing's own colour

# Outlines in a square from −1 to 1, x to the right and y down, each with a colour or a factor of the thing's own one.
Outlines = list[tuple[np.ndarray, Colour | float]]


def _ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.column_stack([x + width * np.cos(angle), y + height * np.sin(angle)])


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _mushroom() -> Outlines:
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    cap = np.column_stack([0.9 * np.cos(angle), 0.25 + 0.95 * np.sin(angle)])
    dots = [(_ellipse(x, y, 0.13, 0.11), CREAM) for x, y in ((-0.45, -0.08), (0.05, -0.42), (0.45, 0.0))]
    return [(_polygon((-0.22, 0.2), (0.22, 0.2), (0.3, 1), (-0.3, 1)), CREAM), (cap, OWN), *dots]


def _flower() -> Outlines:
    angles = 2 * np.pi * np.arange(6) / 6
    petals = [(_ellipse(0.4 * np.cos(a), -0.35 + 0.4 * np.sin(a), 0.28, 0.28), OWN) for a in angles]
    stalk, leaf = _box(-0.05, -0.2, 0.05, 1), _polygon((0, 0.75), (0.45, 0.4), (0.3, 0.75))
    return [(stalk, GREEN), (leaf, GREEN), *petals, (_ellipse(0, -0.35, 0.22, 0.22), (250, 190, 60))]


def _star() -> Outlines:
    angle = -np.pi / 2 + np.pi * np.arange(10) / 5
    points = np.column_stack([np.cos(angle), np.sin(angle)]) * np.tile([1.0, 0.45], 5)[:, None]
    return [(points * 0.95, DARK), (points * 0.82, OWN)]


def _heart() -> Outlines:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    points = np.column_stack([x, y]) / 18
    return [(points, DARK), (points * 0.88 - [0.03, 0.04], OWN), (_ellipse(-0.45, -0.35, 0.14, 0.12), LIGHT)]


STANDING: dict[str, Outlines] = {
    "ball": [
        (_ellipse(0, 0.2, 0.8, 0.8), DARK), (_ellipse(-0.07, 0.12, 0.7, 0.7), OWN),
        (_ellipse(-0.3, -0.15, 0.22, 0.16), LIGHT),
    ],
    "house": [
        (_box(-0.7, -0.15, 0.7, 1), OWN), (_box(0.35, -0.15, 0.7, 1), DARK),
        (_polygon((-0.9, -0.1), (0, -0.95), (0.9, -0.1)), DARK), (_box(-0.15, 0.4, 0.2, 1), BROWN),
        (_box(-0.55, 0.1, -0.25, 0.4), CREAM), (_box(0.4, 0.1, 0.62, 0.4), CREAM),
    ],
    "tree": [
        (_box(-0.12, 0.2, 0.12, 1), BROWN), (_ellipse(0.3, 0.05, 0.5, 0.42), DARK),
        (_ellipse(-0.3, 0.02, 0.5, 0.42), OWN), (_ellipse(0, -0.42, 0.52, 0.5), OWN),
        (_ellipse(-0.18, -0.6, 0.2, 0.16), LIGHT),
    ],
    "mushroom": _mushroom(),
    "flower": _flower(),
}  # fmt: skip
FLYING: dict[str, Outlines] = {
    "balloon": [
        (_box(-0.025, 0.4, 0.025, 1), INK), (_polygon((-0.12, 0.58), (0, 0.42), (0.12, 0.58)), DARK),
        (_ellipse(0, -0.25, 0.6, 0.74), DARK), (_ellipse(-0.05, -0.3, 0.53, 0.66), OWN),
        (_ellipse(-0.24, -0.55, 0.12, 0.18), LIGHT),
    ],
    "star": _star(),
    "heart": _heart(),
    "butterfly": [
        (_ellipse(-0.48, -0.3, 0.46, 0.42), OWN), (_ellipse(0.48, -0.3, 0.46, 0.42), OWN),
        (_ellipse(-0.38, 0.35, 0.34, 0.34), DARK), (_ellipse(0.38, 0.35, 0.34, 0.34), DARK),
        (_ellipse(-0.5, -0.32, 0.18, 0.16), LIGHT), (_ellipse(0.5, -0.32, 0.18, 0.16), LIGHT),
        (_ellipse(0, 0, 0.09, 0.62), INK),
    ],
    "kite": [
        (_polygon((0, 0.5), (0.08, 0.62), (-0.04, 0.8), (0.08, 1), (0.03, 1), (-0.1, 0.8), (0.02, 0.62)), INK),
        (_polygon((0, -1), (0.62, -0.25), (0, 0.55), (-0.62, -0.25)), OWN),
        (_polygon((0, -1), (0.62, -0.25), (0, 0.55)), DARK), (_polygon((0, -1), (0, -0.25), (-0.62, -0.25)), LIGHT),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Things:
    """One to three things of a kind and a colour."""

    number: int
    colour: str
    kind: str

    def __str__(self) -> str:
        plural = {"butterfly": "butterflies"}.get(self.kind, f"{self.kind}s")
        article = "an" if self.number == 1 and self.colour[0] in "aeiou" else NUMBERS[self.number - 1]
        return f"{article} {self.colour} {self.kind if self.number == 1 else plural}"


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for: things on the ground, things in the air, a place and a time of day."""

    standing: Things
    flying: Things
    ground: str
    time: str

    @property
    def prompt(self) -> str:
        """In words."""
        return f"{self.standing} on {self.ground} and {self.flying} in the sky, {self.time}"


@dataclass(frozen=True)
class Drawing:
    """A picture and its cues."""

    picture: Image.Image  # RGB, square
    match: float  # how much of the prompt it shows, 0–1
    fidelity: float  # how well it is drawn, 0–1
    warmth: float  # of the light, −1 to 1; no part of the quality
    brightness: float


def random_scene(random: np.random.Generator) -> Scene:
    """One of some two hundred thousand scenes."""

    def pick(names: dict) -> str:
        return list(names)[random.integers(len(names))]

    standing = Things(int(random.integers(1, 4)), pick(COLOURS), pick(STANDING))
    flying = Things(int(random.integers(1, 4)), pick(COLOURS), pick(FLYING))
    return Scene(standing, flying, pick(GROUNDS), pick(TIMES))


def draw_picture(scene: Scene, quality: float, random: np.random.Generator, side: int = SIDE) -> Drawing:
    """A picture of a scene.

    At quality 1 it shows what the prompt says, sharp and in its place. A lower quality is split at random between
    match (wrong colours, things that are missing, things that nobody asked for) and fidelity (bent shapes, blur,
    stains, faded colours), and those again between their parts.

    The quality is from 0 to 1, ``side`` in pixels; ``random`` in the same state gives the same picture.
    """
    match, fidelity = _split(quality, random).tolist()
    warmth, brightness = random.uniform(-1, 1, 2).tolist()
    levels = _drawn(scene, 1 - match, random, side * OVERSAMPLING)
    levels = cv2.resize(levels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    levels = _spoilt(levels, 1 - fidelity, random)
    levels *= 1 + 0.14 * brightness + 0.14 * warmth * np.array([1, 0, -1], np.float32)
    picture = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    return Drawing(picture, match, fidelity, warmth, brightness)


def _split(mean: float, random: np.random.Generator) -> np.ndarray:
    """Two numbers from 0 to 1 of a given mean."""
    return mean + np.array([1, -1]) * random.uniform(-1, 1) * min(mean, 1 - mean)


def _drawn(scene: Scene, error: float, random: np.random.Generator, side: int) -> np.ndarray:
    """The scene in sharp lines, with errors in what it shows; uint8, shape (side, side, 3)."""
    high, low, light, sun, radius, colour = TIMES[scene.time]
    height = np.linspace(0, 1, side)[:, None] / 0.66
    sky = np.array(high) + (np.array(low) - high) * height.clip(0, 1)
    canvas = np.repeat(sky[:, None].round().astype(np.uint8), side, axis=1)
    _fill(canvas, _ellipse(random.uniform(0.1, 0.9), sun, radius, radius), np.array(colour))
    if scene.time == "at night":
        for x, y in random.uniform((0, 0), (1, 0.5), (25, 2)):
            _fill(canvas, _ellipse(x, y, 0.004, 0.004), np.array((220, 224, 240)))
    x = np.linspace(0, 1, 60)
    for horizon, tone, wave in zip((0.64, 0.8), GROUNDS[scene.ground], random.uniform(0, 2 * np.pi, 2), strict=True):
        y = horizon + 0.025 * np.sin(4 * x + wave)
        _fill(canvas, np.column_stack([[0, *x, 1], [1, *y, 1]]), np.array(tone) * light)
    flying, standing = _split(error, random)
    _draw_things(canvas, scene.flying, FLYING, flying, light, random)
    _draw_things(canvas, scene.standing, STANDING, standing, light, random)
    return canvas


def _fill(canvas: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    """Fill an outline given in shares of the side."""
    fixed = (points * len(canvas) * 16).round().astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour.clip(0, 255).round().tolist(), lineType=cv2.LINE_AA, shift=4)


def _draw_things(
    canvas: np.ndarray,
    things: Things,
    kinds: dict[str, Outlines],
    error: float,
    light: float,
    random: np.random.Generator,
) -> None:
    """Things in a row on the ground or in the air, the more wrong the greater the error (0–1)."""
    others = [name for name in COLOURS if name != things.colour]
    own, wrong = (np.array(COLOURS[name]) for name in (things.colour, others[random.integers(len(others))]))
    shown = own + (wrong - own) * min(1.0, 1.3 * error)
    missing = round(error * things.number * random.uniform(0.2, 0.9))
    surplus = round(error * random.uniform(0, 3))
    row = [(kinds[things.kind], shown)] * max(things.number - missing, 0)
    for _ in range(surplus):
        colour = np.array(COLOURS[others[random.integers(len(others))]])
        row.append((list(kinds.values())[random.integers(len(kinds))], colour))
    row = [row[place] for place in random.permutation(len(row))]
    standing = kinds is STANDING
    for place, (outlines, colour) in enumerate(row):
        size = random.uniform(0.13, 0.16) * (1.1 if standing else 0.85) * (1 if len(row) < 4 else 0.75)
        x = (place + 0.5 + random.uniform(-0.12, 0.12)) / len(row)
        y = random.uniform(0.72, 0.82) - size * 0.55 if standing else random.uniform(0.18, 0.36)
        if standing:  # its shadow
            _fill(canvas, _ellipse(x + 0.02, y + size, size * 0.9, size * 0.16), np.array((60, 66, 70)) * light)
        for points, paint in outlines:
            tone = colour * paint if isinstance(paint, float) else np.array(paint)
            _fill(canvas, points * size + (x, y), tone * (1 + light) / 2)


def _spoilt(levels: np.ndarray, error: float, random: np.random.Generator) -> np.ndarray:
    """Bent shapes, blur, stains and faded colours, each between half and one and a half times the error (0–1)."""
    side = len(levels)
    bend, blur, stain, fade = (error * random.uniform(0.5, 1.5, 4)).tolist()
    bends = random.normal(0, 1, (2, 7, 7)).astype(np.float32)
    stains = random.normal(0, 1, (2, 32, 32, 3)).astype(np.float32)

    def enlarged(field: np.ndarray) -> np.ndarray:
        return cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)

    if error:
        places = np.mgrid[:side, :side].astype(np.float32)
        y, x = (place + 0.03 * bend * side * enlarged(field) for place, field in zip(places, bends, strict=True))
        levels = cv2.remap(levels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        levels = cv2.GaussianBlur(levels, (0, 0), 0.001 * side + 0.012 * side * blur)
        levels += 0.4 * fade * (128 - levels)
        levels += stain * (16 * enlarged(stains[0]) + 12 * enlarged(cv2.resize(stains[1], (16, 16))))
    return levels
