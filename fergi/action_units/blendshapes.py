"""AU intensities from MediaPipe's blendshapes: the estimator that anybody can have.

FaceLandmarker gives 52 blendshapes a face, each from 0 to 1: how far one movement has gone. The table ``MAP`` says
which of them stand for which AU, and why. Its numbers come from drawn faces whose AUs are known
(``python -m benchmarks.blendshapes`` prints them), so that an intensity is about 0–5; docs/estimators.md says how well
that holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from fergi.action_units.estimator import Estimator
from fergi.faces.detection import quiet
from fergi.faces.landmarks import surroundings
from fergi.faces.pipeline import AlignedFace
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, sha256
from fergi.weights import FACE_LANDMARKER

MAP_VERSION = 1  # another one whenever a value of MAP changes: features of two versions are not mixed
LEAST = 1e-6  # of a blendshape, and of its distance from 1, so that every logit is finite
MOST_FACES = 4  # that are looked at in the surroundings of one
EYE_CORNERS = (33, 133, 362, 263)  # of the landmarks


@dataclass(frozen=True)
class Row:
    """How one AU follows from blendshapes.

    The response is the mean of the blendshapes ``up``, or of their logits, less ``less`` times that of ``down``. The
    intensity is 0 where the response is ``zero``, and grows by one for each ``step`` of it.
    """

    up: tuple[str, ...]
    zero: float
    step: float
    reason: str
    down: tuple[str, ...] = ()
    less: float = 0.0
    logit: bool = False

    def response(self, blendshapes: Mapping[str, np.ndarray]) -> np.ndarray:
        """The response to blendshapes by name, each of one shape, which is that of the result."""
        up, down = (
            np.mean([logit(blendshapes[name]) if self.logit else blendshapes[name] for name in names], axis=0)
            for names in (self.up, self.down or self.up)
        )
        return up - self.less * down


def logit(share: np.ndarray) -> np.ndarray:
    """The logit of values from 0 to 1, which are first kept ``LEAST`` away from both."""
    share = np.clip(share, LEAST, 1 - LEAST)
    return np.log(share / (1 - share))


def _both(name: str) -> tuple[str, str]:
    return f"{name}Left", f"{name}Right"


# Names of AUs and muscles are those of the Facial Action Coding System. AUs that are not here are not estimated:
#   5   eyeWide: brow raisers move it as well, and a real video at rest lies more than 10 intensities below drawn people
#   6   cheekSquint stays below 0.0001 on drawn faces and on a real video; eyeSquint is AU7, the lid tightener
#   9   noseSneer stays below 0.0001 on both
#   15  mouthFrown answers to AU20 more than to AU15
#   17  mouthShrugLower answers to AU15 more than to AU17
MAP: Mapping[int, Row] = {
    1: Row(
        ("browInnerUp",), zero=-1.22, step=0.756, logit=True,
        reason="AU1 raises the inner brows (frontalis, medial part)",
    ),
    2: Row(
        _both("browOuterUp"), zero=-0.573, step=0.677, logit=True,
        reason="AU2 raises the outer brows (frontalis, lateral part)",
    ),
    4: Row(
        _both("browDown"), down=("browInnerUp",), less=2, zero=-4.24, step=2.0, logit=True,
        reason="AU4 lowers the brows (corrugator, depressor supercilii): browDown grows and browInnerUp falls. Both "
        "may stay near 0 all the time, so only logits tell. browInnerUp is the steadier one and counts twice",
    ),
    12: Row(
        _both("mouthSmile"), zero=0.0005, step=0.19,
        reason="AU12 pulls the lip corners up and outwards (zygomaticus major)",
    ),
    20: Row(
        _both("mouthStretch"), zero=0.0042, step=0.117,
        reason="AU20 stretches the lip corners sideways (risorius)",
    ),
    25: Row(
        _both("mouthLowerDown"), zero=-7.44, step=1.14, logit=True,
        reason="AU25 parts the lips: the lower one comes down (depressor labii inferioris); a dropped jaw does so too",
    ),
    26: Row(
        ("jawOpen",), zero=0.0079, step=0.0666,
        reason="AU26 drops the jaw (masseter relaxed)",
    ),
}  # fmt: skip
NAMES = tuple(sorted({name for row in MAP.values() for name in (*row.up, *row.down)}))


def intensities(blendshapes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Intensities (…, 12) from blendshapes by name, each of shape (…); NaN for AUs that are not in ``MAP``."""
    missing = np.full(np.shape(blendshapes[NAMES[0]]), np.nan)
    columns = [
        (MAP[unit].response(blendshapes) - MAP[unit].zero) / MAP[unit].step if unit in MAP else missing
        for unit in ACTION_UNITS
    ]
    return np.stack(columns, axis=-1)


