"""Every resize, crop, colour conversion and rounding of stages 1 to 5: the library that the original uses, and ours.

Each test names the stages, what the original does and, where it is not the same call, what ours does instead. All are
equal to the last bit, to that library or to a vector of what the original functions gave; own code is only where a
vector proves it. Elsewhere: the input of the AU network (test_network.py), the decimals of features (test_clips.py).
"""

import cv2
import numpy as np
import pytest
import torch
from conftest import shared_folder
from drawn import write_faces
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from skimage.data import astronaut
from small_scorers import drawn
from torchvision import transforms

from fergi.action_units.aligned_faces import _read_picture
from fergi.action_units.faces_dataset import FaceBatches, read_faces, read_picture
from fergi.faces.alignment import Crop, align_face, crop_face, face_frame
from fergi.faces.detection import FaceDetector, detector_model
from fergi.faces.equalisation import equalise, pad_to_square
from fergi.faces.landmarks import MobileFaceNetLandmarks
from fergi.pictures import open_picture
from fergi.scorers.pixels import MEAN, SPREAD, cropped_by_torchvision, cropped_by_transformers, padded
from fergi.video import read_frames

SIZES = [(64, 64), (224, 224), (90, 60), (60, 91), (224, 100), (100, 224), (33, 225), (3, 40), (1, 1), (700, 512)]


def cases(name: str) -> list[dict[str, np.ndarray]]:
    """Inputs of an original function and what it gave, case by case (``case0_…`` or ``frame12_…``)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, value in np.load(shared_folder("vectors") / f"{name}.npz", allow_pickle=False).items():
        prefix, _, rest = key.partition("_")
        found.setdefault(prefix, {})[rest] = value
    return [case for case in found.values() if len(case) > 1]


def test_decoding_a_video():
    """Stages 1, 2, 4: OpenCV's VideoCapture, BGR to RGB. The real video's first frames."""
    path = shared_folder("real") / "WolfgangLanger_Pexels.mp4"
    capture = cv2.VideoCapture(str(path))
    for (_, ours), _ in zip(read_frames(path), range(3), strict=False):
        assert_array_equal(ours, cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))


def test_decoding_a_picture(tmp_path):
    """Stages 1, 2: OpenCV's imread, BGR to RGB. Libraries decode a JPEG with small differences."""
    drawn(81, 63).save(tmp_path / "1.jpg", quality=80)
    assert_array_equal(_read_picture(tmp_path / "1.jpg"), cv2.imread(str(tmp_path / "1.jpg"))[..., ::-1])


def test_the_box_of_a_face(tmp_path):
    """Stages 1, 2, 4: mediapipe's, in whole pixels. As its own demonstration of the model gives box and score."""
    face = FaceDetector(detector_model(tmp_path)[0]).detect(astronaut())
    assert face.box == (177, 82, 95, 95)
    assert face.score == pytest.approx(0.92174, abs=5e-6)


def test_cropping_a_face():
    """Stages 1, 2, 4: margins by int(), black beyond the picture; ours by vector. In the picture and out of it."""
    picture = np.load(shared_folder("vectors") / "face_crop.npz", allow_pickle=False)["image_rgb"]
    found = cases("face_crop")
    for case in found:
        assert_array_equal(crop_face(picture, tuple(map(int, case["box_xywh"]))).picture, case["crop"])
    assert len(found) == 4


def test_resizing_the_crop_for_the_landmarks():
    """Stages 1, 2, 4: torchvision's Resize of a PIL picture, bilinear and antialiased.

    Eight crops of the real video give the landmarks of the original's resized crops, and these are the original's as
    far as float32 goes: of its seven digits the network's forty sums lose two.
    """
    back_end, found = MobileFaceNetLandmarks(shared_folder("real")), cases("landmark_resize")
    for case in found:
        crops = [Crop(case[name], (0, 0)) for name in ("crop_rgb", "resized_rgb")]
        (ours,), (resized,) = (back_end.locate([None], [None], [crop]) for crop in crops)
        size = crops[0].picture.shape[1::-1]
        assert_array_equal(ours, resized / 112 * size)
        assert_allclose(ours / size, case["landmarks68"], atol=1e-5, rtol=0)
        aligned = align_face(case["crop_rgb"], face_frame(case["landmarks68"].astype(float) * size))
        assert_array_equal(pad_to_square(equalise(aligned)), case["aligned_rgb"])
    assert len(found) == 8


