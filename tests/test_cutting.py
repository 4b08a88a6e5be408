"""Recorded sessions → clips, without a browser: which frame each clip shows, and what is refused, resumed, redone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import snapshot
from numbered import captures, number_of, write_consent, write_session
from small_disk import CHECKOUT, run_with_room_for

import cut_clips
from fergi.dataset import Folders, find_videos, may_share, read_session_data, read_valid_sessions
from fergi.files import FergiError
from fergi.image_data import read_image_data
from fergi.recording import cutting
from fergi.video import Video


@pytest.fixture(scope="module")
def _recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded") / "root"
    for participant, sessions in {"001": (1, 3), "Zoë B. 02": (1,)}.items():
        write_consent(root / "recordings" / participant, sharing=participant == "001")
        for number in sessions:
            write_session(root / "recordings" / participant / f"session_{number}", black=[2] if number == 3 else [])
    (root / "recordings/001/.session_2_stopped_1").mkdir()
    return root


@pytest.fixture
def root(_recorded, tmp_path):
    """Three complete sessions of two participants, and one that was stopped."""
    return shutil.copytree(_recorded, tmp_path / "root")


def cut(root, *options):
    """The script."""
    cut_clips.main(["--root", str(root), "--workers", "2", *options])


def shown_numbers(path):
    """The numbers of the pictures in a clip."""
    with Video(path) as video:
        assert video.frame_seconds == pytest.approx(1 / 30, rel=1e-9)
        frames = list(video.frames())
    np.testing.assert_allclose([when for when, _ in frames], np.arange(len(frames)) / 30, atol=1e-4)
    return [number_of(picture) for _, picture in frames]


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("mp4", "libx264")]
)
def test_every_frame_is_the_newest(tmp_path, ending, codec):
    """Each of 720 frames in eight clips, in every container that browsers write; lengths need not be equal."""
    times = captures(500, seed=7, jitter=8)
    folder = tmp_path / "recordings/001/session_1"
    events = write_session(folder, n_images=4, seconds=1.5, times=times, ending=ending, codec=codec)
    write_consent(folder.parent)
    cut(tmp_path)
    for event in events:
        if kind := {"baseline_shown": "baseline", "image_shown": "reaction"}.get(event["name"]):
            moments = event["time"] + 1000 * np.arange(45) / 30
            newest = np.array([np.flatnonzero(times <= moment)[-1] for moment in moments])
            shown = np.array(shown_numbers(tmp_path / f"data/001/session_1/{kind}_clip_{event['image']}.mp4"))
            early = shown == newest + 1  # at most 8 ms, and only where a frame would be repeated
            assert shown[0] == newest[0] and ((shown == newest) | early).all()
            assert (times[shown[early]] <= moments[early] + 8).all()
            assert not early.any() or (np.diff(newest) == 0).any()


def test_what_is_written(root, capsys):
    """Clips, images, answers in the released format, marks, consent, lists; the readers of stages 4 and 5 take them."""
    folders = Folders(root)
    folders.preparation.mkdir()
    folders.valid_sessions.write_text('{"040": [2], "001": [9]}')
    folders.black_images.write_text('{"040": {"2": [1]}, "001": {"9": []}}')
    cut(root)
    out = capsys.readouterr().out
    assert "3 complete sessions: 3 cut, 0 cut already." in out and "1 others were stopped or interrupted" in out
    sessions = {"001": [1, 3], "Zoë B. 02": [1]}
    assert read_valid_sessions(folders) == {"001": [1, 3, 9], "040": [2], "Zoë B. 02": [1]}
    black = json.loads(folders.black_images.read_text())
    assert black == {"040": {"2": [1]}, "001": {"9": [], "1": [], "3": [2]}, "Zoë B. 02": {"1": []}}
    assert len(find_videos(folders)) == 12
    images = read_image_data(folders, sessions)
    assert [(image.image, image.rank_score) for image in images[:2]] == [(1, 1), (2, 2)]  # the last was ranked first
    assert [image.key for image in images if image.black] == [("001", 3, 2)]
    for name in ("recordings", "data"):
        assert json.loads((root / name / "Zoë B. 02/consent.json").read_text())["sharing"] is False

    data = read_session_data(root / "data/001/session_1/data.json")
    assert (data.kind, data.prompt, data.ranking_start) == ("free", "two red cats", (1, 0))
    assert list(data.marks) == ["baseline_clip_1", "reaction_clip_1", "baseline_clip_2", "reaction_clip_2"]
    reaction = data.marks["reaction_clip_1"]  # 400.3 ms and a page of 1007.77 ms after the first frame
    assert reaction["recording_seconds"] == 1.4081
    seconds = {event["name"]: event["seconds"] for event in reaction["events"]}
    assert seconds == {"image_shown": 0.0, "image_rendered": 0.0165, "image_hidden": 1.0078}
    released = json.loads((root / "data/001/session_1/data.json").read_text())
    assert released["ranking"] == [{"id": 1}, {"id": 0}]
    assert "missingElements" not in released["survey"][0]


def test_new_list_of_black_images(root):
    """Begun if it can name every valid session, so that stages 6 and 7 run without stage 5; else left to stage 5."""
    folders = Folders(root)
    cut(root)
    assert json.loads(folders.black_images.read_text())["001"] == {"1": [], "3": [2]}
    shutil.rmtree(root / "data")
    folders.black_images.unlink()
    folders.valid_sessions.write_text('{"040": [2]}')
    cut(root)
    assert not folders.black_images.exists()


def test_again(root, capsys):
    """Nothing to do the second time; a changed session is cut again, and its features go with its old clips."""
    cut(root)
    before = snapshot(root)
    cut(root)
    assert "3 complete sessions: 0 cut, 3 cut already." in capsys.readouterr().out and snapshot(root) == before
    folders = Folders(root)
    folders.valid_sessions.write_text('{"001": [3]}')  # the others are taken out by hand, and stay out
    for number in (1, 3):
        (root / f"data/001/session_{number}/reaction_clip_1_features.csv").write_text("frame\n")
    path = root / "recordings/001/session_3/answers.json"
    path.write_text(path.read_text().replace('"overallRating": 4', '"overallRating": 5'))
    cut(root)
    assert "1 cut, 2 cut already" in capsys.readouterr().out
    assert read_valid_sessions(folders) == {"001": [3]}
    assert '"overallRating": 5' in (root / "data/001/session_3/data.json").read_text()
    assert not (root / "data/001/session_3/reaction_clip_1_features.csv").exists()
    assert (root / "data/001/session_1/reaction_clip_1_features.csv").exists()
    (root / "data/001/session_1/baseline_clip_2.mp4").unlink()
    cut(root)
    assert (root / "data/001/session_1/baseline_clip_2.mp4").exists()


def test_killed_and_run_again(root, tmp_path):
    """SIGKILL among the clips: no half session anywhere, and the second run gives the same bytes as one in one go."""
    whole = shutil.copytree(root, tmp_path / "whole")
    cut(whole)
    code = (
        "import time, cut_clips\nfrom fergi.recording import cutting\n"
        "real = cutting._Writer.close\n"
        "def slow(self):\n    real(self)\n    time.sleep(0.3)\n"
        f"cutting._Writer.close = slow\ncut_clips.main(['--root', {str(root)!r}, '--workers', '1'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT)
    part = root / "data/001/.session_3.part/baseline_clip_1.mp4"
    while not part.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (root / "data/001/session_1/cut.json").exists() and not (root / "data/001/session_3").exists()
    assert read_valid_sessions(Folders(root)) == {"001": [1]}
    cut(root)
    assert snapshot(root) == snapshot(whole)


def test_interrupted(root, monkeypatch):
    """Ctrl-C: sessions under way are given up, nothing of them stays."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cut_clips, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut(root, "--workers", "1")
    assert not list(root.glob("data/*/.session_*"))
    n_cut = len(list(root.glob("data/*/session_*")))
    assert n_cut < 3
    monkeypatch.undo()
    cut(root)
    assert read_valid_sessions(Folders(root)) == {"001": [1, 3], "Zoë B. 02": [1]}


