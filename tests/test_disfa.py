"""DISFA and DISFA+ on disk: formats written by hand, and what may be wrong with them."""

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


def refused(read, *arguments, match: str) -> None:
    """One sentence."""
    with pytest.raises(FergiError, match=match) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)


# DISFA


@pytest.mark.parametrize("name", ["{}.png", "{:05}.jpg", "img_{:05}.BMP", "LeftVideoSN001_comp-{:04}.tiff"])
def test_disfa_by_hand(tmp_path, name):
    """Both cameras of two subjects; the frame's number is at the end of its name, however many zeros stand before it.

    Twelve frames, so that 10 must come after 9.
    """
    write_disfa(tmp_path, "SN002", n=12, name=name)
    write_disfa(tmp_path, "SN001", n=2, name=name)
    parts = read_disfa(tmp_path)
    assert [(part.subject, part.part) for part in parts] == [
        ("SN001", "LeftCamera"),
        ("SN001", "RightCamera"),
        ("SN002", "LeftCamera"),
        ("SN002", "RightCamera"),
    ]
    part = parts[3]
    assert part.names == tuple(str(frame) for frame in range(1, 13)) and part.video is None
    folder = tmp_path / "Images_RightCamera" / "SN002"
    assert part.pictures == tuple(folder / name.format(frame) for frame in range(1, 13))
    assert_array_equal(part.labels, [[disfa_label(frame, unit) for unit in ACTION_UNITS] for frame in range(1, 13)])
    assert part.labels.dtype == np.int8
    assert (part.n_missing, part.n_out_of_range) == (0, 0)


def test_one_camera(tmp_path):
    """The other one need not be there."""
    write_disfa(tmp_path, cameras=("Right",))
    (part,) = read_disfa(tmp_path, ["Right"])
    assert part.part == "RightCamera" and part.pictures[0] == tmp_path / "Images_RightCamera/SN001/1.png"
    write_disfa(tmp_path, "SN002")
    assert [part.part for part in read_disfa(tmp_path, ["Right"])] == ["RightCamera"] * 2


def test_labels_are_found_by_number_not_by_line(tmp_path):
    """Lines in another order, with zeros, spaces and empty lines, of another system."""
    write_disfa(tmp_path)
    (tmp_path / "ActionUnit_Labels/SN001/SN001_au4.txt").write_bytes(b"0003, 5\r\n4,0\r\n\r\n1,2\r\n 2 ,1\r\n\r\n")
    for part in read_disfa(tmp_path):
        assert part.labels[:, ACTION_UNITS.index(4)].tolist() == [2, 1, 5, 0]
        assert (part.n_missing, part.n_out_of_range) == (0, 0)


def test_a_missing_line_counts_as_not_labelled(tmp_path):
    """Of that AU and frame alone, in both cameras."""
    write_disfa(tmp_path)
    change(tmp_path / "ActionUnit_Labels/SN001/SN001_au12.txt", f"3,{disfa_label(3, 12)}\n", "")
    for part in read_disfa(tmp_path):
        assert (part.n_missing, part.n_out_of_range) == (1, 0)
        assert np.argwhere(part.labels == -1).tolist() == [[2, ACTION_UNITS.index(12)]]


@pytest.mark.parametrize("value", ["7", "6", "-2", "9"])
def test_an_intensity_that_is_none_counts_as_not_labelled(tmp_path, value):
    write_disfa(tmp_path)
    change(tmp_path / "ActionUnit_Labels/SN001/SN001_au1.txt", f"2,{disfa_label(2, 1)}\n", f"2,{value}\n")
    for part in read_disfa(tmp_path):
        assert (part.n_missing, part.n_out_of_range) == (0, 1)
        assert np.argwhere(part.labels == -1).tolist() == [[1, 0]]


