"""Folders of aligned faces for the tests: simple drawn faces whose brows show AU4 and whose mouth shows AU12."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fergi.features import ACTION_UNITS

UNITS = [f"AU{unit}" for unit in ACTION_UNITS]
SIDE = 112


def drawn_face(random: np.random.Generator, person: int, au4: int, au12: int) -> np.ndarray:
    """A face of one person, 112 × 112, BGR: brows sink and slant with AU4, mouth corners rise with AU12."""
    own = np.random.default_rng(person)
    skin, hair, lips = own.uniform(120, 230, 3), own.uniform(10, 90, 3), own.uniform(40, 120, 3)
    shift = own.uniform(-2, 2, 2) + random.uniform(-1, 1, 2)
    picture = np.full((SIDE, SIDE, 3), own.uniform(0, 255, 3))

    def at(x: float, y: float) -> tuple[int, int]:
        return round(float(16 * (56 + x + shift[0]))), round(float(16 * (56 + y + shift[1])))

    def line(points, colour, width: int) -> None:
        points = np.array([at(x, y) for x, y in points])
        cv2.polylines(picture, [points], False, colour.tolist(), width, cv2.LINE_AA, shift=4)

    cv2.ellipse(picture, at(0, 0), (16 * 46, 16 * 54), 0, 0, 360, skin.tolist(), -1, cv2.LINE_AA, shift=4)
    for side in (-1, 1):
        cv2.circle(picture, at(20 * side, -14), 16 * 5, (40, 40, 40), -1, cv2.LINE_AA, shift=4)
        line([(8 * side, -32 + 2.4 * au4), (32 * side, -32 + 0.6 * au4)], hair, 4)
    line([(0, -8), (-3, 10), (3, 10)], skin * 0.8, 2)
    x = np.linspace(-1, 1, 9)
    line(np.stack([(16 + 1.2 * au12) * x, 30 - 3.2 * au12 * x**2], axis=1), lips, 5)
    picture = picture * random.uniform(0.85, 1.15) + random.normal(0, 3, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def write_faces(root: Path, dataset: str, frames_of: dict[str, int], seed: int = 0) -> Path:
    """``preparation/<dataset>_faces`` as stages 1 and 2 write it, with so many frames of each subject."""
    folder = root / "preparation" / f"{dataset}_faces"
    random = np.random.default_rng(seed)
    rows = []
    for subject, n_frames in frames_of.items():
        (folder / subject).mkdir(parents=True)
        for frame in range(1, n_frames + 1):
            au4, au12 = random.integers(0, 6, 2)
            name = f"{subject}/{frame}.png"
            cv2.imwrite(str(folder / name), drawn_face(random, int("".join(filter(str.isdigit, subject))), au4, au12))
            labels = dict.fromkeys(UNITS, -1) | {"AU4": au4, "AU12": au12}
            rows.append({"image": name, "subject": subject, "part": "left", "frame": str(frame)} | labels)
    pd.DataFrame(rows).to_csv(folder / "index.csv", index=False)
    (folder / "settings.json").write_text(json.dumps({"camera": "both"}))
    return folder
