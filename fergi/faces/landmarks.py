"""The 68 landmarks of a face, by the paper's network or by MediaPipe's FaceMesh."""

from collections.abc import Sequence
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.python import packet_creator
from mediapipe.python._framework_bindings import _packet_getter
from PIL import Image

from fergi.faces.alignment import EYE_LEFT, EYE_RIGHT, FACE_SIZE, Crop
from fergi.faces.detection import Detection, quiet
from fergi.faces.mobilefacenet import MobileFaceNet
from fergi.openvino import compiled, translated
from fergi.weights import MOBILEFACENET, load_state, load_strictly

MOBILEFACENET_FILE = Path(MOBILEFACENET.path).name
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


# One of FaceMesh's landmarks in protobuf's wire format: three bytes of tags and length, x, tag, y, tag, z.
LANDMARK = np.dtype(
    {"names": ["head", "x", "y"], "formats": ["S3", "<f4", "<f4"], "offsets": [0, 3, 8], "itemsize": 17}
)
LANDMARK_HEAD = b"\x0a\x0f\x0d"


class FaceMesh:
    """MediaPipe's FaceMesh, without tracking. The mediapipe package includes its models.

    The graph is that of ``mediapipe.solutions.face_mesh.FaceMesh`` with its defaults and refined landmarks. Only the
    points are read differently: as one array, because the Python objects of 478 points take as long as finding them.
    """

    def __init__(self, pretrained_models: Path | None = None) -> None:
        package = Path(mediapipe.__file__).parent
        mediapipe.resource_util.set_resource_dir(str(package.parent))
        side_packets = {
            "num_faces": packet_creator.create_int(1),
            "use_prev_landmarks": packet_creator.create_bool(False),
            "with_attention": packet_creator.create_bool(True),
        }
        self._found: list[mediapipe.Packet] = []
        self._n_pictures = 0
        with quiet():
            self._graph = mediapipe.CalculatorGraph(
                binary_graph_path=str(package / "modules" / "face_landmark" / "face_landmark_front_cpu.binarypb")
            )
            self._graph.observe_output_stream("multi_face_landmarks", lambda name, packet: self._found.append(packet))
            self._graph.start_run(side_packets)
            self._points(np.zeros((64, 64, 3), np.uint8))

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
            points = self._points(part)
            if points is not None:
                landmarks = points[list(FACEMESH_POINTS)] * part.shape[1::-1] + origin
                to_eyes = (landmarks[EYE_LEFT].mean(axis=0) + landmarks[EYE_RIGHT].mean(axis=0)) / 2 - (x, y)
                if (to_eyes >= 0).all() and (to_eyes <= (width, height)).all():
                    return landmarks - crop.origin
        return None

    def _points(self, picture: np.ndarray) -> np.ndarray | None:
        """The 478 points of FaceMesh, x and y in the unit square; None where there is no face."""
        self._n_pictures += 1
        image = packet_creator.create_image_frame(
            np.ascontiguousarray(picture), image_format=mediapipe.ImageFormat.SRGB
        )
        self._graph.add_packet_to_input_stream(stream="image", packet=image.at(self._n_pictures))
        self._graph.wait_until_idle()
        if not self._found:
            return None
        points = np.frombuffer(_packet_getter._get_serialized_proto_list(self._found.pop())[0], LANDMARK)
        if (points["head"] != LANDMARK_HEAD).any():
            raise ValueError(
                "FaceMesh's points are written in another way; mediapipe is not the version of requirements"
            )
        return np.stack([points["x"], points["y"]], axis=1).astype(float)


class MobileFaceNetLandmarks:
    """The paper's landmark network, on crops resized to 112 × 112 as in the original.

    That is torchvision's Resize of a PIL picture, which is PIL's: bilinear and antialiased. OpenCV's bilinear resize,
    which is not antialiased, moves the pitch and yaw ratios by up to 0.04 on a real video.

    OpenVINO computes it, three times as fast as PyTorch and equal to it to float32's last digits.
    """

    def __init__(self, pretrained_models: Path) -> None:
        """Load the network's weights strictly.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout.
        """
        weights = pretrained_models / MOBILEFACENET_FILE
        network = MobileFaceNet().eval()
        state = load_state(weights, key=MOBILEFACENET.key, advice=MOBILEFACENET.advice)
        load_strictly(network, state, source=weights)
        one_face = translated(network, (1, 3, FACE_SIZE, FACE_SIZE))
        self._request = compiled(one_face, "f32", threads=1).create_infer_request()

    def locate(
        self, pictures: Sequence[np.ndarray], faces: Sequence[Detection], crops: Sequence[Crop]
    ) -> list[np.ndarray | None]:
        """See ``FaceMesh.locate``."""
        return [self._locate(crop) for crop in crops]

    def _locate(self, crop: Crop) -> np.ndarray:
        small = Image.fromarray(crop.picture).resize((FACE_SIZE, FACE_SIZE), Image.Resampling.BILINEAR)
        unit = self._request.infer([np.asarray(small, np.float32).transpose(2, 0, 1)[None] / 255])[0]
        return unit.reshape(-1, 2) * np.array(crop.picture.shape[1::-1], float)


# Each is made from the folder of weights.
BACK_ENDS = {"mobilefacenet": MobileFaceNetLandmarks, "facemesh": FaceMesh}
