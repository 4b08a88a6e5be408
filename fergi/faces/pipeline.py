"""Picture in, aligned and equalised face out: detection, crop, landmarks, alignment, contrast, padding."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mediapipe
import numpy as np

from fergi.faces.alignment import align_face, crop_face, face_frame
from fergi.faces.detection import FaceDetector, detector_model
from fergi.faces.equalisation import LUMA_ORDERS, equalise, pad_to_square
from fergi.faces.landmarks import BACK_ENDS, MOBILEFACENET_FILE
from fergi.files import sha256


@dataclass(frozen=True)
class AlignedFace:
    """What one frame gives the estimator of AUs and the validity filter.

    An RGB picture, uint8, shape (112, 112, 3); the face detection confidence score (0–1) and the ratios of eqs. 19
    and 18; where the face is in the frame, in pixels: the detection's x, y, width, height, and the 68 landmarks.
    """

    picture: np.ndarray
    score: float
    pitch_ratio: float
    yaw_ratio: float
    box: tuple[int, int, int, int]
    landmarks: np.ndarray


@dataclass(frozen=True)
class AlignmentSettings:
    """How faces are found and aligned; small enough to hand to worker processes.

    ``landmarks`` is one of ``BACK_ENDS``: mobilefacenet (the paper's) or facemesh. ``luma``: see ``equalise``.
    """

    pretrained_models: Path
    landmarks: str
    luma: str = "released"

    @property
    def settings(self) -> dict[str, str]:
        """What outputs depend on, for ``keep_settings``."""
        detector = detector_model(self.pretrained_models)[1]
        settings = {"detector": detector, "landmarks": self.landmarks, "luma": self.luma}
        if self.landmarks == "mobilefacenet":
            settings["landmarks_sha256"] = sha256(self.pretrained_models / MOBILEFACENET_FILE)
            settings["landmarks_runtime"] = f"openvino {version('openvino')}"
        else:
            settings["mediapipe"] = mediapipe.__version__
        return settings


def alignment_settings(pretrained_models: Path, landmarks: str | None, luma: str = "released") -> AlignmentSettings:
    """Settings whose landmarks are by default the paper's network if its weights exist, and else FaceMesh."""
    if landmarks is None:
        landmarks = "mobilefacenet" if (pretrained_models / MOBILEFACENET_FILE).is_file() else "facemesh"
    return AlignmentSettings(pretrained_models, landmarks, luma)


def add_alignment_arguments(parser: argparse.ArgumentParser) -> None:
    """``--landmarks`` and ``--luma``, which every script that aligns faces takes."""
    parser.add_argument(
        "--landmarks",
        choices=tuple(BACK_ENDS),
        help="default: mobilefacenet, the paper's, if its weights exist, else facemesh",
    )
    parser.add_argument(
        "--luma",
        choices=tuple(LUMA_ORDERS),
        default="released",
        help="see fergi/faces/equalisation.py (default: %(default)s)",
    )


class FaceAligner:
    """From pictures to aligned faces, one independently of another. An instance belongs to one process."""

    def __init__(self, settings: AlignmentSettings):
        """Load the detector and the landmarks.

        Raises
        ------
        FergiError
            If a model is missing or damaged.
        """
        self._settings = settings
        self._detector = FaceDetector(detector_model(settings.pretrained_models)[0])
        self._landmarks = BACK_ENDS[settings.landmarks](settings.pretrained_models)

    def align(self, pictures: Sequence[np.ndarray]) -> list[AlignedFace | None]:
        """The widest face of each RGB picture (height, width, 3); None where there is none, or none to align."""
        found = [self._detector.detect(picture) for picture in pictures]
        which = [index for index, face in enumerate(found) if face is not None]
        faces = [found[index] for index in which]
        crops = [crop_face(pictures[index], face.box) for index, face in zip(which, faces, strict=True)]
        landmarks = self._landmarks.locate([pictures[index] for index in which], faces, crops)
        aligned: list[AlignedFace | None] = [None] * len(pictures)
        for index, face, crop, points in zip(which, faces, crops, landmarks, strict=True):
            if points is None:
                continue
            try:
                frame = face_frame(points)
                upright = align_face(crop.picture, frame)
            except ValueError:  # the points do not make a face
                continue
            picture = pad_to_square(equalise(upright, self._settings.luma))
            ratios = frame.pitch_ratio, frame.yaw_ratio
            aligned[index] = AlignedFace(picture, face.score, *ratios, face.box, points + crop.origin)
        return aligned
