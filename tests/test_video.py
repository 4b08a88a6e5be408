"""Reading videos: frames, times, colours, and files that are no videos or only parts of one."""

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CHECKOUT
from filmed import film
from numpy.testing import assert_allclose

from fergi.video import UnreadableVideo, Video, increasing, read_frames

SIDE = 64


def plain(*levels: int) -> list[np.ndarray]:
    """Grey pictures."""
    return [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels]


def refuses(path: Path, message: str, n_frames: int = 0) -> None:
    """Assert that after so many frames comes the path and this message."""
    found = 0
    with pytest.raises(UnreadableVideo) as caught:
        for _ in read_frames(path):
            found += 1
    assert (found, str(caught.value)) == (n_frames, f"{path} {message}")


@pytest.mark.parametrize("name", ["mp4v.mp4", "MJPG.mov", "MJPG.avi", "mp4v.mkv", "VP80.webm", "mpg1.mpg"])
def test_every_frame_once_and_in_order(tmp_path, name):
    """Each frame is 8 brighter than the one before it."""
    levels = list(range(20, 236, 8))
    frames = list(read_frames(film(tmp_path / name, plain(*levels), name[:4], side=SIDE)))
    assert_allclose([picture.mean() for _, picture in frames], levels, atol=4)
    assert all(picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8 for _, picture in frames)


def test_colours_and_shape(tmp_path):
    """RGB, not OpenCV's BGR; rows first, then columns."""
    writer = cv2.VideoWriter(str(tmp_path / "wide.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (128, 64))
    writer.write(np.full((64, 128, 3), (0, 0, 220), np.uint8))
    writer.release()
    ((_, picture),) = read_frames(tmp_path / "wide.mp4")
    assert picture.shape == (64, 128, 3)
    assert_allclose(picture.mean(axis=(0, 1)), [220, 0, 0], atol=8)


def test_a_name_that_is_not_utf_8(tmp_path):
    """OpenCV would end the process. The message can be printed."""
    path = film(tmp_path / "a.mp4", plain(20), side=SIDE).rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    with pytest.raises(UnreadableVideo) as caught:
        list(read_frames(path))
    assert str(caught.value).encode().endswith(rb"/caf\xe9.mp4 is not a name in UTF-8, as OpenCV needs it")


def test_a_name_with_a_colon(tmp_path, monkeypatch):
    """What stands before it is no protocol."""
    film(tmp_path / "10:30.mp4", plain(20, 40), side=SIDE)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_frames(Path("10:30.mp4")))) == 2


@pytest.mark.parametrize(("name", "rate"), [("mp4v.mp4", 30), ("mp4v.mp4", 10), ("MJPG.avi", 20)])
def test_times_count_from_zero(tmp_path, name, rate):
    """The position before the frame: 0, 1/30, 2/30, …; the container says as much of itself."""
    path = film(tmp_path / name, plain(*range(12)), name[:4], rate=rate, side=SIDE)
    with Video(path) as video:
        assert (video.promised, video.frame_seconds) == (12, 1 / rate)
        assert_allclose([time for time, _ in video.frames()], np.arange(12) / rate, atol=1e-6)


def unknown_codec(path: Path) -> None:
    """All is well but the codec's name."""
    content = film(path.with_suffix(".avi"), plain(20, 40), "MJPG", side=SIDE).read_bytes()
    path.with_suffix(".avi").rename(path)
    path.write_bytes(content.replace(b"MJPG", b"QXYZ"))