def edit(name, old, new):
    """A change of a file of the session."""

    def change(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def only_half(folder):
    """The recording without its second half, and so without the last clips."""
    path = folder / "recording.mkv"
    os.truncate(path, path.stat().st_size * 35 // 100)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (only_half, "session_3: a clip repeats [6-9]"),
        (lambda folder: os.truncate(folder / "recording.mkv", 50), "recording.mkv is not a video"),
        (lambda folder: (folder / "recording.mkv").unlink(), "session_3 has no recording"),
        (lambda folder: (folder / "frames.jsonl").unlink(), "frames.jsonl"),
        (lambda folder: (folder / "images/image2.png").unlink(), "image2.png does not exist"),
        (lambda folder: os.truncate(folder / "images/image2.png", 60), "image2.png is "),
        (edit("session.json", "complete", "stopped"), "was not completed"),
        (edit("session.json", '"n_images": 2', '"n_images": 3'), "ids 0 to 2 once each"),
        (edit("answers.json", '"ranking": [1, 0]', '"ranking": null'), "ranking must be a list, not null"),
        (edit("answers.json", '"fidelityRating": 7', '"fidelityRating": 8'), "fidelityRating must be"),
        (edit("answers.json", '"ranking_start": [1, 0]', '"ranking_start": [1, 2]'), "ranking_start must have"),
        (edit("events.jsonl", '"name": "image_shown", "image": 2', '"name": "x"'), "image_shown of image 2 0 times"),
        (edit("events.jsonl", '"name": "recorder_starting"', '"name": "x"'), "recorder's start 0 times"),
    ],
)
def test_what_cannot_be_cut(root, change, reason):
    """The session is named with the reason, nothing of it is written; the others are cut and listed."""
    change(root / "recordings/001/session_3")
    with pytest.raises(
        FergiError, match=f"1 of 3 sessions is not cut .first: .*{reason}.*The others are cut"
    ) as caught:
        cut(root)
    assert "\n" not in str(caught.value)
    assert read_valid_sessions(Folders(root)) == {"001": [1], "Zoë B. 02": [1]}
    assert sorted(path.name for path in root.glob("data/001/*session*")) == ["session_1"]


