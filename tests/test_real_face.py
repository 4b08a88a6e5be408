"""A real video with the real landmark weights: what the original gives, frame by frame."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import shared_folder
from numpy.testing import assert_allclose
from test_disfa import write_disfa

import clips_facial_process
import preprocess_DISFA
from fergi.action_units.network import random_network
from fergi.faces.landmarks import MOBILEFACENET_FILE
from fergi.video import read_frames
from fergi.weights import save_weights

VIDEO = "WolfgangLanger_Pexels.mp4"


@pytest.fixture
def real() -> Path:
    """The folder with the video, the weights, and the original's table."""
    return shared_folder("real")


@pytest.fixture
def root(real, tmp_path) -> Path:
    """A root with the real landmark weights."""
    (tmp_path / "pretrained_models").mkdir()
    (tmp_path / "pretrained_models" / MOBILEFACENET_FILE).symlink_to(real / MOBILEFACENET_FILE)
    return tmp_path


def test_every_frame_is_the_originals(real, root):
    """Time, detection score, pitch and yaw ratio of all 472 frames, to the three decimals of both files."""
    (root / "in").mkdir()
    (root / "in" / VIDEO).symlink_to(real / VIDEO)
    save_weights(random_network("ir10-thin", 5).state_dict(), root / "model.pth")
    options = ["--checkpoint", str(root / "model.pth"), "--network", "ir10-thin", "--device", "cpu"]
    folders = ["--videos", str(root / "in"), "--out", str(root / "out")]
    clips_facial_process.main(["--root", str(root), *folders, *options])
    found = pd.read_csv(root / "out" / "WolfgangLanger_Pexels_features.csv")
    expected = pd.read_csv(real / "WolfgangLanger_Pexels_original.csv")
    assert len(found) == len(expected) == 472
    assert found["frame"].tolist() == expected["frame"].tolist()
    for column in ("timestamp", "face_detection_confidence_score", "pitch_indicative_ratio", "yaw_indicative_ratio"):
        assert_allclose(found[column], expected[column], atol=0.001, rtol=0, err_msg=column)
        # A value at the middle between two thousandths may be rounded to either.
        assert (found[column] != expected[column]).mean() < 0.01, column
    assert json.loads((root / "out/settings.json").read_text())["landmarks"] == "mobilefacenet"


def test_single_pictures_give_the_originals_faces(real, root, vectors):
    """Stage 1 on eight of the frames, saved as pictures: the original's aligned faces.

    Landmarks from the network agree to 1e-5 of the crop, 3 thousandths of a pixel. Where that carries a level over the
    middle between two, it becomes its neighbour, and the equalisation may make a few levels of one; nothing else may
    differ. (From the vectors' own landmarks all is equal to the pixel: test_picture_operations.py.)
    """
    given = np.load(vectors / "landmark_resize.npz", allow_pickle=False)
    numbers = [int(name[len("frame") : -len("_crop_rgb")]) for name in given if name.endswith("_crop_rgb")]
    disfa = write_disfa(root / "DISFA", n=len(numbers), cameras=("Left",))
    folder = disfa / "Images_LeftCamera" / "SN001"
    frames = dict(enumerate((picture for _, picture in read_frames(real / VIDEO)), 1))
    for place, number in enumerate(numbers, 1):
        cv2.imwrite(str(folder / f"{place}.png"), cv2.cvtColor(frames[number], cv2.COLOR_RGB2BGR))
    options = ["--cameras", "Left", "--landmarks", "mobilefacenet", "--workers", "1"]
    preprocess_DISFA.main(["--root", str(root), "--disfa", str(disfa), *options])
    for place, number in enumerate(numbers, 1):
        aligned = cv2.imread(str(root / f"preparation/DISFA_faces/SN001/LeftCamera/{place}.png"))[..., ::-1]
        apart = np.abs(aligned.astype(int) - given[f"frame{number}_aligned_rgb"])
        assert apart.max() <= 4 and (apart > 0).mean() < 0.001, f"frame {number}"
    assert len(numbers) == 8