def test_labels_without_a_frame_and_frames_without_a_label(tmp_path):
    """A frame that was not extracted has no place; one more has −1 for every AU."""
    write_disfa(tmp_path)
    (tmp_path / "Images_LeftCamera/SN001/2.png").rename(tmp_path / "Images_LeftCamera/SN001/5.png")
    left, right = read_disfa(tmp_path)
    assert left.names == ("1", "3", "4", "5") and right.names == ("1", "2", "3", "4")
    assert (left.labels[3] == -1).all() and (left.labels[:3] >= 0).all()
    assert (left.n_missing, right.n_missing) == (12, 0)


def test_files_that_are_no_pictures_are_left_alone(tmp_path):
    write_disfa(tmp_path)
    for name in ("Thumbs.db", "5.txt", "readme"):
        (tmp_path / "Images_LeftCamera/SN001" / name).touch()
    (tmp_path / "ActionUnit_Labels/readme.txt").touch()
    assert [len(part.names) for part in read_disfa(tmp_path)] == [4, 4]


def test_videos_instead_of_frames(tmp_path):
    """As delivered: one file a camera, frames numbered from 1 as in the labels."""
    write_disfa(tmp_path, n=11, cameras=("Left",))
    video = tmp_path / "Videos_RightCamera" / "RightVideoSN001_comp.avi"
    video.parent.mkdir()
    video.touch()
    left, right = read_disfa(tmp_path)
    assert left.video is None and len(left.pictures) == 11
    assert right.video == video and right.pictures == () and right.part == "RightCamera"
    assert right.names == tuple(str(frame) for frame in range(1, 12))
    assert_array_equal(right.labels, left.labels)


def test_frames_are_preferred_to_videos(tmp_path):
    """An empty folder of frames does not count."""
    write_disfa(tmp_path)
    for camera in ("Left", "Right"):
        (tmp_path / f"Videos_{camera}Camera").mkdir()
        (tmp_path / f"Videos_{camera}Camera" / f"{camera}VideoSN001_comp.avi").touch()
    for frame in range(1, 5):
        (tmp_path / "Images_RightCamera/SN001" / f"{frame}.png").unlink()
    (tmp_path / "Images_LeftCamera/SN001/2.png").unlink()
    left, right = read_disfa(tmp_path)
    assert left.video is None and left.names == ("1", "3", "4")
    assert right.video is not None and right.names == ("1", "2", "3", "4")


def test_a_subject_without_frames(tmp_path):
    """Neither pictures nor a video."""
    write_disfa(tmp_path)
    write_disfa(tmp_path, "SN002", cameras=("Left",))
    refused(
        read_disfa,
        tmp_path,
        match=r"^1 of 4 parts of DISFA is unusable \(first: .*Images_RightCamera/SN002 has no frames, and "
        r".*Videos_RightCamera/RightVideoSN002_comp\.avi does not exist\)\. Complete the data set\.$",
    )


def test_without_the_folder(tmp_path):
    refused(
        read_disfa, tmp_path, match=r"/ActionUnit_Labels does not exist\. Request the data set .*, or name its folder"
    )


def test_without_subjects(tmp_path):
    (tmp_path / "ActionUnit_Labels").mkdir()
    refused(read_disfa, tmp_path, match=r"/ActionUnit_Labels has no subjects \(SN001 and so on\)\. Name .* --disfa DIR")


def test_a_label_file_that_is_missing(tmp_path):
    """It is named, not skipped."""
    write_disfa(tmp_path)
    (tmp_path / "ActionUnit_Labels/SN001/SN001_au9.txt").unlink()
    refused(read_disfa, tmp_path, match=r"parts of DISFA is unusable \(first: .*SN001_au9\.txt does not exist\)\. Comp")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("two,3", "'two,3' is not a frame and an intensity"),
        ("2,high", "'2,high' is not a frame and an intensity"),
        ("2", "'2' is not a frame and an intensity"),
        ("2,3,4", "'2,3,4' is not a frame and an intensity"),
        ("2,2.5", "'2,2.5' is not a frame and an intensity"),
        ("1,3", "frame 1 stands there twice"),
        ("01,3", "frame 1 stands there twice"),
    ],
)
def test_a_label_file_with_a_bad_line(tmp_path, line, cause):
    """File, line and cause."""
    write_disfa(tmp_path)
    change(tmp_path / "ActionUnit_Labels/SN001/SN001_au5.txt", f"2,{disfa_label(2, 5)}\n", f"{line}\n")
    refused(read_disfa, tmp_path, match=rf"\(first: .*SN001_au5\.txt, line 2: {cause}\)\. Complete the data set\.$")