def test_turning_equalising_and_padding_a_face():
    """Stages 1, 2, 4; small faces and large ones, upright and turned, colours and greys; ours by vector.

    PIL's resize (Lanczos, antialiased), crop and QUAD (bilinear); OpenCV's BGR to YCrCb of an RGB picture,
    equalizeHist, mean with the linear map cut to uint8; black rims, the smaller half first.
    """
    found = cases("face_alignment")
    for case in found:
        picture = case["input_rgb"]
        frame = face_frame(case["landmarks68"].astype(float) * picture.shape[1::-1])
        aligned = align_face(picture, frame)
        assert_array_equal(aligned, case["aligned_rgb"])
        assert_array_equal(equalise(aligned), case["equalized"])
        assert_array_equal(pad_to_square(equalise(aligned)), case["padded"])
        assert_allclose([frame.pitch_ratio, frame.yaw_ratio], case["pir_yir"], rtol=0, atol=1e-12)
    assert len(found) == 6


def test_augmentation(tmp_path):
    """Stage 3: torchvision's RandomHorizontalFlip and RandomResizedCrop of a PIL picture, bilinear and antialiased."""
    write_faces(tmp_path, "DISFA", {"SN001": 6})
    faces, _, _ = read_faces(tmp_path, "DISFA")
    released = [transforms.RandomHorizontalFlip(), transforms.RandomResizedCrop(112, (0.9, 1.0), (19 / 20, 20 / 19))]
    batch = FaceBatches(faces, {"scale": (0.9, 1.0), "ratio": (19 / 20, 20 / 19)}, seed=42)[3, np.arange(6)]
    changed = 0
    for index, (path, ours) in enumerate(zip(faces.paths, batch.pictures, strict=True)):
        seed = int(np.random.SeedSequence((42, 3, index)).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = np.asarray(transforms.Compose(released)(Image.open(path.decode())))
        assert_array_equal(ours, expected)
        changed += (expected != read_picture(path.decode())).any()
    assert changed >= 5


def test_opening_an_image(tmp_path):
    """Stage 5: PIL's decoding and conversion to RGB."""
    drawn(40, 30).quantize(200).save(tmp_path / "image1.png")
    assert_array_equal(open_picture(tmp_path / "image1.png"), Image.open(tmp_path / "image1.png").convert("RGB"))


@pytest.mark.parametrize("size", SIZES)
def test_the_input_of_the_scorers(size):
    """Stage 5.

    CLIP and PickScore: transformers' processor, whose defaults are the official files' settings: PIL's bicubic to the
    shorter side, centre by //, float64 rescaling. Aesthetic, BLIP and ImageReward: OpenAI's clip, of which image-reward
    has a copy: torchvision on a PIL picture: Resize (bicubic), CenterCrop by round(), ToTensor, Normalize. HPS v2:
    torchvision on a tensor: the longer side (bicubic, antialiased), zeros around it, Normalize; test_scorers.py has the
    package's own function.
    """
    from clip.clip import _transform
    from transformers import CLIPImageProcessor

    picture = drawn(*size)
    expected = CLIPImageProcessor()(picture, return_tensors="pt", input_data_format="channels_last")
    assert_array_equal(cropped_by_transformers(picture, 224), expected.pixel_values[0])
    assert_array_equal(cropped_by_torchvision(picture, 224), _transform(224)(picture))

    pixels = transforms.functional.to_tensor(picture)
    if max(size) != 224:
        new = [max(1, round(side * 224 / max(size))) for side in pixels.shape[1:]]
        pixels = transforms.functional.resize(pixels, new, transforms.InterpolationMode.BICUBIC, antialias=True)
    whole = torch.zeros(3, 224, 224)
    top, left = ((224 - side) // 2 for side in pixels.shape[1:])
    whole[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    assert_array_equal(padded(picture, 224), transforms.functional.normalize(whole, MEAN, SPREAD))
