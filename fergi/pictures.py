"""Pictures of any kind as 8-bit RGB.

A picture that has no single meaning as 8-bit RGB is refused with the reason.
"""

from pathlib import Path

import numpy as np
from PIL import Image

LARGEST_PICTURE = 89_478_485  # pixels; beyond this Pillow itself warns of decompression bombs
LONGEST_SHAPE = 100  # times that one side may be longer than the other


def open_picture(image: Path | Image.Image) -> Image.Image:
    """A picture as 8-bit RGB.

    Greyscale of 16 bits is brought to 8 by dividing by 257. Transparency is dropped if every pixel is opaque.

    Parameters
    ----------
    image : Path or PIL.Image.Image
        A file, or a picture that is open already.

    Raises
    ------
    ValueError
        With the name and the reason; callers open many pictures and make one sentence of it.
    """
    name = str(image) if isinstance(image, Path) else "the picture"
    try:
        picture = image if isinstance(image, Image.Image) else Image.open(image)
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is not a picture that can be used: {error}") from None
    width, height = picture.size
    if width * height > LARGEST_PICTURE:
        raise ValueError(f"{name} is too large: {width} x {height} pixels, at most {LARGEST_PICTURE:,} in all")
    if max(width, height) > LONGEST_SHAPE * min(width, height):
        raise ValueError(f"{name} is a stripe of {width} x {height} pixels, which cannot be made square")
    try:
        picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} is cut off or damaged: {error}") from None
    return _as_rgb(picture, name)


def _as_rgb(picture: Image.Image, name: str) -> Image.Image:
    """The decoded picture as RGB, or an error if that has more than one meaning."""
    if picture.mode == "F":
        raise ValueError(f"{name} has floating-point grey levels, whose range is not known; save it with 8 bits")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"{name} has grey levels beyond 16 bits; save it with 8 bits")
        return Image.fromarray(np.rint(levels / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            raise ValueError(f"{name} is transparent in parts, and what lies behind is not known; save it without")
    return picture.convert("RGB")


def is_black(picture: Image.Image) -> bool:
    """Whether every pixel of an RGB picture is 0, as the image generator's safety filter leaves it (Section 3.3)."""
    return all(highest == 0 for _, highest in picture.getextrema())
