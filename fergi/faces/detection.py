"""Where the face is, by MediaPipe's short-range detector."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from fergi.files import FergiError, sha256

MODEL_FILE = "blaze_face_short_range.tflite"


@dataclass(frozen=True)
class Detection:
    """One face: x, y, width, height in pixels (may leave the picture), and the confidence score, 0–1."""

    box: tuple[int, int, int, int]
    score: float


def detector_model(pretrained_models: Path) -> tuple[Path, str]:
    """The detector's file, in the folder of weights or else in the mediapipe package, and its name in the settings."""
    file = pretrained_models / MODEL_FILE
    if file.is_file():
        return file, f"{MODEL_FILE}, SHA-256 {sha256(file)}"
    bundled = Path(mediapipe.__file__).parent / "modules" / "face_detection" / "face_detection_short_range.tflite"
    return bundled, f"mediapipe {mediapipe.__version__}, bundled short-range detector"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the messages of mediapipe's C++ parts off the terminal while models load; errors are exceptions anyway."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


class FaceDetector:
    """MediaPipe's short-range face detector, without tracking from frame to frame; the widest face counts.

    An instance belongs to one process.
    """

    def __init__(self, model: Path):
        """Load the model file.

        Raises
        ------
        FergiError
            If the file is not a detector that mediapipe can load.
        """
        try:
            options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_buffer=model.read_bytes()))
            with quiet():
                self._detector = vision.FaceDetector.create_from_options(options)
                self.detect(np.zeros((64, 64, 3), np.uint8))
        except (OSError, RuntimeError, ValueError) as error:
            raise FergiError(f"{model} is no face detector that mediapipe can load ({error}). Get it again.") from error

    def detect(self, picture: np.ndarray) -> Detection | None:
        """The widest face of an RGB picture (height, width, 3), uint8; None if there is none."""
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        found = [
            Detection((box.origin_x, box.origin_y, box.width, box.height), face.categories[0].score)
            for face in self._detector.detect(image).detections
            if (box := face.bounding_box).width > 0 and box.height > 0
        ]
        return max(found, key=lambda face: face.box[2], default=None)
