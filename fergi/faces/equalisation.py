"""Contrast of an aligned face: histogram equalisation and linear mapping, half and half (Appendix B.2)."""

import cv2
import numpy as np

# To luma and back.
LUMA_ORDERS = {
    "released": (cv2.COLOR_BGR2YCrCb, cv2.COLOR_YCrCb2BGR),
    "correct": (cv2.COLOR_RGB2YCrCb, cv2.COLOR_YCrCb2RGB),
}


def equalise(face: np.ndarray, luma: str = "released") -> np.ndarray:
    """Raise the contrast of the luma of an RGB face, uint8, shape (height, width, 3).

    The mean of the equalised histogram and of the stretch of its range to 0–255, truncated to whole numbers.
    ``luma``: ``released`` exchanges the weights of red and blue, as the release does; AU models trained that way need
    it. ``correct`` has them as in the standard (ITU-R BT.601).
    """
    to_luma, back = LUMA_ORDERS[luma]
    channels = cv2.cvtColor(face, to_luma)
    brightness = channels[..., 0]
    least, most = int(brightness.min()), int(brightness.max())
    if most > least:  # a picture of one brightness has no contrast to raise
        stretched = (brightness.astype(float) - least) / (most - least) * 255
        channels[..., 0] = (0.5 * cv2.equalizeHist(brightness) + 0.5 * stretched).astype(np.uint8)
    return cv2.cvtColor(channels, back)


def pad_to_square(face: np.ndarray) -> np.ndarray:
    """Black at both ends of the shorter side, one pixel more at the far end where the difference is odd."""
    height, width = face.shape[:2]
    size = max(height, width)
    above, before = (size - height) // 2, (size - width) // 2
    return cv2.copyMakeBorder(
        face, above, size - height - above, before, size - width - before, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