def sound(path: Path) -> None:
    """A second of silence."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))


def cut_mp4(path: Path) -> None:
    """The index comes last in the file and is gone."""
    film(path, plain(*range(40)), side=SIDE)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"moov") - 4])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "does not exist"),
        (Path.touch, "is empty"),
        (sound, "is not a video that OpenCV can open"),
        (lambda path: path.write_text("Dear diary, this is no video.\n" * 50), "is not a video that OpenCV can open"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "is not a video that OpenCV can open"),
        (cut_mp4, "is not a video that OpenCV can open"),
        (unknown_codec, "is not a video that OpenCV can open"),
        (lambda path: film(path.with_suffix(".avi"), [], "MJPG").rename(path), "has no frames that OpenCV can decode"),
    ],
)
def test_a_file_that_is_no_video(tmp_path, write, message):
    write(tmp_path / "a.mp4")
    refuses(tmp_path / "a.mp4", message)


def cut_avi(path: Path, n_frames: int, kept: int) -> Path:
    """A video whose file ends right after some of its frames."""
    content = film(path, plain(*range(n_frames)), "MJPG", side=SIDE).read_bytes()
    start = content.index(b"movi")
    for _ in range(kept):
        start = content.index(b"00dc", start) + 8
        size = struct.unpack("<I", content[start - 4 : start])[0]
        start += size + size % 2
    path.write_bytes(content[:start])
    return path


@pytest.mark.parametrize("kept", [1, 10, 17, 18, 19, 20])
def test_a_video_that_breaks_off(tmp_path, kept):
    """Its frames come first, then the message with both numbers; a container may promise a tenth too much."""
    path = cut_avi(tmp_path / "a.avi", 20, kept)
    if kept < 18:
        refuses(path, f"breaks off after {kept} of 20 frames", kept)
    else:
        assert len(list(read_frames(path))) == kept


# Thirty frames in the first second and fifteen in the next: a camera in the evening, recorded by a browser.
SLOWING_DOWN = [*np.arange(30) / 30, *1 + np.arange(15) / 15]


def slowing_down(path: Path) -> Path:
    """A video with these times: those of the blocks of its only track, and the duration, are written over."""
    content = bytearray(film(path, plain(*range(45)), side=SIDE).read_bytes())
    at = content.index(b"\x1f\x43\xb6\x75")  # where the blocks begin
    for number, seconds in enumerate(SLOWING_DOWN):
        at = content.index(b"\x81" + struct.pack(">h", round(1000 * number / 30)), at) + 1
        struct.pack_into(">h", content, at, round(1000 * seconds))
    struct.pack_into(">d", content, content.index(b"\x44\x89\x88") + 3, 2000.0)
    path.write_bytes(content)
    return path


def test_a_video_whose_rate_falls_is_whole(tmp_path):
    """Every frame is there, with its own time."""
    frames = list(read_frames(slowing_down(tmp_path / "a.mkv")))
    assert_allclose([time for time, _ in frames], SLOWING_DOWN, atol=1e-3)


def test_nothing_but_the_message_reaches_the_terminal(tmp_path):
    """OpenCV and FFmpeg would print their own."""
    cut_mp4(tmp_path / "a.mp4")
    cut_avi(tmp_path / "b.avi", 20, 10)
    program = (
        "import sys; from pathlib import Path; from fergi.video import *\n"
        "for name in sys.argv[1:]:\n"
        "    try: list(read_frames(Path(name)))\n"
        "    except UnreadableVideo as error: print(error)"
    )
    command = [sys.executable, "-c", program, tmp_path / "a.mp4", tmp_path / "b.avi"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert run.stderr == "" and run.stdout.count("\n") == 2


def test_files_are_closed(tmp_path):
    """Also when not all frames are wanted, and after a failure."""
    good, bad = film(tmp_path / "a.mp4", plain(*range(9)), side=SIDE), cut_avi(tmp_path / "b.avi", 20, 10)
    list(read_frames(good))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        list(read_frames(good))
        refuses(bad, "breaks off after 10 of 20 frames", 10)
        some = read_frames(good)
        next(some)
        some.close()
    assert len(os.listdir("/proc/self/fd")) == before


# Times


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0, 0.02, 0.1, 0.101], [0, 0.02, 0.1, 0.101]),  # good, whatever the rate
        ([0, 0.07, 0.07, 0.2, 0.27], [0, 0.07, 0.071, 0.2, 0.27]),  # a repeat
        ([0, 0.07, 0.05, 0.2, 0.27], [0, 0.07, 0.071, 0.2, 0.27]),  # backwards
        ([0, 0.0331, 0.0334, 0.1], [0, 0.0331, 0.034, 0.1]),  # the same millisecond, so the same in the file
        ([0, 0.0125, 0.013, 0.1], [0, 0.0125, 0.014, 0.1]),  # likewise: 0.0125 is written as 0.013
        ([0, 0.07, 0.07, 0.07, 0.2, 0.27, 0.34], [0, 0.07, 0.071, 0.072, 0.2, 0.27, 0.34]),
    ],
)
def test_only_times_that_do_not_increase_are_changed(times, expected):
    """The clip is as long as before."""
    found = increasing(np.array(times, float), 1 / 15)
    assert_allclose(found, expected, atol=1e-9)
    written = [float(f"{time:.3f}") for time in found]
    assert all(np.diff(written) > 0)


@pytest.mark.parametrize(
    "times",
    [
        [0.0, 0.0, 0.0],  # a container without positions
        [0.0, 0.03, 0.01, 0.0],  # mostly backwards
        [0.0, 99.0, 0.06, 0.1, 0.13],  # what comes first is wrong
    ],
)
def test_frames_are_counted_where_times_are_of_no_use(times):
    """At the container's rate; a thousand a second is a browser's clock and no rate."""
    n = np.arange(len(times))
    assert_allclose(increasing(np.array(times), 1 / 15), n / 15, atol=1e-12)
    for frame_seconds in (0.0, 1 / 1000):
        assert_allclose(increasing(np.array(times), frame_seconds), n / 30, atol=1e-12)
