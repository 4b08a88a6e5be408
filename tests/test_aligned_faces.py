"""Aligned faces of DISFA and DISFA+, from pictures and videos to what the training reads."""

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import filmed
import numpy as np
import pandas as pd
import pytest
from filmed import GREY, film, moving_face, portrait, shared_aligner, snapshot, without_workers
from numpy.testing import assert_array_equal
from small_disk import run_with_room_for
from test_disfa import change, disfa_label, write_disfa, write_disfa_plus

import preprocess_DISFA
import preprocess_DISFAPlus
from fergi.action_units import aligned_faces
from fergi.action_units.faces_dataset import read_faces, read_picture
from fergi.faces.detection import MODEL_FILE, detector_model
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.processes import items_from_workers

CHECKOUT = Path(__file__).resolve().parent.parent
UNITS = [f"AU{unit}" for unit in ACTION_UNITS]
FACES = Path("preparation/DISFA_faces")
LEFT_1, LEFT_2, RIGHT_1, RIGHT_2 = [
    f"Images_{camera}Camera/{subject}" for camera in ("Left", "Right") for subject in ("SN001", "SN002")
]


@pytest.fixture(scope="module", autouse=True)
def in_process():
    """See ``filmed``."""
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        yield


def save(path: Path, picture: np.ndarray) -> None:
    """An RGB picture, in place of the empty file."""
    assert path.exists()
    assert cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def pictures_of(folder: str) -> list[np.ndarray]:
    """What the frames of one part show; SN001's third one from the right and all of SN002's from the left are grey."""
    if folder == LEFT_2:
        return [GREY] * 3
    frames = moving_face(*{LEFT_1: (34, 0), RIGHT_1: (5, 7), RIGHT_2: (3, 15)}[folder])
    if folder == RIGHT_1:
        frames[2] = GREY
    return frames


@pytest.fixture(scope="module")
def _disfa(tmp_path_factory) -> Path:
    """Two subjects; the left camera has seen more of SN001 than the right one."""
    root = tmp_path_factory.mktemp("disfa") / "DISFA"
    write_disfa(root, "SN001", n=34)
    write_disfa(root, "SN002", n=3)
    for frame in range(6, 35):
        (root / RIGHT_1 / f"{frame}.png").unlink()
    for folder in (LEFT_1, LEFT_2, RIGHT_1, RIGHT_2):
        for number, picture in enumerate(pictures_of(folder), 1):
            save(root / folder / f"{number}.png", picture)
    return root


@pytest.fixture
def disfa(_disfa, tmp_path) -> Path:
    """A copy for each test."""
    return Path(shutil.copytree(_disfa, tmp_path / "DISFA"))


def align(disfa: Path, root: Path, *options: str) -> Path:
    """Run stage 1 in this process; gives the folder it wrote."""
    preprocess_DISFA.main(["--root", str(root), "--disfa", str(disfa), "--workers", "1", *options])
    return root / FACES


