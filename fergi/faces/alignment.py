"""Crop, alignment, and the ratios that tell pitch and yaw (Appendices B.2 and C, eqs. 18–19).

The paper names the tools and the two ratios; margins, the frame of the face and its extent are the release's.
Coordinates are (x, y) in pixels, y down; "left" is left in the picture. The 68 landmarks are numbered from 0 in the
usual order: jaw 0–16, brows 17–26, nose 27–35, eyes 36–47, mouth 48–67.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

FACE_SIZE = 112
JAW_LEFT, JAW_RIGHT = 0, 16
CHIN = 9  # one beside the middle of the chin, which is 8; the release takes this one
EYE_LEFT, EYE_RIGHT = slice(36, 42), slice(42, 48)
NOSTRILS = slice(31, 36)
MOUTH_CORNERS = (48, 54)


@dataclass(frozen=True)
class Crop:
    """A part of a picture (height, width, 3), uint8, black where it leaves the picture.

    ``origin`` is (x, y) of its first pixel in the picture, below 0 where it leaves the picture.
    """

    picture: np.ndarray
    origin: tuple[int, int]


def crop_face(picture: np.ndarray, box: tuple[int, int, int, int]) -> Crop:
    """The face with the release's margins around a detection (x, y, width, height) in a picture (height, width, 3).

    A fifth of the box's height above, a twentieth below, an eighth of its width on either side, in whole pixels.
    """
    x, y, width, height = box
    top, bottom = y - int(0.2 * height), y + height + int(0.05 * height)
    left, right = x - int(0.125 * width), x + width + int(0.125 * width)
    crop = np.zeros((bottom - top, right - left, picture.shape[2]), picture.dtype)
    rows = slice(max(top, 0), max(min(bottom, picture.shape[0]), 0))
    columns = slice(max(left, 0), max(min(right, picture.shape[1]), 0))
    crop[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = picture[rows, columns]
    return Crop(crop, (left, top))


@dataclass(frozen=True)
class FaceFrame:
    """The oriented rectangle of a face, and how far the head is turned.

    Attributes
    ----------
    corners : ndarray, shape (4, 2)
        Upper left, lower left, lower right, upper right.
    width, height : float
        Its sides, in pixels.
    pitch_ratio : float
        Pitch indicative ratio, eq. 19: nostrils to eyes over eye to eye.
    yaw_ratio : float
        Yaw indicative ratio, eq. 18: the left eye's share of the distances from each eye to its edge of the face.
    """

    corners: np.ndarray
    width: float
    height: float
    pitch_ratio: float
    yaw_ratio: float


def face_frame(landmarks: np.ndarray) -> FaceFrame:
    """The frame of a face from its landmarks, in pixels, shape (68, 2).

    Its horizontal is the direction from eye to eye averaged with the one square to the line from eyes to mouth. It
    reaches from jaw point to jaw point, from the eyes to 1.05 times the way to the chin, and half that way up.

    Raises
    ------
    ValueError
        If the points do not make a face: the frame would have no area.
    """
    eye_left, eye_right = landmarks[EYE_LEFT].mean(axis=0), landmarks[EYE_RIGHT].mean(axis=0)
    eyes = (eye_left + eye_right) / 2
    mouth = (landmarks[MOUTH_CORNERS[0]] + landmarks[MOUTH_CORNERS[1]]) / 2
    right = (eye_right - eye_left) + np.array([1, -1]) * (mouth - eyes)[::-1]
    length = np.hypot(*right)
    if not length > 0:
        raise ValueError("the landmarks do not make a face")
    right = right / length
    down = np.array([-right[1], right[0]])

    to_left = (eyes - landmarks[JAW_LEFT]) @ right
    to_right = (landmarks[JAW_RIGHT] - eyes) @ right
    to_chin = (landmarks[CHIN] - eyes) @ down
    width, height = to_left + to_right, 1.05 * to_chin + to_chin / 2
    between_eyes = (eye_right - eye_left) @ right
    if not (np.isfinite([width, height]).all() and width > 0 and height > 0 and between_eyes > 0):
        raise ValueError("the landmarks do not make a face")
    upper, lower = eyes - to_chin / 2 * down, eyes + 1.05 * to_chin * down
    corners = [upper - to_left * right, lower - to_left * right, lower + to_right * right, upper + to_right * right]

    left_edge = (eye_left - landmarks[JAW_LEFT]) @ right
    right_edge = (landmarks[JAW_RIGHT] - eye_right) @ right
    return FaceFrame(
        corners=np.array(corners),
        width=float(width),
        height=float(height),
        pitch_ratio=float((landmarks[NOSTRILS].mean(axis=0) - eyes) @ down / between_eyes),
        yaw_ratio=float(left_edge / (left_edge + right_edge)),
    )


def align_face(picture: np.ndarray, frame: FaceFrame, size: int = FACE_SIZE) -> np.ndarray:
    """The frame of a face turned upright, its longer side ``size`` pixels.

    ``picture`` is what the frame's corners refer to: uint8, shape (height, width, 3). So is the result, shape
    (size, n, 3) or (n, size, 3), black where the frame leaves the picture.

    Raises
    ------
    ValueError
        If the frame is so thin that nothing of it would be left, or lies outside the picture.
    """
    if frame.width > frame.height:
        shape = (size, int(size * frame.height / frame.width))
    else:
        shape = (int(size * frame.width / frame.height), size)
    if min(shape) < 1:
        raise ValueError("the frame of the face is a line")
    image, corners = Image.fromarray(picture), frame.corners
    # A face more than four times as large as the result is reduced first, so that no pixels are skipped.
    shrink = int(max(frame.width, frame.height) / size * 0.5)
    if shrink > 1:
        reduced = tuple(int(np.rint(side / shrink)) for side in image.size)
        image, corners = image.resize(reduced, Image.Resampling.LANCZOS), corners / shrink
    # The picture ends where the frame does: interpolation at the rim takes no pixel from beyond it.
    left, top = (max(int(np.floor(least)), 0) for least in corners.min(axis=0))
    right, bottom = (min(int(np.ceil(most)), side) for most, side in zip(corners.max(axis=0), image.size, strict=True))
    if right <= left or bottom <= top:
        raise ValueError("the frame of the face lies outside the picture")
    image = image.crop((left, top, right, bottom))
    quadrilateral = (corners - [left, top] + 0.5).flatten()
    return np.asarray(image.transform(shape, Image.Transform.QUAD, tuple(quadrilateral), Image.Resampling.BILINEAR))
