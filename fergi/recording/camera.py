"""Whether a webcam's picture can be used: a face, light, and a picture that lives (Sections 3.2.2 and A.1)."""

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from fergi.pictures import open_picture

LARGEST_SIDE = 4096  # pixels
DARKEST, BRIGHTEST = 0.15, 0.9  # mean brightness, 0–1
LEAST_CONTRAST = 0.02  # standard deviation of brightness, 0–1, below which a picture is blank
LEAST_CHANGE = 0.1 / 255  # mean change from one check to the next, below which a picture is still
CHECKS_KEPT = 1000  # participants whose last picture is kept


@dataclass
class CameraCheck:
    """Looks at single pictures of the preview.

    ``detect`` gives the confidence (0–1) of the face in an RGB picture (height, width, 3), or None; below
    ``least_confidence`` a frame of a clip would be dropped later on.
    """

    detect: Callable[[np.ndarray], float | None]
    least_confidence: float
    _last: dict[str, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, participant: str, jpeg: bytes) -> dict[str, Any]:
        """What is wrong with a picture, by key; it is kept until the participant's next one.

        Raises
        ------
        ValueError
            If the bytes are no JPEG picture, or it is too large.
        """
        try:
            opened = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
        except (OSError, Image.DecompressionBombError):
            raise ValueError("this is not a JPEG picture") from None
        if max(opened.size) > LARGEST_SIDE:
            raise ValueError(f"the picture is larger than {LARGEST_SIDE} pixels")
        picture = np.asarray(open_picture(opened))
        levels = picture.mean(axis=2, dtype=np.float32) / 255
        with self._lock:
            score = self.detect(picture)
            before = self._last.pop(participant, None)
            self._last[participant] = levels
            while len(self._last) > CHECKS_KEPT:
                self._last.pop(next(iter(self._last)))
        brightness = float(levels.mean())
        same_size = before is not None and before.shape == levels.shape
        still = bool(same_size and np.abs(levels - before).mean() < LEAST_CHANGE)
        found = {
            "blank": levels.std() < LEAST_CONTRAST,
            "no_face": score is None,
            "unsure_face": score is not None and score < self.least_confidence,
            "too_dark": brightness < DARKEST,
            "too_bright": brightness > BRIGHTEST,
            "still": still,
        }
        return {
            "face": score is not None,
            "score": None if score is None else round(float(score), 3),
            "brightness": round(brightness, 3),
            "still": still,
            "problems": [name for name, wrong in found.items() if wrong],
        }

    def forget(self, participant: str) -> None:
        """Do not keep this participant's last picture any longer."""
        with self._lock:
            self._last.pop(participant, None)