def test_a_frame_without_a_number(tmp_path):
    write_disfa(tmp_path)
    (tmp_path / "Images_LeftCamera/SN001/frame.png").touch()
    refused(read_disfa, tmp_path, match=r"SN001/frame\.png has no frame number at the end of its name\. Name frames by")


def test_a_frame_that_is_there_twice(tmp_path):
    """As 1.png and as 00001.jpg."""
    write_disfa(tmp_path)
    (tmp_path / "Images_LeftCamera/SN001/00001.jpg").touch()
    refused(read_disfa, tmp_path, match=r"SN001/(00001\.jpg|1\.png)")


def test_a_subject_without_labels(tmp_path):
    """Pictures nobody labelled are a data set that is not complete."""
    write_disfa(tmp_path)
    write_disfa(tmp_path, "SN002")
    for path in (tmp_path / "ActionUnit_Labels/SN002").iterdir():
        path.unlink()
    (tmp_path / "ActionUnit_Labels/SN002").rmdir()
    refused(read_disfa, tmp_path, match=r"SN002")


def test_a_video_without_labels(tmp_path):
    """The same for a subject who is there as a video only."""
    write_disfa(tmp_path)
    (tmp_path / "Videos_LeftCamera").mkdir()
    (tmp_path / "Videos_LeftCamera/LeftVideoSN031_comp.avi").touch()
    refused(read_disfa, tmp_path, match=r"SN031")


# DISFA+


def test_disfa_plus_by_hand(tmp_path):
    """By subject and trial; frames by name."""
    write_disfa_plus(tmp_path, "SN003", "B")
    write_disfa_plus(tmp_path, "SN001", "C", n=2)
    write_disfa_plus(tmp_path, "SN001", "A", n=12)
    for name in ("readme.txt", "SN001/notes.txt", "SN001/A/Thumbs.db"):
        (tmp_path / "Images" / name).touch()
    parts = read_disfa_plus(tmp_path)
    assert [(part.subject, part.part) for part in parts] == [("SN001", "A"), ("SN001", "C"), ("SN003", "B")]
    part = parts[0]
    assert part.names == tuple(f"{frame:03}.jpg" for frame in range(12))
    assert part.pictures == tuple(tmp_path / "Images/SN001/A" / name for name in part.names) and part.video is None
    assert_array_equal(part.labels, [[(frame * unit) % 6 for unit in ACTION_UNITS] for frame in range(12)])
    assert (part.n_missing, part.n_out_of_range) == (0, 0)


def test_disfa_plus_header_lines_are_not_labels(tmp_path):
    """Even if they look like one."""
    write_disfa_plus(tmp_path)
    for file in (tmp_path / "Labels/SN001/A1_AU1_TrailNo_1").iterdir():
        lines = file.read_text().splitlines()
        file.write_text("\n".join(["000.jpg     5", "001.jpg     5", *lines[2:]]))
    (part,) = read_disfa_plus(tmp_path)
    assert part.labels[0].tolist() == [0] * 12 and part.n_missing == 0


