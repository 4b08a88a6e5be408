"""Videos and pictures of a face for the tests, and scripts without worker processes.

The face is Eileen Collins, from scikit-image, in the public domain: on it the real detector and landmarks work.
"""

import functools
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import snapshot as snapshot
from skimage.data import astronaut

from fergi import clips
from fergi.action_units import aligned_faces
from fergi.faces import pipeline
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.processes import items_from_workers

GREY = np.full((192, 192, 3), 128, np.uint8)
RATE = 30


@functools.cache
def portrait() -> np.ndarray:
    """One face, about 75 pixels wide, RGB, 192 × 192."""
    return cv2.resize(astronaut()[0:320, 60:380], (192, 192), interpolation=cv2.INTER_AREA)


def moving_face(n: int, start: int = 0) -> list[np.ndarray]:
    """Frames in which the face moves to the side and back and gets brighter, so that no two are alike."""
    return [
        np.clip(np.roll(portrait(), abs((start + i) % 24 - 12) - 6, axis=1) * (0.8 + 0.006 * (i % 40)), 0, 255).astype(
            np.uint8
        )
        for i in range(n)
    ]


def film(path: Path, pictures: Iterable[np.ndarray], codec: str = "mp4v", rate: float = RATE, side: int = 192) -> Path:
    """Write RGB pictures of side × side pixels as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (side, side))
    assert writer.isOpened(), f"OpenCV does not write {codec} into {path.suffix}"
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@functools.cache
def _facemesh(luma: str) -> FaceAligner:
    return FaceAligner(AlignmentSettings(Path("no weights"), "facemesh", luma))


def shared_aligner(settings: AlignmentSettings) -> FaceAligner:
    """A FaceAligner; the one with nothing but what mediapipe brings along is loaded once."""
    if settings.landmarks == "facemesh" and not settings.pretrained_models.is_dir():
        return _facemesh(settings.luma)
    return FaceAligner(settings)


def without_workers(patch: pytest.MonkeyPatch) -> None:
    """Let this process do the work of the workers, which take seconds to import what they need."""
    import clips_facial_process

    for module in (clips, aligned_faces):
        patch.setattr(module, "items_from_workers", lambda dataset, workers: items_from_workers(dataset, 0))
    for module in (clips, aligned_faces, clips_facial_process, pipeline):
        patch.setattr(module, "FaceAligner", shared_aligner)


class FatalAlignment:
    """Alignment settings that end the process at its first face, as the system does when memory runs out."""

    pretrained_models, landmarks = Path("no weights"), "facemesh"
    settings: dict[str, str] = {}  # noqa: RUF012

    @property
    def luma(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":  # what torchrun starts in a test
    time.sleep(4 * int(os.environ["RANK"]))
    without_workers(pytest.MonkeyPatch())
    from clips_facial_process import main
    from fergi.script import run

    run(main)