class Blendshapes(Estimator):
    """MediaPipe's FaceLandmarker, without tracking from frame to frame, and the map from its blendshapes to AUs.

    An instance belongs to one process; a worker gets its own by pickling.
    """

    in_workers = True

    def __init__(self, model: Path):
        """Load the ``.task`` file.

        Raises
        ------
        FergiError
            If it is missing, or is no face landmarker with blendshapes that mediapipe can load.
        """
        self._model = model
        try:
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
                num_faces=MOST_FACES,
                output_face_blendshapes=True,
            )
            with quiet():
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
                self.blendshapes(np.zeros((64, 64, 3), np.uint8), (16, 16, 32, 32))
        except FileNotFoundError:
            raise FergiError(f"{model} does not exist. {FACE_LANDMARKER.advice}") from None
        except (OSError, RuntimeError, ValueError) as error:
            cause = " ".join(str(error).split()) or "it is empty"
            raise FergiError(
                f"{model} is no face landmarker with blendshapes that mediapipe can load ({cause}). Remove it. "
                f"{FACE_LANDMARKER.advice}"
            ) from error

    def __reduce__(self) -> tuple:
        return type(self), (self._model,)

    @property
    def settings(self) -> dict[str, str]:
        """See ``Estimator``. ``network`` tells these files from those of the AU model that do not name an estimator."""
        return {
            "estimator": "blendshapes",
            "estimator_version": f"map {MAP_VERSION}, {sha256(self._model)}",
            "network": self._model.name,
            "mediapipe": mediapipe.__version__,
        }

    def estimate_faces(self, pictures: Sequence[np.ndarray], faces: Sequence[AlignedFace]) -> np.ndarray:
        """See ``Estimator``."""
        found = [self.blendshapes(picture, face.box) for picture, face in zip(pictures, faces, strict=True)]
        nothing = dict.fromkeys(NAMES, np.nan)
        table = {name: np.array([(each or nothing)[name] for each in found]) for name in NAMES}
        return intensities(table)

    def blendshapes(self, picture: np.ndarray, box: tuple[int, int, int, int]) -> dict[str, float] | None:
        """The 52 blendshapes of the face in a box of an RGB picture; None if the landmarker finds none there.

        The landmarker sees the box and half a box more on each side: on drawn faces this gave steadier brows than the
        whole picture or a wider part. Of several faces it is the one whose eyes are nearest to the middle of the box.
        """
        part, origin = surroundings(picture, box)
        if not part.size:
            return None
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(part))
        result = self._landmarker.detect(image)
        middle, size = np.add(box[:2], np.divide(box[2:], 2)), np.array(box[2:])
        best, nearest = None, np.inf
        for points, categories in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            eyes = np.mean([(points[index].x, points[index].y) for index in EYE_CORNERS], axis=0)
            away = np.abs(eyes * part.shape[1::-1] + origin - middle)
            if (away <= size / 2).all() and away.sum() < nearest:
                best, nearest = categories, away.sum()
        return best and {category.category_name: category.score for category in best}