def expect(message: str, disfa: Path, root: Path, *options: str) -> None:
    """Stage 1 ends with that sentence."""
    with pytest.raises(FergiError, match=message) as caught:
        align(disfa, root, *options)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def _finished(_disfa, in_process, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "root"
    align(_disfa, root)
    return root


@pytest.fixture
def finished(_finished, tmp_path) -> Path:
    """A root with the aligned faces."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture
def expected(_finished) -> dict[str, bytes]:
    """Every file of one undisturbed run."""
    return snapshot(_finished / FACES)


def test_the_files(_finished, expected):
    """The index names every face, by subject, camera and frame, with its labels; 10 comes after 9.

    Frames without a face are listed; nothing else is there but the faces, the settings and the parts' tables.
    """
    index = pd.read_csv(_finished / FACES / "index.csv")
    assert list(index) == ["image", "subject", "part", "frame", *UNITS]
    wanted = [("SN001", "LeftCamera", frame) for frame in range(1, 35)]
    wanted += [("SN001", "RightCamera", frame) for frame in (1, 2, 4, 5)]
    wanted += [("SN002", "RightCamera", frame) for frame in (1, 2, 3)]
    assert list(index[["subject", "part", "frame"]].itertuples(index=False, name=None)) == wanted
    assert index["image"].tolist() == [f"{subject}/{part}/{frame}.png" for subject, part, frame in wanted]
    labels = [[disfa_label(frame, unit) for unit in ACTION_UNITS] for *_, frame in wanted]
    assert_array_equal(index[UNITS], labels)
    assert expected["no_face.csv"].decode() == (
        "subject,part,frame\nSN001,RightCamera,3\nSN002,LeftCamera,1\nSN002,LeftCamera,2\nSN002,LeftCamera,3\n"
    )
    settings = json.loads(expected["settings.json"])
    assert "bundled short-range detector" in settings.pop("detector")
    assert settings.pop("mediapipe") == importlib.metadata.version("mediapipe")
    assert settings == {"dataset": "DISFA", "landmarks": "facemesh", "luma": "released"}
    pictures = {name for name in expected if name.endswith(".png")}
    tables = {f"parts/{subject}_{camera}Camera.csv" for subject in ("SN001", "SN002") for camera in ("Left", "Right")}
    assert len(pictures) == 34 + 4 + 3
    assert set(expected) - pictures == {"index.csv", "no_face.csv", "settings.json", *tables}


@pytest.mark.parametrize("folder", [LEFT_1, RIGHT_1, RIGHT_2])
def test_pictures_are_those_of_the_aligner(_finished, folder):
    """To the pixel, colours in their places."""
    aligner = shared_aligner(AlignmentSettings(Path("no weights"), "facemesh"))
    camera, subject = folder.removeprefix("Images_").split("/")
    for number, picture in enumerate(pictures_of(folder), 1):
        (face,) = aligner.align([picture])
        file = _finished / FACES / subject / camera / f"{number}.png"
        assert file.exists() == (face is not None)
        if face:
            assert_array_equal(cv2.imread(str(file))[..., ::-1], face.picture)
            assert_array_equal(read_picture(file), face.picture)
            red, _, blue = face.picture[40:80, 40:80].mean(axis=(0, 1))
            assert red > blue + 15  # skin


def test_what_the_script_says(_disfa, disfa, tmp_path, expected, capsys):
    """Frames, subjects, faces, and labels that are missing or impossible, with the first part that has some.

    Labels that are corrected later are taken up.
    """
    labels = [f"ActionUnit_Labels/{name[:5]}/{name}.txt" for name in ("SN002_au4", "SN001_au1", "SN001_au2")]
    for file, old, new in zip(labels, ("2,0\n", "\n4,5\n", "\n34,0\n"), ("2,7\n", "\n", "\n"), strict=True):
        change(disfa / file, old, new)
    folder = align(disfa, tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "45 frames of 2 subjects.",
        "Landmarks by facemesh.",
        "4 parts, 0 of them done before.",
        "41 aligned faces; 4 frames without a face (no_face.csv).",
        "3 labels are missing and count as not labelled (first in SN001, LeftCamera).",
        "2 labels are not 0-5 and count as not labelled (first in SN002, LeftCamera).",
        f"Wrote {folder / 'index.csv'}.",
    ]
    index = pd.read_csv(folder / "index.csv")
    unlabelled = [(index["image"][row], UNITS[column]) for row, column in np.argwhere(index[UNITS].to_numpy() == -1)]
    assert unlabelled == [
        ("SN001/LeftCamera/4.png", "AU1"),
        ("SN001/LeftCamera/34.png", "AU2"),
        ("SN001/RightCamera/4.png", "AU1"),
        ("SN002/RightCamera/2.png", "AU4"),
    ]
    for file in labels:
        shutil.copy(_disfa / file, disfa / file)
    assert snapshot(align(disfa, tmp_path)) == expected


def test_running_it_again(disfa, finished, expected, monkeypatch, capsys):
    """No face is looked for, and no byte changes; pictures that are gone or empty are made again."""
    folder = finished / FACES
    with monkeypatch.context() as patch:
        patch.setattr(aligned_faces.AlignedParts, "__getitem__", None)
        assert snapshot(align(disfa, finished)) == expected
    assert "4 parts, 4 of them done before." in capsys.readouterr().out
    (folder / "SN001/LeftCamera/7.png").unlink()
    (folder / "SN001/RightCamera/2.png").write_bytes(b"")
    assert snapshot(align(disfa, finished)) == expected
    assert "4 parts, 2 of them done before." in capsys.readouterr().out


def test_frames_that_were_replaced_are_aligned_again(disfa, finished, capsys):
    """One picture by another one under the same name; all of a part by a video with more of them."""
    save(disfa / RIGHT_1 / "3.png", pictures_of(RIGHT_1)[0])
    shutil.rmtree(disfa / RIGHT_2)
    film(disfa / "Videos_RightCamera/RightVideoSN002_comp.avi", moving_face(5, 15), "MJPG")
    index = pd.read_csv(align(disfa, finished, "--cameras", "Right") / "index.csv")
    assert "2 parts, 0 of them done before." in capsys.readouterr().out
    assert index["image"].tolist() == [
        *(f"SN001/RightCamera/{frame}.png" for frame in range(1, 6)),
        *(f"SN002/RightCamera/{frame}.png" for frame in range(1, 6)),
    ]
    align(disfa, finished, "--cameras", "Right")
    assert "2 parts, 2 of them done before." in capsys.readouterr().out


def test_one_camera_and_then_both(disfa, tmp_path, expected, capsys):
    """The index has what was asked for, wherever it is asked for; what was done for one camera is not done again."""
    align(disfa, tmp_path, "--cameras", "Right", "--out", str(tmp_path / "faces"))
    assert not (tmp_path / FACES).exists()
    (tmp_path / "preparation").mkdir()
    folder = (tmp_path / "faces").rename(tmp_path / FACES)
    assert set(pd.read_csv(folder / "index.csv")["part"]) == {"RightCamera"}
    assert not (folder / "SN001/LeftCamera").exists()
    assert snapshot(align(disfa, tmp_path)) == expected
    assert "4 parts, 2 of them done before." in capsys.readouterr().out


PNG, JPEG = [cv2.imencode(ending, portrait()[..., ::-1])[1].tobytes() for ending in (".png", ".jpg")]
FOUR = [number.to_bytes(4, "little") for number in (54, 40, 100_000, 100_000)]
HUGE = b"BM" + bytes(8) + b"".join(FOUR) + b"\x01\0\x18\0" + bytes(124)  # the header of a bitmap of 100,000 × 100,000


@pytest.mark.parametrize(("ending", "content"), [
    (".png", b"no picture"), (".png", PNG[:20_000]), (".jpg", JPEG[: len(JPEG) * 3 // 4]), (".bmp", HUGE)
])  # fmt: skip
def test_unreadable_pictures(disfa, tmp_path, expected, ending, content):
    """They are named, the other parts are done, and there is no index; with better ones the result is the usual."""
    good = (disfa / RIGHT_1 / "5.png").read_bytes()
    (disfa / RIGHT_1 / "5.png").unlink()
    (disfa / RIGHT_1 / f"5{ending}").write_bytes(content)
    (disfa / RIGHT_2 / "1.png").write_bytes(b"")
    message = (
        rf"^2 of 4 parts of DISFA are unusable \(first: {disfa / RIGHT_1}/5{ending} is not a picture\)\. "
        r"Replace the files and run again; the rest is done\.$"
    )
    expect(message, disfa, tmp_path)
    folder = tmp_path / FACES
    assert not (folder / "index.csv").exists() and not (folder / "no_face.csv").exists()
    assert {path.name for path in (folder / "parts").iterdir()} == {"SN001_LeftCamera.csv", "SN002_LeftCamera.csv"}
    (disfa / RIGHT_1 / f"5{ending}").unlink()
    (disfa / RIGHT_1 / "5.png").write_bytes(good)
    save(disfa / RIGHT_2 / "1.png", pictures_of(RIGHT_2)[0])
    assert snapshot(align(disfa, tmp_path)) == expected


def test_a_run_that_is_killed_is_resumed(disfa, tmp_path):
    """By SIGKILL after the first part, with pictures half written; then two workers give what one process gives."""
    write_disfa(disfa, "SN003", n=102)
    for frame in range(1, 103):
        picture = disfa / "Images_LeftCamera/SN003" / f"{frame}.png"
        picture.unlink()
        os.link(disfa / LEFT_1 / f"{(frame - 1) % 34 + 1}.png", picture)
    script = [sys.executable, str(CHECKOUT / "preprocess_DISFA.py"), "--disfa", str(disfa), "--cameras", "Left"]
    script += ["--root", str(tmp_path), "--workers"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    folder = tmp_path / FACES
    first = subprocess.Popen([*script, "1"], stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        for _ in range(6000):
            if (folder / "parts/SN001_LeftCamera.csv").exists() or first.poll() is not None:
                break
            time.sleep(0.01)
        first.kill()
        assert first.wait(30) == -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)  # its workers
    assert not (folder / "index.csv").exists()
    for path in folder.glob("SN*/*/*.png"):
        if not (folder / "parts" / f"{path.parts[-3]}_LeftCamera.csv").exists():
            path.write_bytes(path.read_bytes()[:1000])
    second = subprocess.run([*script, "2"], capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 0 and "Traceback" not in second.stderr
    assert re.search(r"^3 parts, [12] of them done before\.$", second.stdout, re.MULTILINE)
    assert snapshot(folder) == snapshot(align(disfa, tmp_path / "undisturbed", "--cameras", "Left"))
    assert len(list(folder.rglob("*.png"))) == 34 + 102


def test_a_worker_that_dies(disfa, tmp_path, monkeypatch):
    monkeypatch.setattr(aligned_faces, "items_from_workers", items_from_workers)
    monkeypatch.setattr(aligned_faces, "FaceAligner", FaceAligner)
    monkeypatch.setattr(aligned_faces, "alignment_settings", lambda *_: filmed.FatalAlignment())
    message = (
        r"^A worker process died while aligning DISFA, most likely out of memory\. Run again with fewer --workers; "
        r"finished parts stay\.$"
    )
    expect(message, disfa, tmp_path)
    assert not list(tmp_path.rglob("index.csv"))


@pytest.mark.parametrize("pages", [0, 40])
def test_a_full_disk(_disfa, pages, tmp_path, expected):
    """With room for nothing or for some of the pictures; with more room the run is resumed."""
    options = ["--root", "{disk}", "--disfa", "{disk}/DISFA", "--workers", "1"]
    left, message = run_with_room_for(pages, _disfa.parent, tmp_path, "preprocess_DISFA.py", *options)
    assert re.fullmatch(r"preprocess_DISFA\.py: Cannot write .*: No space left on device\. Make room .*", message)
    assert not list(left.rglob("index.csv"))
    assert snapshot(align(_disfa, left)) == expected


def test_what_is_found_before_any_work(disfa, tmp_path):
    """A missing network, which is named and leaves another choice open, and a folder that cannot be written."""
    expect(r"mobilefacenet_model_best\.pth\.tar", disfa, tmp_path, "--landmarks", "mobilefacenet")
    assert not list(tmp_path.rglob("settings.json"))
    shutil.rmtree(tmp_path / "preparation", ignore_errors=True)
    (tmp_path / "preparation").touch()
    expect(r"^Cannot write into .*/preparation/DISFA_faces: ", disfa, tmp_path)


# Settings


def test_faces_of_different_settings_are_not_mixed(disfa, finished, expected, tmp_path):
    """Nothing is changed. In another folder another luma gives other faces."""
    message = (
        r"settings\.json says that luma was 'released' for the files that are there, and now it is 'correct'\. "
        r"Use the same settings, or move DISFA_faces away\.$"
    )
    expect(message, disfa, finished, "--luma", "correct")
    assert snapshot(finished / FACES) == expected
    folder = align(disfa, tmp_path, "--cameras", "Right", "--luma", "correct")
    assert json.loads((folder / "settings.json").read_text())["luma"] == "correct"
    assert (folder / "SN002/RightCamera/1.png").read_bytes() != expected["SN002/RightCamera/1.png"]


def test_the_settings_do_not_depend_on_how_the_root_is_written(disfa, tmp_path, monkeypatch):
    """A detector in pretrained_models/ is the same file under ./ and under its whole path."""
    root = tmp_path / "root"
    (root / "pretrained_models").mkdir(parents=True)
    shutil.copy(detector_model(Path("no weights"))[0], root / "pretrained_models" / MODEL_FILE)
    align(disfa, root, "--cameras", "Right")
    monkeypatch.chdir(root)
    align(disfa, Path("."), "--cameras", "Right")


# Videos


@pytest.fixture
def filmed_disfa(disfa) -> Path:
    """DISFA with the right camera's frames as videos."""
    for subject, folder in (("SN001", RIGHT_1), ("SN002", RIGHT_2)):
        film(disfa / f"Videos_RightCamera/RightVideo{subject}_comp.avi", pictures_of(folder), "MJPG")
        shutil.rmtree(disfa / folder)
    return disfa


def test_videos_give_as_many_faces_as_frames(filmed_disfa, tmp_path, expected, _finished):
    """With the same names and labels; the pictures went through another compression and are nearly the same."""
    folder = align(filmed_disfa, tmp_path)
    found = snapshot(folder)
    assert set(found) == set(expected)
    for name in ("index.csv", "no_face.csv", "settings.json", "SN001/LeftCamera/7.png"):
        assert found[name] == expected[name]
    first, second = (read_picture(each / "SN001/RightCamera/4.png") for each in (folder, _finished / FACES))
    assert 0 < np.abs(first.astype(int) - second).mean() < 12


def test_frames_of_a_video_beyond_the_labels(filmed_disfa, tmp_path, capsys):
    """They have no label, and are there; SN001 has more labels than its video has frames. Both are told."""
    film(filmed_disfa / "Videos_RightCamera/RightVideoSN002_comp.avi", moving_face(5, 15), "MJPG")
    index = pd.read_csv(align(filmed_disfa, tmp_path, "--cameras", "Right") / "index.csv", index_col="image")
    assert [name for name in index.index if name.startswith("SN002")] == [
        f"SN002/RightCamera/{frame}.png" for frame in range(1, 6)
    ]
    assert (index.loc[["SN002/RightCamera/4.png", "SN002/RightCamera/5.png"], UNITS] == -1).all(axis=None)
    assert (index.loc["SN002/RightCamera/3.png", UNITS] >= 0).all()
    assert capsys.readouterr().out.splitlines()[4:6] == [
        "24 labels are missing and count as not labelled (first in SN002, RightCamera).",
        "29 labelled frames are not in their video, which is shorter (first in SN001, RightCamera).",
    ]


def test_a_video_that_breaks_off(filmed_disfa, tmp_path):
    path = filmed_disfa / "Videos_RightCamera/RightVideoSN001_comp.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = rf"^1 of 2 parts of DISFA is unusable \(first: {path} breaks off after [23] of 5 frames\)\. Replace the"
    expect(message, filmed_disfa, tmp_path, "--cameras", "Right")
    assert [each.name for each in tmp_path.rglob("parts/*")] == ["SN002_RightCamera.csv"]


# DISFA+


@pytest.fixture
def disfa_plus(tmp_path) -> Path:
    """Two subjects with a trial each, as JPEG, the second frame of the first without a face."""
    root = tmp_path / "DISFAPlus"
    for subject, trial, start in (("SN001", "A1_AU1_TrailNo_1", 0), ("SN003", "Y_Happy", 9)):
        write_disfa_plus(root, subject, trial)
        for number, picture in enumerate(moving_face(3, start)):
            picture = GREY if (subject, number) == ("SN001", 1) else picture
            save(root / "Images" / subject / trial / f"{number:03}.jpg", picture)
    return root


def test_disfa_plus(disfa_plus, tmp_path, capsys):
    """The same folder, with trials in the cameras' place, and names of files in the frames'."""
    preprocess_DISFAPlus.main(["--root", str(tmp_path), "--disfa-plus", str(disfa_plus), "--workers", "1"])
    assert "5 aligned faces; 1 frames without a face" in capsys.readouterr().out
    folder = tmp_path / "preparation/DISFAPlus_faces"
    assert (folder / "no_face.csv").read_text() == "subject,part,frame\nSN001,A1_AU1_TrailNo_1,001.jpg\n"
    index = pd.read_csv(folder / "index.csv")
    assert index["image"].tolist() == [
        "SN001/A1_AU1_TrailNo_1/000.png",
        "SN001/A1_AU1_TrailNo_1/002.png",
        *(f"SN003/Y_Happy/{frame:03}.png" for frame in range(3)),
    ]
    assert index["frame"].tolist() == ["000.jpg", "002.jpg", "000.jpg", "001.jpg", "002.jpg"]
    assert_array_equal(index[UNITS], [[(frame * unit) % 6 for unit in ACTION_UNITS] for frame in (0, 2, 0, 1, 2)])
    assert json.loads((folder / "settings.json").read_text())["dataset"] == "DISFAPlus"
    faces, settings, n_ignored = read_faces(tmp_path, "DISFAPlus")
    assert faces.subjects.tolist() == ["SN001"] * 2 + ["SN003"] * 3
    assert settings["DISFAPlus landmarks"] == "facemesh" and n_ignored == 0
    assert_array_equal(faces.labels[:, [unit - 1 for unit in ACTION_UNITS]], index[UNITS])


SCRIPTS = [(preprocess_DISFA, "--disfa", "ActionUnit_Labels"), (preprocess_DISFAPlus, "--disfa-plus", "Images")]


@pytest.mark.parametrize(("script", "option", "folder"), SCRIPTS)
def test_what_both_scripts_refuse(tmp_path, capsys, script, option, folder):
    """A data set that is not there, and fewer than one worker; nothing is written."""
    options = ["--root", str(tmp_path / "root"), option, str(tmp_path / "nowhere")]
    with pytest.raises(FergiError, match=rf"/nowhere/{folder} does not exist\. Request the data set from its authors"):
        script.main(options)
    for number in ("0", "-1"):
        with pytest.raises(SystemExit, match="2"):
            script.main([*options, "--workers", number])
        assert "--workers must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()
