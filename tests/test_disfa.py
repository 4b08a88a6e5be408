"""DISFA and DISFA+ on disk: formats written by hand, and what may be wrong with them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fergi.action_units.disfa import read_disfa, read_disfa_plus
from fergi.features import ACTION_UNITS
from fergi.files import FergiError


def disfa_label(frame: int, unit: int) -> int:
    """An intensity that tells frame and AU."""
    return (frame + unit) % 6


def write_disfa(
    root: Path, subject: str = "SN001", n: int = 4, cameras: tuple[str, ...] = ("Left", "Right"), name: str = "{}.png"
) -> Path:
    """Labels of one subject, and files with the names of frames."""
    labels = root / "ActionUnit_Labels" / subject
    labels.mkdir(parents=True)
    for unit in ACTION_UNITS:
        lines = [f"{frame},{disfa_label(frame, unit)}\n" for frame in range(1, n + 1)]
        (labels / f"{subject}_au{unit}.txt").write_text("".join(lines))
    for camera in cameras:
        folder = root / f"Images_{camera}Camera" / subject
        folder.mkdir(parents=True)
        for frame in range(1, n + 1):
            (folder / name.format(frame)).touch()
    return root


def write_disfa_plus(root: Path, subject: str = "SN001", trial: str = "A1_AU1_TrailNo_1", n: int = 3) -> Path:
    """One trial as delivered: two header lines, then a file name and an intensity with five spaces between them."""
    labels, images = root / "Labels" / subject / trial, root / "Images" / subject / trial
    labels.mkdir(parents=True)
    images.mkdir(parents=True)
    for unit in ACTION_UNITS:
        lines = [f"{frame:03}.jpg     {(frame * unit) % 6}\n" for frame in range(n)]
        (labels / f"AU{unit}.txt").write_text(f"Intensity of AU{unit}\nframe     intensity\n" + "".join(lines))
    for frame in range(n):
        (images / f"{frame:03}.jpg").touch()
    return root


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that must stand there once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def remove(*paths: Path) -> None:
    """Files and folders."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def add(path: Path) -> None:
    """An empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def refused(read, root: Path, message: str) -> None:
    """One sentence."""
    with pytest.raises(FergiError, match=message) as caught:
        read(root)
    assert "\n" not in str(caught.value)


# DISFA

LABELS, LEFT, RIGHT = "ActionUnit_Labels/SN001", "Images_LeftCamera/SN001", "Images_RightCamera/SN001"


@pytest.mark.parametrize("name", ["{}.png", "{:05}.jpg", "img_{:05}.BMP", "LeftVideoSN001_comp-{:04}.tiff"])
def test_disfa_by_hand(tmp_path, name):
    """Both cameras of two subjects; the frame's number is at the end of its name, however many zeros stand before it.

    Twelve frames, so that 10 must come after 9. Files that are no pictures do not count.
    """
    write_disfa(tmp_path, "SN002", n=12, name=name)
    write_disfa(tmp_path, "SN001", n=2, name=name)
    for stray in ("Images_RightCamera/SN002/Thumbs.db", f"{LEFT}/5.txt", "ActionUnit_Labels/readme.txt"):
        add(tmp_path / stray)
    parts = read_disfa(tmp_path)
    cameras = ("LeftCamera", "RightCamera")
    assert [(part.subject, part.part) for part in parts] == [
        (who, each) for who in ("SN001", "SN002") for each in cameras
    ]
    part = parts[3]
    assert part.names == tuple(str(frame) for frame in range(1, 13)) and part.video is None
    folder = tmp_path / "Images_RightCamera" / "SN002"
    assert part.pictures == tuple(folder / name.format(frame) for frame in range(1, 13))
    assert_array_equal(part.labels, [[disfa_label(frame, unit) for unit in ACTION_UNITS] for frame in range(1, 13)])
    assert part.labels.dtype == np.int8 and (part.n_missing, part.n_out_of_range) == (0, 0)


def test_one_camera(tmp_path):
    """The other one need not be there."""
    write_disfa(tmp_path, cameras=("Right",))
    (part,) = read_disfa(tmp_path, ["Right"])
    assert part.part == "RightCamera" and part.pictures[0] == tmp_path / RIGHT / "1.png"
    write_disfa(tmp_path, "SN002")
    assert [part.part for part in read_disfa(tmp_path, ["Right"])] == ["RightCamera"] * 2


def test_labels_are_found_by_number_not_by_line(tmp_path):
    """Lines in another order, with zeros, spaces and empty lines, of another system."""
    write_disfa(tmp_path)
    (tmp_path / LABELS / "SN001_au4.txt").write_bytes(b"0003, 5\r\n4,0\r\n\r\n1,2\r\n 2 ,1\r\n\r\n")
    for part in read_disfa(tmp_path):
        assert part.labels[:, ACTION_UNITS.index(4)].tolist() == [2, 1, 5, 0]
        assert (part.n_missing, part.n_out_of_range) == (0, 0)


@pytest.mark.parametrize("line", ["", "2,7\n", "2,6\n", "2,-2\n", "2,9\n"])
def test_a_label_that_is_missing_or_none_counts_as_not_labelled(tmp_path, line):
    """Of that AU and frame alone, in both cameras."""
    write_disfa(tmp_path)
    change(tmp_path / LABELS / "SN001_au12.txt", f"2,{disfa_label(2, 12)}\n", line)
    for part in read_disfa(tmp_path):
        assert (part.n_missing, part.n_out_of_range) == ((0, 1) if line else (1, 0))
        assert np.argwhere(part.labels == -1).tolist() == [[1, ACTION_UNITS.index(12)]]


def test_labels_without_a_frame_and_frames_without_a_label(tmp_path):
    """A frame that was not extracted has no place; one more has −1 for every AU."""
    write_disfa(tmp_path)
    (tmp_path / LEFT / "2.png").rename(tmp_path / LEFT / "5.png")
    left, right = read_disfa(tmp_path)
    assert left.names == ("1", "3", "4", "5") and right.names == ("1", "2", "3", "4")
    assert (left.labels[3] == -1).all() and (left.labels[:3] >= 0).all()
    assert (left.n_missing, right.n_missing) == (12, 0)


def test_frames_are_preferred_to_videos(tmp_path):
    """A video as delivered has one file a camera, frames numbered from 1; an empty folder of frames does not count."""
    write_disfa(tmp_path, n=11)
    for camera in ("Left", "Right"):
        add(tmp_path / f"Videos_{camera}Camera" / f"{camera}VideoSN001_comp.avi")
    remove(tmp_path / LEFT / "2.png", *(tmp_path / RIGHT).iterdir())
    left, right = read_disfa(tmp_path)
    assert left.video is None and left.names == ("1", *(str(frame) for frame in range(3, 12)))
    assert right.video == tmp_path / "Videos_RightCamera/RightVideoSN001_comp.avi" and right.pictures == ()
    assert right.part == "RightCamera" and right.names == tuple(str(frame) for frame in range(1, 12))
    assert_array_equal(right.labels, [[disfa_label(frame, unit) for unit in ACTION_UNITS] for frame in range(1, 12)])


@pytest.mark.parametrize(("spoil", "message"), [
    (
        lambda root: write_disfa(root, "SN002", cameras=("Left",)),
        r"^1 of 4 parts of DISFA is unusable \(first: .*Images_RightCamera/SN002 has no frames, and "
        r".*Videos_RightCamera/RightVideoSN002_comp\.avi does not exist\)\. Complete the data set\.$",
    ),
    (lambda root: remove(root / LABELS, root / LEFT, root / RIGHT), r"Labels has no subjects \(SN001 .* --disfa DIR"),
    (lambda root: remove(root / LABELS, root / "ActionUnit_Labels"), r"/ActionUnit_Labels does not exist\. Request t"),
    (lambda root: remove(root / LABELS / "SN001_au9.txt"), r"is unusable \(first: .*_au9\.txt does not exist\)\. Comp"),
    (lambda root: remove(write_disfa(root, "SN002") / "ActionUnit_Labels/SN002"), r"SN002"),
    (lambda root: add(root / "Videos_LeftCamera/LeftVideoSN031_comp.avi"), r"SN031"),
    (lambda root: add(root / LEFT / "frame.png"), r"/frame\.png has no frame number at the end of its name\. Name fra"),
    (lambda root: add(root / LEFT / "00001.jpg"), r"SN001/(00001\.jpg|1\.png)"),
])  # fmt: skip
def test_an_incomplete_disfa(tmp_path, spoil, message):
    """What is missing is named; nothing is skipped."""
    spoil(write_disfa(tmp_path))
    refused(read_disfa, tmp_path, message)


@pytest.mark.parametrize(("line", "cause"), [
    ("two,3", "'two,3' is not a frame and an intensity"), ("2,high", "'2,high' is not a frame and an intensity"),
    ("2", "'2' is not a frame and an intensity"), ("2,3,4", "'2,3,4' is not a frame and an intensity"),
    ("2,2.5", "'2,2.5' is not a frame and an intensity"), ("1,3", "frame 1 appears twice"),
    ("01,3", "frame 1 appears twice"),
])  # fmt: skip
def test_a_label_file_with_a_bad_line(tmp_path, line, cause):
    """File, line and cause."""
    write_disfa(tmp_path)
    change(tmp_path / LABELS / "SN001_au5.txt", f"2,{disfa_label(2, 5)}\n", f"{line}\n")
    refused(read_disfa, tmp_path, rf"\(first: .*SN001_au5\.txt, line 2: {cause}\)\. Complete the data set\.$")


# DISFA+

TRIAL = "SN001/A1_AU1_TrailNo_1"


def test_disfa_plus_by_hand(tmp_path):
    """By subject and trial; frames by name. The two header lines are no labels, even if they look like some."""
    write_disfa_plus(tmp_path, "SN003", "B")
    write_disfa_plus(tmp_path, "SN001", "C", n=2)
    write_disfa_plus(tmp_path, "SN001", "A", n=12)
    for name in ("readme.txt", "SN001/notes.txt", "SN001/A/Thumbs.db"):
        add(tmp_path / "Images" / name)
    for file in (tmp_path / "Labels/SN001/A").iterdir():
        lines = file.read_text().splitlines()
        file.write_text("\n".join(["000.jpg     5", "001.jpg     5", *lines[2:]]))
    parts = read_disfa_plus(tmp_path)
    assert [(part.subject, part.part) for part in parts] == [("SN001", "A"), ("SN001", "C"), ("SN003", "B")]
    part = parts[0]
    assert part.names == tuple(f"{frame:03}.jpg" for frame in range(12))
    assert part.pictures == tuple(tmp_path / "Images/SN001/A" / name for name in part.names) and part.video is None
    assert_array_equal(part.labels, [[(frame * unit) % 6 for unit in ACTION_UNITS] for frame in range(12)])
    assert (part.n_missing, part.n_out_of_range) == (0, 0)


def test_disfa_plus_missing_and_impossible_labels(tmp_path):
    write_disfa_plus(tmp_path)
    change(tmp_path / "Labels" / TRIAL / "AU2.txt", "001.jpg     2\n", "")
    change(tmp_path / "Labels" / TRIAL / "AU26.txt", "002.jpg     4\n", "002.jpg     7\n")
    (part,) = read_disfa_plus(tmp_path)
    assert (part.n_missing, part.n_out_of_range) == (1, 1)
    assert np.argwhere(part.labels == -1).tolist() == [[1, 1], [2, 11]]


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda root: remove(root / "Labels" / TRIAL / "AU20.txt"), r"first: .*TrailNo_1/AU20\.txt does not exist\)\. Co"),
    (lambda root: remove(root / "Labels" / TRIAL), r"^12 of 13 parts .*\(first: .*TrailNo_1/AU1\.txt does not exist\)"),
    (lambda root: remove(*(write_disfa_plus(root, "SN002", "B") / "Images/SN002/B").iterdir()),
     r"^1 of 2 parts of DISFA\+ is unusable \(first: .*SN002/B has no frames\)"),
    (lambda root: change(root / "Labels" / TRIAL / "AU2.txt", "001.jpg     2\n", "001.jpg     none\n"),
     r"DISFA\+ is unusable \(first: .*AU2\.txt, line 4: '001\.jpg     none' is not a frame and an intensity\)\. C"),
    (lambda root: change(root / "Labels" / TRIAL / "AU2.txt", "001.jpg     2\n", "000.jpg     1\n"),
     r"\(first: .*AU2\.txt, line 4: frame 000\.jpg appears twice\)\. C"),
    (lambda root: remove(root / "Images"), r"/Images does not exist\. Request the data set"),
    (lambda root: remove(root / "Images/SN001", root / "Labels"), r"/Images has no subjects .* with --disfa-plus DIR"),
    (lambda root: remove(root / "Images" / TRIAL, root / "Labels"), r"/Images has no subjects .* DISFA\+'s folder w"),
    (lambda root: (remove(root / "Images" / TRIAL, root / "Labels"), add(root / "Images/SN001/.DS_Store")),
     r"/Images has no subjects"),
    (lambda root: (root / "Images/SN002").mkdir(), r"/Images/SN002"),
    (lambda root: (root / "Labels/SN001/Z").mkdir(), r"SN001/Z"),
    (lambda root: (root / "Labels/SN009/Z").mkdir(parents=True), r"SN009/Z"),
    (lambda root: add(root / "Images" / TRIAL / "001.png"), r"A1_AU1_TrailNo_1/001\.(jpg|png)"),
])  # fmt: skip
def test_an_incomplete_disfa_plus(tmp_path, spoil, message):
    """Likewise. The lines of a label file are counted with its header."""
    spoil(write_disfa_plus(tmp_path))
    refused(read_disfa_plus, tmp_path, message)
