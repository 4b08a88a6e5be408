"""Pictures as the scorers' networks take them, each by the library that its original uses."""

from functools import cache
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor, functional

from fergi.scorers.interface import offline_import

# Of each colour channel, as CLIP was trained; every scorer here takes them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)


def cropped_by_torchvision(picture: Image.Image, side: int) -> Tensor:
    """The centre of an RGB picture whose shorter side was brought to ``side``, bicubic on 8-bit levels; normalised.

    As OpenAI's clip and the image-reward package prepare it, which the Aesthetic score, BLIP and ImageReward use.

    Returns
    -------
    torch.Tensor, shape (3, side, side)
    """
    steps = [Resize(side, InterpolationMode.BICUBIC), CenterCrop(side), ToTensor(), Normalize(MEAN, SPREAD)]
    return Compose(steps)(picture)


@cache
def _clip_processor(side: int) -> Any:
    with offline_import():
        from transformers import CLIPImageProcessor
    size = {"height": side, "width": side}
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size, image_mean=MEAN, image_std=SPREAD)


def cropped_by_transformers(picture: Image.Image, side: int) -> Tensor:
    """Likewise as transformers' CLIP processor does it, which the CLIP score and PickScore use.

    It cuts a picture whose longer side is odd one pixel beside where torchvision does.
    """
    prepared = _clip_processor(side)(picture, return_tensors="pt", input_data_format="channels_last")
    return prepared.pixel_values[0]


def padded(picture: Image.Image, side: int) -> Tensor:
    """An RGB picture whose longer side was brought to ``side``, with zeros around to a square, and then normalised.

    Bicubic and antialiased on floats, which may leave [0, 1] a little: torchvision's functions in the order in which
    the hpsv2 package calls them. The package leaves a picture whose longer side has the right length unpadded, and
    then fails; here it is padded.

    Returns
    -------
    torch.Tensor, shape (3, side, side)
    """
    pixels = functional.to_tensor(picture)
    scale = side / max(picture.size)
    if scale != 1:
        size = [max(1, round(each * scale)) for each in pixels.shape[1:]]
        pixels = functional.resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
    across, down = side - pixels.shape[2], side - pixels.shape[1]
    around = [across // 2, down // 2, across - across // 2, down - down // 2]
    return functional.normalize(functional.pad(pixels, around, fill=0), MEAN, SPREAD)
