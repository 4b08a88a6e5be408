"""Every resize, crop, colour conversion and rounding of stages 1 to 5: the library that the original uses, and ours.

The table below is the list; each row is checked to the last bit against that library or against a vector of what the
original functions gave. Own code stands only where a vector proves it equal to the pixel.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from conftest import shared_folder
from drawn import drawn_face, write_faces
from numpy.testing import assert_array_equal
from PIL import Image
from skimage.data import astronaut
from small_scorers import drawn
from torchvision import transforms

from fergi.action_units.aligned_faces import _read_picture
from fergi.action_units.faces_dataset import Augmentation, FaceBatches, read_faces, read_picture
from fergi.action_units.network import network_input
from fergi.faces.alignment import Crop, align_face, crop_face, face_frame
from fergi.faces.detection import FaceDetector, detector_model
from fergi.faces.equalisation import equalise, pad_to_square
from fergi.faces.landmarks import MOBILEFACENET_FILE, MobileFaceNetLandmarks
from fergi.features import NO_FACE, format_clip
from fergi.pictures import open_picture
from fergi.scorers.pixels import MEAN, SPREAD, cropped_by_torchvision, cropped_by_transformers, padded
from fergi.video import read_frames

BICUBIC = transforms.InterpolationMode.BICUBIC
SIZES = [(64, 64), (224, 224), (90, 60), (60, 91), (224, 100), (100, 224), (33, 225), (3, 40), (1, 1), (700, 512)]


def vectors(name: str) -> dict[str, np.ndarray]:
    """Inputs of an original function and what it gave."""
    return dict(np.load(shared_folder("vectors") / f"{name}.npz", allow_pickle=False))


def decoded_video(tmp_path: Path) -> None:
    """The real video's first frames."""
    path = shared_folder("real") / "WolfgangLanger_Pexels.mp4"
    capture = cv2.VideoCapture(str(path))
    for (_, ours), _ in zip(read_frames(path), range(3), strict=False):
        assert_array_equal(ours, cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))


def decoded_picture(tmp_path: Path) -> None:
    """A JPEG, of which every library decodes a little else."""
    drawn(81, 63).save(tmp_path / "1.jpg", quality=80)
    assert_array_equal(_read_picture(tmp_path / "1.jpg"), cv2.imread(str(tmp_path / "1.jpg"))[..., ::-1])


def detected_box(tmp_path: Path) -> None:
    """As mediapipe's own demonstration gives it."""
    assert FaceDetector(detector_model(tmp_path)[0]).detect(astronaut()).box == (177, 82, 95, 95)


def cropped_face(tmp_path: Path) -> None:
    """In the picture, and out of it on each side."""
    given = vectors("face_crop")
    for case in range(4):
        box = tuple(int(side) for side in given[f"case{case}_box_xywh"])
        assert_array_equal(crop_face(given["image_rgb"], box).picture, given[f"case{case}_crop"])


def resized_for_landmarks(tmp_path: Path) -> None:
    """Eight crops of the real video, and the landmarks that the real network finds on them."""
    given = vectors("landmark_resize")
    back_end = MobileFaceNetLandmarks(shared_folder("real") / MOBILEFACENET_FILE)
    seen: list[torch.Tensor] = []
    back_end._network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    frames = [name.removesuffix("_crop_rgb") for name in given if name.endswith("_crop_rgb")]
    for frame in frames:
        crop = given[f"{frame}_crop_rgb"]
        (points,) = back_end.locate([crop], [None], [Crop(crop, (0, 0))])
        assert_array_equal(seen[-1][0], transforms.ToTensor()(given[f"{frame}_resized_rgb"]))
        expected = given[f"{frame}_landmarks68"]
        # Of the unit square, where float32 has seven digits and the network's forty sums lose two of them.
        np.testing.assert_allclose(points / crop.shape[1::-1], expected, atol=1e-5, rtol=0)
        aligned = align_face(crop, face_frame(expected.astype(float) * crop.shape[1::-1]))
        assert_array_equal(pad_to_square(equalise(aligned)), given[f"{frame}_aligned_rgb"])
    assert len(frames) == 8


def aligned_and_equalised(tmp_path: Path) -> None:
    """Small faces and large ones, upright and turned, colours and greys."""
    given = vectors("face_alignment")
    for case in range(6):
        one = {name.removeprefix(f"case{case}_"): value for name, value in given.items()}
        picture = one["input_rgb"]
        aligned = align_face(picture, face_frame(one["landmarks68"].astype(float) * picture.shape[1::-1]))
        assert_array_equal(aligned, one["aligned_rgb"])
        assert_array_equal(equalise(aligned), one["equalized"])
        assert_array_equal(pad_to_square(equalise(aligned)), one["padded"])