def test_disfa_plus_missing_and_impossible_labels(tmp_path):
    write_disfa_plus(tmp_path)
    labels = tmp_path / "Labels/SN001/A1_AU1_TrailNo_1"
    change(labels / "AU2.txt", "001.jpg     2\n", "")
    change(labels / "AU26.txt", "002.jpg     4\n", "002.jpg     7\n")
    (part,) = read_disfa_plus(tmp_path)
    assert (part.n_missing, part.n_out_of_range) == (1, 1)
    assert np.argwhere(part.labels == -1).tolist() == [[1, 1], [2, 11]]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("001.jpg", "'001.jpg' is not a frame and an intensity"),
        ("001.jpg     none", "'001.jpg     none' is not a frame and an intensity"),
        ("001.jpg 1 2", "'001.jpg 1 2' is not a frame and an intensity"),
        ("000.jpg     1", "frame 000.jpg stands there twice"),
    ],
)
def test_disfa_plus_bad_lines(tmp_path, line, cause):
    """Lines are counted with the header."""
    write_disfa_plus(tmp_path)
    change(tmp_path / "Labels/SN001/A1_AU1_TrailNo_1/AU2.txt", "001.jpg     2\n", f"{line}\n")
    refused(
        read_disfa_plus, tmp_path, match=rf"parts of DISFA\+ is unusable \(first: .*AU2\.txt, line 4: {cause}\)\. C"
    )


def test_disfa_plus_without_a_label_file(tmp_path):
    """Or all of a trial's."""
    write_disfa_plus(tmp_path)
    file = tmp_path / "Labels/SN001/A1_AU1_TrailNo_1/AU20.txt"
    file.unlink()
    refused(read_disfa_plus, tmp_path, match=rf"\(first: {file} does not exist\)\. Complete the data set\.$")
    for each in file.parent.iterdir():
        each.unlink()
    file.parent.rmdir()
    refused(read_disfa_plus, tmp_path, match=r"^12 of 13 parts .*\(first: .*TrailNo_1/AU1\.txt does not exist\)")


def test_disfa_plus_without_frames_of_a_trial(tmp_path):
    write_disfa_plus(tmp_path)
    write_disfa_plus(tmp_path, "SN002", "B")
    for path in (tmp_path / "Images/SN002/B").iterdir():
        path.unlink()
    refused(read_disfa_plus, tmp_path, match=r"^1 of 2 parts of DISFA\+ is unusable \(first: .*SN002/B has no frames\)")


def test_disfa_plus_without_the_folder(tmp_path):
    refused(read_disfa_plus, tmp_path, match=r"/Images does not exist\. Request the data set")


@pytest.mark.parametrize("folders", [[], ["SN001"]])
def test_disfa_plus_without_subjects_or_trials(tmp_path, folders):
    (tmp_path / "Images").mkdir()
    for name in folders:
        (tmp_path / "Images" / name).mkdir()
    refused(read_disfa_plus, tmp_path, match=r"/Images has no subjects .* Name DISFA\+'s folder with --disfa-plus DIR")


def test_disfa_plus_with_a_stray_file_only(tmp_path):
    """An empty list would end in a traceback."""
    (tmp_path / "Images/SN001").mkdir(parents=True)
    (tmp_path / "Images/SN001/.DS_Store").touch()
    refused(read_disfa_plus, tmp_path, match=r"/Images has no subjects")


def test_disfa_plus_subject_without_trials(tmp_path):
    write_disfa_plus(tmp_path)
    (tmp_path / "Images/SN002").mkdir()
    refused(read_disfa_plus, tmp_path, match=r"/Images/SN002")


def test_disfa_plus_labels_without_pictures(tmp_path):
    """A trial of which only the labels were unpacked."""
    write_disfa_plus(tmp_path)
    (tmp_path / "Labels/SN001/Z").mkdir()
    refused(read_disfa_plus, tmp_path, match=r"SN001/Z")
    (tmp_path / "Labels/SN001/Z").rmdir()
    (tmp_path / "Labels/SN009/Z").mkdir(parents=True)
    refused(read_disfa_plus, tmp_path, match=r"SN009/Z")


def test_disfa_plus_frames_that_differ_in_their_ending_only(tmp_path):
    write_disfa_plus(tmp_path)
    (tmp_path / "Images/SN001/A1_AU1_TrailNo_1/001.png").touch()
    refused(read_disfa_plus, tmp_path, match=r"A1_AU1_TrailNo_1/001\.(jpg|png)")