def test_other_data_of_the_same_name(root):
    """A session that came from elsewhere is not replaced."""
    other = root / "data/001/session_3/reaction_clip_1_features.csv"
    other.parent.mkdir(parents=True)
    other.write_text("published")
    with pytest.raises(FergiError, match=r"1 of 3 .*data/001/session_3 is there and was not cut from a recording"):
        cut(root)
    assert snapshot(other.parent) == {other.name: b"published"}
    assert read_valid_sessions(Folders(root))["001"] == [1]


def test_warnings(root, capsys):
    """Cut all the same: a hidden page, and a browser without captureTime."""
    edit("events.jsonl", '"name": "recorder_started"', '"name": "hidden"')(root / "recordings/001/session_1")
    edit("frames.jsonl", '"captureTime"', '"mediaTime"')(root / "recordings/001/session_3")
    cut(root)
    out = capsys.readouterr().out
    assert "Warning: 001, session 1: the page was hidden during baseline_clip_1." in out
    assert "Warning: 001, session 3: the browser tells no captureTime" in out
    cut(root)
    assert "001, session 3: the browser tells no captureTime" in capsys.readouterr().out  # also when cut already


def test_recording_damaged_anywhere(tmp_path):
    """Bytes turned over at twenty places: refused, or the pictures are right from the next keyframe on."""
    folder = tmp_path / "recordings/001/session_1"
    events = write_session(folder, n_images=2, times=captures(170))
    write_consent(folder.parent)
    whole = (folder / "recording.mkv").read_bytes()
    start = next(event["time"] for event in events if event["name"] == "baseline_shown")
    expected = np.searchsorted(captures(170), start + 1000 * np.arange(30) / 30, side="right") - 1
    n_cut = 0
    for place in range(50, len(whole) - 60, len(whole) // 20):
        damaged = bytearray(whole)
        damaged[place : place + 8] = bytes(255 - byte for byte in damaged[place : place + 8])
        (folder / "recording.mkv").write_bytes(damaged)
        try:
            cut(tmp_path)
        except FergiError as error:
            assert "1 of 1 sessions is not cut" in str(error)
        else:
            n_cut += 1
            shown = np.array(shown_numbers(tmp_path / "data/001/session_1/baseline_clip_1.mp4"))
            assert np.count_nonzero(shown != expected) <= 15  # the recording's distance of keyframes
    assert n_cut


@pytest.mark.parametrize(
    ("consent", "reason"),
    [
        (
            lambda folder: write_consent(folder, withdrawn=True),
            "does not allow the recording. Remove everything: delete_",
        ),
        (lambda folder: write_consent(folder, recording=None), "does not allow the recording"),
        (
            lambda folder: (folder / "consent.json").unlink(),
            r"001/consent\.json\). Nothing of this participant may be cut",
        ),
        (lambda folder: (folder / "consent.json").write_text("{"), "consent.json is not JSON"),
    ],
)
def test_consent(root, consent, reason):
    """Without it, or withdrawn, nothing of the participant is cut; the others are."""
    consent(root / "recordings/001")
    with pytest.raises(FergiError, match=f"2 of 3 sessions are not cut .first: .*{reason}"):
        cut(root)
    assert [path.parent.name for path in root.glob("data/*/session_*")] == ["Zoë B. 02"]


def test_consent_withdrawn_after_cutting(root):
    """What is there already is not exported from now on."""
    cut(root)
    assert may_share(Folders(root), "001") and not may_share(Folders(root), "Zoë B. 02")
    write_consent(root / "recordings/001", withdrawn=True)
    with pytest.raises(FergiError, match="2 of 3 sessions are not cut"):
        cut(root)
    assert not may_share(Folders(root), "001")


def test_names_and_nothing_to_cut(tmp_path):
    """A folder that is no participant's name, and no sessions at all."""
    with pytest.raises(FergiError, match=r"no complete sessions in .*collect_sessions.py"):
        cut(tmp_path)
    write_session(tmp_path / "recordings/a b!/session_1", n_images=2, times=captures(170))
    with pytest.raises(FergiError, match="'a b!' cannot be a participant's name"):
        cut(tmp_path)


def test_remove_raw(root, capsys):
    """Only recordings whose clips can all be decoded; later runs know the sessions as cut."""
    cut(root)
    path = root / "data/001/session_1/reaction_clip_2.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    with pytest.raises(FergiError, match=r"reaction_clip_2.mp4 does not have 30 frames. Remove .*session_1 and run"):
        cut(root, "--remove-raw")
    assert (root / "recordings/001/session_1/recording.mkv").exists()
    path.write_bytes(whole)
    capsys.readouterr()
    cut(root, "--remove-raw")
    assert "Removed 3 recordings; logs, answers and images stay." in capsys.readouterr().out
    assert not list(root.glob("recordings/*/*/recording.*"))
    before = snapshot(root)
    cut(root, "--remove-raw")
    assert "0 cut, 3 cut already" in capsys.readouterr().out and snapshot(root) == before
    edit("answers.json", '"overallRating": 4', '"overallRating": 5')(root / "recordings/001/session_1")
    with pytest.raises(FergiError, match="session_1 has no recording"):
        cut(root)
    assert snapshot(root / "data") == {n[5:]: content for n, content in before.items() if n.startswith("data/")}


def test_full_disk(_recorded, tmp_path):
    """One sentence, no half session; what was cut before stays."""
    left, out = run_with_room_for(20, _recorded, tmp_path, "cut_clips.py", "--root", "{disk}", "--workers", "1")
    assert "Traceback" not in out and "Cannot write" in out
    assert not list(left.glob("data/*/.session_*"))
    for folder in left.glob("data/*/session_*"):
        cutting.verify(folder)