def augmented(tmp_path: Path) -> None:
    """Pictures of a training batch, from the same random numbers."""
    write_faces(tmp_path, "DISFA", {"SN001": 6})
    faces, _, _ = read_faces(tmp_path, "DISFA")
    released = [transforms.RandomHorizontalFlip(), transforms.RandomResizedCrop(112, (0.9, 1.0), (19 / 20, 20 / 19))]
    batch = FaceBatches(faces, Augmentation((0.9, 1.0), (19 / 20, 20 / 19)), seed=42)[3, np.arange(6)]
    changed = 0
    for index, (path, ours) in enumerate(zip(faces.paths, batch.pictures, strict=True)):
        seed = int(np.random.SeedSequence((42, 3, index)).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = np.asarray(transforms.Compose(released)(Image.open(path.decode())))
        assert_array_equal(ours, expected)
        changed += (expected != read_picture(path.decode())).any()
    assert changed >= 5


def network_inputs(tmp_path: Path) -> None:
    """RGB in [0, 1], no mean taken off."""
    given = vectors("inference_transform")
    rgb = np.ascontiguousarray(given["image_bgr"][..., ::-1])
    assert_array_equal(network_input(torch.from_numpy(rgb)[None])[0], given["tensor"])
    face = drawn_face(np.random.default_rng(1), 1, 2, 3)
    assert_array_equal(network_input(torch.from_numpy(face)[None])[0], transforms.ToTensor()(face))


def written_features(tmp_path: Path) -> None:
    """Python's rounding of the exact value, half to even: 0.0625 is exact and becomes 0.062."""
    row = [0.0625, 0.1875, 0.99951, *NO_FACE[3:]]
    assert format_clip([0.0], [row], 3).decode().splitlines()[1].startswith("1,0.000,0.062,0.188,1.000,")


def opened_image(tmp_path: Path) -> None:
    """PIL's decoding and conversion."""
    drawn(40, 30).quantize(200).save(tmp_path / "image1.png")
    assert_array_equal(open_picture(tmp_path / "image1.png"), Image.open(tmp_path / "image1.png").convert("RGB"))


def prepared_by_transformers(tmp_path: Path) -> None:
    """Its own processor with the official files' settings, which are its defaults."""
    from transformers import CLIPImageProcessor

    for size in SIZES:
        expected = CLIPImageProcessor()(drawn(*size), return_tensors="pt", input_data_format="channels_last")
        assert_array_equal(cropped_by_transformers(drawn(*size), 224), expected.pixel_values[0])


def prepared_by_clip(tmp_path: Path) -> None:
    """OpenAI's package makes this of torchvision; image-reward has a copy of it."""
    from clip.clip import _transform

    for size in SIZES:
        assert_array_equal(cropped_by_torchvision(drawn(*size), 224), _transform(224)(drawn(*size)))


def prepared_by_hpsv2(tmp_path: Path) -> None:
    """Its steps by torchvision on tensors; test_scorers.py has the package's own function."""
    for size in SIZES:
        pixels = transforms.functional.to_tensor(drawn(*size))
        if max(size) != 224:
            new = [max(1, round(side * 224 / max(size))) for side in pixels.shape[1:]]
            pixels = transforms.functional.resize(pixels, new, BICUBIC, antialias=True)
        whole = torch.zeros(3, 224, 224)
        top, left = ((224 - side) // 2 for side in pixels.shape[1:])
        whole[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
        expected = transforms.functional.normalize(whole, MEAN, SPREAD)
        assert_array_equal(padded(drawn(*size), 224), expected)


class Operation(NamedTuple):
    """A step, what the original does it with, where ours is, and what proves them equal."""

    stages: str
    step: str
    original: str
    ours: str
    check: Callable[[Path], None]


OPERATIONS = (
    Operation("1 2 4", "decode a video", "OpenCV VideoCapture, BGR to RGB", "OpenCV", decoded_video),
    Operation("1 2", "decode a picture", "OpenCV imread, BGR to RGB", "OpenCV", decoded_picture),
    Operation("1 2 4", "box of a face", "mediapipe, cut to whole pixels", "mediapipe", detected_box),
    Operation("1 2 4", "crop a face", "margins by int(), black beyond the picture", "own, by vector", cropped_face),
    Operation(
        "1 2 4",
        "resize the crop for the landmarks",
        "torchvision Resize of a PIL picture: bilinear, antialiased; ToTensor",
        "torchvision",
        resized_for_landmarks,
    ),
    Operation(
        "1 2 4",
        "reduce a large face, turn it upright, equalise it, pad it",
        "PIL resize (Lanczos, antialiased), PIL crop, PIL QUAD (bilinear); OpenCV BGR to YCrCb of an RGB picture, "
        "equalizeHist, mean with the linear map cut to uint8; black rims, the smaller half first",
        "PIL, OpenCV, by vector",
        aligned_and_equalised,
    ),
    Operation(
        "3",
        "augment",
        "torchvision RandomHorizontalFlip, RandomResizedCrop of a PIL picture: bilinear, antialiased",
        "torchvision",
        augmented,
    ),
    Operation("3 4", "input of the AU network", "torchvision ToTensor", "own, by vector", network_inputs),
    Operation("4", "decimals of features", "Python's formatting, half to even", "the same", written_features),
    Operation("5", "open an image", "PIL, to RGB", "PIL", opened_image),
    Operation(
        "5",
        "CLIP, PickScore",
        "transformers' processor: PIL bicubic to the shorter side, centre by //, float64 rescaling",
        "transformers",
        prepared_by_transformers,
    ),
    Operation(
        "5",
        "Aesthetic, BLIP, ImageReward",
        "torchvision on a PIL picture: Resize (bicubic), CenterCrop by round(), ToTensor, Normalize",
        "torchvision",
        prepared_by_clip,
    ),
    Operation(
        "5",
        "HPS v2",
        "torchvision on a tensor: resize of the longer side (bicubic, antialiased), zeros around, Normalize",
        "torchvision",
        prepared_by_hpsv2,
    ),
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.step)
def test_an_operation_is_the_originals(operation, tmp_path):
    """To the last bit."""
    operation.check(tmp_path)
