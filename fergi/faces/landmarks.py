"""The 68 landmarks of a face, by the paper's network or by MediaPipe's FaceMesh."""

from collections.abc import Sequence
from pathlib import Path

import mediapipe
import numpy as np
import torch
from PIL import Image

from fergi.faces.alignment import EYE_LEFT, EYE_RIGHT, FACE_SIZE, Crop
from fergi.faces.detection import Detection, quiet
from fergi.faces.mobilefacenet import MobileFaceNet
from fergi.weights import MOBILEFACENET, load_state, load_strictly

MOBILEFACENET_FILE = Path(MOBILEFACENET.path).name
MOBILEFACENET_BATCH = 8
# FaceMesh points that stand for the 68: jaw, brows, nose, nostrils, eyes, outer lip, inner lip.
FACEMESH_POINTS = (
    127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,
    78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip


def surroundings(picture: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A detection's box (x, y, width, height) and half a box more on each side, as far as the picture goes.

    The part, a view of the picture, and (x, y) of its first pixel.
    """
    x, y, width, height = box
    left, top = max(x - width // 2, 0), max(y - height // 2, 0)
    return picture[top : max(y + height + height // 2, 0), left : max(x + width + width // 2, 0)], (left, top)


class FaceMesh:
    """MediaPipe's FaceMesh, without tracking. The mediapipe package includes its models."""

    def __init__(self, pretrained_models: Path | None = None) -> None:
        with quiet():
            self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True
            )
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))

    def locate(
        self, pictures: Sequence[np.ndarray], faces: Sequence[Detection], crops: Sequence[Crop]
    ) -> list[np.ndarray | None]:
        """The landmarks of each face in pixels of its crop, shape (68, 2); None where none are found.

        FaceMesh misses faces that fill the picture, so it gets the box and half a box more on each side, and if it
        finds nothing there, the whole picture. A face counts only if the middle between its eyes lies in the box.
        """
        return [self._locate(*each) for each in zip(pictures, faces, crops, strict=True)]

    def _locate(self, picture: np.ndarray, face: Detection, crop: Crop) -> np.ndarray | None:
        x, y, width, height = face.box
        for part, origin in (surroundings(picture, face.box), (picture, (0, 0))):
            if not part.size:
                continue
            found = self._mesh.process(np.ascontiguousarray(part)).multi_face_landmarks
            if found:
                points = found[0].landmark
                unit = np.array([(points[index].x, points[index].y) for index in FACEMESH_POINTS])
                landmarks = unit * part.shape[1::-1] + origin
                to_eyes = (landmarks[EYE_LEFT].mean(axis=0) + landmarks[EYE_RIGHT].mean(axis=0)) / 2 - (x, y)
                if (to_eyes >= 0).all() and (to_eyes <= (width, height)).all():
                    return landmarks - crop.origin
        return None


class MobileFaceNetLandmarks:
    """The paper's landmark network, on crops resized to 112 × 112 as in the original.

    That is torchvision's Resize of a PIL picture: bilinear and antialiased. OpenCV's bilinear resize, which is not
    antialiased, moves the pitch and yaw ratios by up to 0.04 on a real video.

    Every batch has the same size, the last one filled up with black, because the last bits of a face's landmarks
    depend on the size of its batch.
    """

    def __init__(self, pretrained_models: Path) -> None:
        """Load the network's weights strictly.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout.
        """
        from torchvision.transforms import Compose, Resize, ToTensor  # it takes seconds that FaceMesh need not wait

        weights = pretrained_models / MOBILEFACENET_FILE
        self._network_input = Compose([Resize((FACE_SIZE, FACE_SIZE)), ToTensor()])
        self._network = MobileFaceNet().eval()
        state = load_state(weights, key=MOBILEFACENET.key, advice=MOBILEFACENET.advice)
        load_strictly(self._network, state, source=weights)

    def locate(
        self, pictures: Sequence[np.ndarray], faces: Sequence[Detection], crops: Sequence[Crop]
    ) -> list[np.ndarray | None]:
        """See ``FaceMesh.locate``."""
        found: list[np.ndarray | None] = []
        for start in range(0, len(crops), MOBILEFACENET_BATCH):
            some = crops[start : start + MOBILEFACENET_BATCH]
            batch = torch.zeros(MOBILEFACENET_BATCH, 3, FACE_SIZE, FACE_SIZE)
            for place, crop in enumerate(some):
                batch[place] = self._network_input(Image.fromarray(crop.picture))
            with torch.inference_mode():
                unit = self._network(batch)[: len(some)].reshape(-1, 68, 2).double().numpy()
            found += [points * crop.picture.shape[1::-1] for points, crop in zip(unit, some, strict=True)]
        return found


# Each is made from the folder of weights.
BACK_ENDS = {"mobilefacenet": MobileFaceNetLandmarks, "facemesh": FaceMesh}
