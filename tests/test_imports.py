"""Tables of other tools as feature files: columns, units, ratios, faces, times, and what is refused."""

import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import shared_folder, snapshot

import config
import import_features
from fergi.features import ACTION_UNITS, COLUMNS, read_clips, valid_frames
from fergi.files import FergiError
from fergi.imports import ratios_of_angles

SCORE, PITCH, YAW = COLUMNS[2:5]

# A face worked by hand: the eyes are 80 pixels apart and the nostrils 56 below them (0.7); the left eye is 60 pixels
# from the left edge and the right eye 40 from the right one (0.6).
LEFT_EYE, RIGHT_EYE, NOSTRILS = (160, 200), (240, 200), (200, 256)
JAW_LEFT, JAW_RIGHT, CHIN, MOUTH = (100, 200), (280, 200), (200, 340), ((170, 290), (230, 290))


def landmarks(n, places):
    """Points of a face, shape (n, 2): ``places`` are the numbers of the points that each part has."""
    points = np.zeros((n, 2))
    parts = (LEFT_EYE, RIGHT_EYE, NOSTRILS, JAW_LEFT, JAW_RIGHT, CHIN, *MOUTH)
    for part, numbers in zip(parts, places, strict=True):
        points[list(numbers)] = part
    return points


IBUG_68 = landmarks(68, (range(36, 42), range(42, 48), range(31, 36), [0], [16], [8, 9], [48], [54]))
WFLW_98 = landmarks(98, (range(60, 68), range(68, 76), range(55, 60), [0], [32], range(15, 19), [76], [82]))
FACEMESH_478 = landmarks(
    478,
    (
        (33, 160, 158, 133, 153, 144),
        (362, 385, 387, 263, 373, 380),
        (98, 97, 2, 326, 327),
        [127],
        [356],
        (152, 377),
        [61],
        [291],
    ),
)


def openface_2(n=30, **columns):
    """OpenFace 2.2's table: blanks behind the commas, a frame a row, frames from 1."""
    names = {
        "frame": range(1, n + 1),
        "face_id": 0,
        "timestamp": [f"{each / 30:.3f}" for each in range(n)],
        "confidence": 0.98,
        "success": 1,
        "gaze_0_x": 0.1,
        "pose_Rx": 0.1,
        "pose_Ry": -0.2,
        "pose_Rz": 0.0,
    }
    names |= {f"x_{point}": x for point, x in enumerate(IBUG_68[:, 0])}
    names |= {f"y_{point}": y for point, y in enumerate(IBUG_68[:, 1])}
    names |= {f"AU{unit:02d}_r": unit / 10 for unit in (*ACTION_UNITS, 7, 10, 14, 23, 45)}
    names |= {"AU12_r": [f"{each / 10:.2f}" for each in range(n)], "AU04_c": 1}
    return pd.DataFrame(names | columns, index=range(n)), ", "


def openface_3(n=30, **columns):
    """OpenFace 3.0's table: lists in cells, frames from 0, the time at which it ran."""
    outputs = [[[0.1, 0.2, 0.4, 0.6, 0.9, each / n, 0.25, 0.26]] for each in range(n)]
    names = {
        "timestamp": "2026-01-01 10:00:00",
        "video_path": "smile.mp4",
        "frame_index": range(n),
        "face_id": 0,
        "face_detection": [str([90.0, 100.0, 300.0, 350.0, 0.99, *[1.0] * 10])] * n,
        "landmarks": [str(WFLW_98.tolist())] * n,
        "action_units": [str(each) for each in outputs],
    }
    return pd.DataFrame(names | columns, index=range(n)), ","


def py_feat(n=30, **columns):
    """py-feat 2's table: presences, the score of the face, times in minutes and seconds, frames from 0."""
    names = {"FaceRectWidth": 200.0, "FaceScore": 0.97, "Pitch": -0.1, "Roll": 0.0, "Yaw": 0.2, "frame": range(n)}
    names |= {f"x_{point}": x for point, x in enumerate(IBUG_68[:, 0])}
    names |= {f"y_{point}": y for point, y in enumerate(IBUG_68[:, 1])}
    names |= {f"AU{unit:02d}": 0.01 * unit for unit in (*ACTION_UNITS, 43)}
    names |= {"approx_time": "00:00", "Identity": "Person_0", "AU12": [each / n for each in range(n)]}
    return pd.DataFrame(names | columns, index=range(n)), ","


def libreface(n=30, **columns):
    """LibreFace 0.2's table: seconds in a column of milliseconds, landmarks in shares of a picture of 640 x 480."""
    names = {"frame_idx": range(n), "frame_time_in_ms": [each / 30 for each in range(n)], "pitch": 4.0, "yaw": -3.0}
    for axis, size in enumerate((640, 480)):
        names |= {f"lm_mp_{point}_{'xy'[axis]}": v / size for point, v in enumerate(FACEMESH_478[:, axis])}
    names |= {f"au_{unit}_intensity": unit / 10 for unit in ACTION_UNITS} | {"au_12": 1}
    names |= {"au_12_intensity": [each / 10 for each in range(n)]}
    return pd.DataFrame(names | columns, index=range(n)), ","


def written(table, path):
    """The table as the tool writes it."""
    cells, comma = table
    path.parent.mkdir(parents=True, exist_ok=True)
    text = cells.to_csv(index=False)
    if comma != ",":
        text = text.replace(",", comma)
    path.write_text(text)
    return path


def imported(tmp_path, table, tool, *options):
    """The feature file of one table, checked by the reader of stages 6 and 7, as a table."""
    path = written(table, tmp_path / "smile.csv")
    import_features.main(["--from", tool, str(path), "--out", str(tmp_path / "out"), *options])
    output = tmp_path / "out" / "smile_features.csv"
    features, problems = read_clips([output])
    assert problems == []
    return pd.read_csv(output), features


TABLES = {
    "openface-2.2": (openface_2, "openface", [], {unit: unit / 10 for unit in ACTION_UNITS}, 2.9),
    "openface-3.0": (openface_3, "openface", ["--fps", "30"],
        {1: 0.5, 2: 1.0, 4: 2.0, 6: 3.0, 9: 4.5, 25: 1.25, 26: 1.3}, 5 * 29 / 30),
    "py-feat-2": (py_feat, "py-feat", ["--fps", "30"], {unit: 0.05 * unit for unit in ACTION_UNITS}, 5 * 29 / 30),
    "libreface-0.2": (libreface, "libreface", ["--picture", "640x480"], {u: u / 10 for u in ACTION_UNITS}, 2.9),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_each_tool(tmp_path, name, capsys):
    """Every column of the feature file from what the tool's documentation says of its own; AU12 grows."""
    make, tool, options, units, last = TABLES[name]
    table, features = imported(tmp_path, make(), tool, *options)
    assert tuple(table.columns) == COLUMNS and table["frame"].tolist() == list(range(1, 31))
    np.testing.assert_allclose(table["timestamp"], np.arange(30) / 30, atol=6e-4)
    np.testing.assert_allclose(table[[PITCH, YAW]], np.tile([0.7, 0.6], (30, 1)), atol=1e-9)
    assert (table[SCORE] == {"openface-2.2": 0.98, "openface-3.0": 0.99, "py-feat-2": 0.97}.get(name, 1)).all()
    for unit in ACTION_UNITS:
        if unit == 12:
            np.testing.assert_allclose(table["AU12"], np.linspace(0, last, 30), atol=6e-4)
        elif unit in units:
            np.testing.assert_allclose(table[f"AU{unit}"], units[unit], atol=6e-4)
        else:
            assert table[f"AU{unit}"].isna().all()
    assert valid_frames(features, config.FRAME_LIMITS).all()
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["estimator"] == name and settings["map"] == "1" and settings["estimator_version"]
    assert settings["ratios"] == "landmarks"
    out = capsys.readouterr().out
    assert f"Wrote 1 feature files to {tmp_path / 'out'}: {name}, 30 frames, 0 without a face." in out
    assert "30 frames are valid" in out
    assert ("AU5, AU15, AU17, AU20 are empty: openface-3.0 does not give them." in out) == (name == "openface-3.0")


def without(*beginnings):
    """A change of a table: columns are not there."""
    return lambda cells: cells[[name for name in cells if not name.startswith(beginnings)]]


@pytest.mark.parametrize(
    ("make", "tool", "options", "sign"),
    [(openface_2, "openface", [], 1), (py_feat, "py-feat", ["--fps", "30"], -1)],
)
def test_angles_where_there_are_no_landmarks(tmp_path, make, tool, options, sign, capsys):
    """OpenFace: radians, pitch positive downwards, yaw positive to the person's right; py-feat: pitch upwards."""
    names = ("pose_Rx", "pose_Ry") if tool == "openface" else ("Pitch", "Yaw")
    angles = np.radians([[0, 0], [-21.4, 0], [-22, 0], [0, 17.8], [0, -17.8], [0, 18], [15, 0]])
    cells, comma = make(len(angles))
    cells[list(names)] = angles * [sign, 1]
    table, features = imported(tmp_path, (without("x_", "y_")(cells), comma), tool, *options)
    np.testing.assert_allclose(table[PITCH], [0.714, 0.55, 0.544, 0.75, 0.75, 0.751, 0.771], atol=1e-3)
    np.testing.assert_allclose(table[YAW], [0.5, 0.5, 0.5, 0.301, 0.699, 0.298, 0.5], atol=1e-3)
    valid = [True, True, False, True, True, False, True]
    assert valid_frames(features, config.FRAME_LIMITS).tolist() == valid
    assert "Ratios come from angles, which tell valid frames badly" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["ratios"] == "angles"


def test_ratios_of_a_turned_head():
    """MediaPipe's canonical head, turned in space and seen from afar, has the ratios of the formula."""
    from mediapipe.modules.face_geometry.protos.geometry_pipeline_metadata_pb2 import GeometryPipelineMetadata

    from fergi.faces.alignment import face_frame
    from fergi.faces.landmarks import FACEMESH_POINTS

    metadata = GeometryPipelineMetadata()
    with zipfile.ZipFile(shared_folder("real") / "face_landmarker.task") as bundle:
        metadata.ParseFromString(bundle.read("geometry_pipeline_metadata_landmarks.binarypb"))
    head = np.array(metadata.canonical_mesh.vertex_buffer).reshape(-1, 5)[:, :3]  # right, up, towards the camera
    head = head[list(FACEMESH_POINTS)] * [1, -1, -1]
    for pitch in np.radians([-25, -10, 0, 10, 25]):
        for yaw in np.radians([-20, -10, 0, 10, 20]):
            around_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
            around_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
            turned = head @ (around_x @ around_y).T
            nose, eyes = turned[30], turned[36:48].mean(axis=0)
            assert (nose[0] - eyes[0]) * yaw <= 0  # to the person's right is to the left of the picture
            seen = face_frame(turned[:, :2] * 20)
            found = ratios_of_angles(pitch, yaw)
            at_once = 0.025 if pitch and yaw else 0.0025
            np.testing.assert_allclose(found, (seen.pitch_ratio, seen.yaw_ratio), atol=at_once, rtol=0)


def lost(*rows):
    """No face in some rows, as each tool says it."""

    def change(cells):
        cells = cells.astype(object)
        if "success" in cells:
            cells.loc[list(rows), "success"] = 0
        elif "action_units" in cells:
            cells.loc[list(rows), ["face_id", "face_detection", "landmarks", "action_units"]] = ""
        elif "FaceScore" in cells:
            numbers = [name for name in cells if name not in ("frame", "approx_time", "Identity")]
            cells.loc[list(rows), numbers] = ""
        else:
            return cells.drop(index=list(rows))
        return cells

    return change


@pytest.mark.parametrize("name", TABLES)
def test_frames_without_a_face(tmp_path, name, capsys):
    """They are as in every feature file, also where the tool leaves them out; the other frames stay in their places."""
    make, tool, options, *_ = TABLES[name]
    cells, comma = make()
    table, _ = imported(tmp_path, (lost(0, 7, 8)(cells), comma), tool, *options)
    lines = (tmp_path / "out" / "smile_features.csv").read_text().splitlines()
    assert len(table) == 30 and np.flatnonzero(table[SCORE] == 0).tolist() == [0, 7, 8]
    assert lines[8] == "8,0.233,0," + ",".join(["-1"] * 14)
    np.testing.assert_allclose(table["timestamp"], np.arange(30) / 30, atol=6e-4)
    assert "30 frames, 3 without a face" in capsys.readouterr().out


def with_a_second_face(cells):
    """In frame 5 a wider face, in front of the other in the table."""
    other = cells[cells.iloc[:, 0].index == 4].copy()
    for name in other:
        if name.startswith("x_"):
            other[name] = 2 * other[name]
    face = "face_id" if "face_id" in cells else "Identity"
    other[face] = 1 if face == "face_id" else "Person_1"
    other["AU12_r" if "AU12_r" in cells else "AU12"] = 0.5
    return pd.concat([cells[:4], other, cells[4:]], ignore_index=True)


@pytest.mark.parametrize(
    ("rule", "value"), [("first", 0.5), ("largest", 0.5), ("0", 0.4), ("1", 0.5)], ids=lambda each: str(each)
)
def test_one_of_several_faces(tmp_path, rule, value):
    """By place in the table, by width, or by name; a frame in which the named face is not is one without a face."""
    cells, comma = openface_2()
    table, _ = imported(tmp_path, (with_a_second_face(cells), comma), "openface", "--face", rule)
    assert table["AU12"][4] == value and len(table) == 30
    assert (table[SCORE] > 0).sum() == (1 if rule == "1" else 30)


def test_openface_3_repeats_the_first_face(tmp_path):
    """Rows of detections that it would itself not take for faces do not count as faces."""
    cells, comma = openface_3()
    cells["face_id"] = "0.0"  # as pandas writes it where frames have no face
    other = cells.assign(face_id="1.0", face_detection=str([0.0, 0.0, 9.0, 9.0, 0.03]))
    both = pd.concat([cells, other]).sort_values(["frame_index", "face_id"])
    table, _ = imported(tmp_path, (both, comma), "openface", "--fps", "30")
    assert len(table) == 30 and (table[SCORE] == 0.99).all()
    again, _ = imported(tmp_path, (both, comma), "openface", "--fps", "30", "--face", "0")
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("fps", [10, 24, 25, 60])
def test_other_frame_rates(tmp_path, fps):
    """From the table's times, or as --fps says; each third frame of a video has its own times."""
    times = [round(each / fps, 3) for each in range(40)]
    table, _ = imported(tmp_path / "a", openface_2(40, timestamp=times), "openface")
    np.testing.assert_allclose(table["timestamp"], times, atol=1e-9)
    table, _ = imported(tmp_path / "b", py_feat(40), "py-feat", "--fps", str(fps))
    np.testing.assert_allclose(table["timestamp"], times, atol=1e-9)
    table, _ = imported(tmp_path / "c", py_feat(40, frame=range(0, 120, 3)), "py-feat", "--fps", str(fps))
    np.testing.assert_allclose(table["timestamp"], np.arange(40) * 3 / fps, atol=6e-4)
    assert table["frame"].tolist() == list(range(1, 41))
    milliseconds = [1000 * each / fps for each in range(40)]
    options = ["--picture", "640x480"]
    table, _ = imported(tmp_path / "d", libreface(40, frame_time_in_ms=milliseconds), "libreface", *options)
    np.testing.assert_allclose(table["timestamp"], times, atol=6e-4)


def cell(column, value, row=2):
    """A change of one cell."""
    return lambda cells: cells.astype({column: object}).assign(
        **{column: [value if each == row else old for each, old in enumerate(cells[column])]}
    )


def text(change):
    """A change of the file."""
    change.of_text = True
    return change


FPS, SIZE = ["--fps", "30"], ["--picture", "640x480"]
# The table, what is changed, options, what the sentence says.
REFUSED = {
    "no column": (openface_2, without("AU04_r"), [], "has no column AU04_r"),
    "no confidence": (openface_2, without("confidence"), [], "has no column confidence"),
    "neither landmarks nor angles": (openface_2, without("x_", "pose_"), [], "has neither landmarks (columns x_0, …)"),
    "another tool": (py_feat, lambda cells: cells, [], "has no column confidence"),
    "text": (openface_2, cell("AU12_r", "high"), [], "line 4, column AU12_r: 'high' is not a number"),
    "face without an AU": (openface_2, cell("AU12_r", ""), [], "line 4: there is a face without AU12"),
    "two faces": (openface_2, with_a_second_face, [],
        "has several faces in 1 of 30 frames (first: frame 5, faces 1, 0)"),
    "no such face": (openface_2, with_a_second_face, ["--face", "7"], "has no face 7 (its faces: 0, 1)"),
    "no width": (openface_2, lambda cells: without("x_")(with_a_second_face(cells)), ["--face", "largest"],
        "has no landmarks, so that the largest face is not known"),
    "no times": (openface_2, without("timestamp"), [], "does not say when its frames were taken"),
    "no times, OpenFace 3.0": (openface_3, lambda cells: cells, [], "does not say when its frames were taken"),
    "another rate": (openface_2, lambda cells: cells, ["--fps", "25"], "has times of 30 frames a second, not 25"),
    "seconds for frames": (openface_2, lambda cells: cells.assign(frame=np.arange(30) / 30), [],
        "line 3, column frame: '0.03333333333333333' is no number of a frame; it looks like seconds"),
    "milliseconds for frames": (openface_2, lambda cells: cells.assign(frame=[0, *range(34, 991, 33)]), [],
        "has only 30 of the frames 0 to 958; do its numbers count frames?"),
    "frames for seconds": (openface_2, lambda cells: cells.assign(timestamp=range(30)), [],
        "its times grow by 1 a frame, so that they cannot be seconds"),
    "time stands still": (openface_2, cell("timestamp", "0.033"), [], "the time of frame 3 does not come after"),
    "cut off": (openface_2, text(lambda content: content[:-20]), [], "is cut off in line 31"),
    "cut off in the middle": (openface_2, text(lambda content: content[:-200] + "\n"), [], "line 31: "),
    "empty": (openface_2, text(lambda content: ""), [], "is empty"),
    "no rows": (openface_2, text(lambda content: content.partition("\n")[0] + "\n"), [], "has a header but no rows"),
    "a column twice": (openface_2, text(lambda content: content.replace("AU45_r", "AU04_r")), [], "two columns AU04_r"),
    "cut-off list": (openface_3, cell("action_units", "[[0.1, 0.2"), FPS,
        "line 4, column action_units: '[[0.1, 0.2' is not a list of numbers"),
    "five outputs": (openface_3, cell("action_units", "[1, 2, 3, 4, 5]"), FPS, "action_units: it must have 8 numbers"),
    "no size": (libreface, lambda cells: cells, [], "in shares of the picture; give its size with --picture 640x480"),
    "no landmark": (libreface, without("lm_mp_33_x"), SIZE, "has no column lm_mp_33_x"),
}  # fmt: skip
FROM = {openface_2: "openface", openface_3: "openface", py_feat: "py-feat", libreface: "libreface"}


@pytest.mark.parametrize("fault", REFUSED)
def test_unusable_table(tmp_path, fault):
    """One sentence with the file and the cause, beside a table that is good; nothing is written."""
    make, change, options, cause = REFUSED[fault]
    tool = "openface" if fault == "another tool" else FROM[make]
    written(make(), tmp_path / "tables" / "good.csv")
    path = tmp_path / "tables" / "smile.csv"
    cells, comma = make()
    if getattr(change, "of_text", False):
        written((cells, comma), path).write_text(change(path.read_text()))
    else:
        written((change(cells), comma), path)
    with pytest.raises(FergiError) as caught:
        import_features.main(["--from", tool, str(path), "--out", str(tmp_path / "out"), *options])
    message = str(caught.value)
    assert f"1 of 1 tables is unusable (first: {path}" in message and cause in message
    assert "\n" not in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--fps", "0.033"],
            "--fps counts frames a second, and 0.033 is none; it looks like the seconds of a frame, 30.3",
        ),
        (["--fps", "0"], "and 0 is none"),
        (["--picture", "640"], "--picture is width and height in pixels, like 640x480, not 640"),
    ],
)
def test_slips_on_the_command_line(tmp_path, options, message, capsys):
    """They are told."""
    with pytest.raises(SystemExit):
        import_features.main(["--from", "openface", "x.csv", "--out", str(tmp_path), *options])
    assert message in capsys.readouterr().err


def test_folders_and_what_is_there(tmp_path):
    """Subfolders are kept; one folder takes one estimator, and none that is not known; again changes nothing."""
    tables, out = tmp_path / "tables", tmp_path / "out"
    for name in ("101/session_1/reaction_clip_1", "101/session_1/baseline_clip_1"):
        written(openface_2(), tables / f"{name}.csv")
    command = ["--from", "openface", str(tables), "--out", str(out)]
    import_features.main(command)
    before = snapshot(out)
    files = [f"101/session_1/{kind}_clip_1_features.csv" for kind in ("baseline", "reaction")]
    assert list(before) == [*files, "settings.json"]
    import_features.main(command)
    assert snapshot(out) == before

    other = written(py_feat(), tmp_path / "other.csv")
    with pytest.raises(
        FergiError, match=r"estimator was 'openface-2\.2' .* now it is 'py-feat-2'\. Choose another --out"
    ):
        import_features.main(["--from", "py-feat", str(other), "--fps", "30", "--out", str(out)])
    new = written(openface_3(), tables / "new.csv")
    with pytest.raises(
        FergiError, match=r"2 estimators: openface-2\.2 \(first: .*\), openface-3\.0 \(first: .*new\.csv"
    ):
        import_features.main(["--from", "openface", str(tables), "--fps", "30", "--out", str(tmp_path / "both")])
    new.unlink()
    with pytest.raises(FergiError, match=r"would both write .*smile_features\.csv\. Rename one"):
        again = written(openface_2(), tables / "more" / "smile.csv"), written(openface_2(), tables / "smile.csv")
        import_features.main(["--from", "openface", *map(str, again), "--out", str(tmp_path / "both")])
    shutil.rmtree(tables / "more")
    (out / "settings.json").unlink()
    with pytest.raises(FergiError, match=r"has 2 feature files \(first: .*\) and no settings\.json"):
        import_features.main(command)
    with pytest.raises(FergiError, match="There is no CSV table in"):
        import_features.main(["--from", "openface", str(out), "--out", str(tmp_path / "both")])
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("make", [openface_2, openface_3])
def test_stages_6_to_9_follow(tiny_inputs, tmp_path, make, capsys):
    """A whole study from tables of a tool; what OpenFace 3.0 does not give stays empty, by name, to the end."""
    rng = np.random.default_rng(5)
    for path in sorted(tiny_inputs.root.glob("data/*/session_*/*_features.csv")):
        smile = np.linspace(0, 1, 30) * rng.uniform(0.2, 1)
        name = path.relative_to(tiny_inputs.root / "data").with_name(path.stem.removesuffix("_features") + ".csv")
        if make is openface_2:
            table = make(AU12_r=5 * smile, AU04_r=rng.uniform(0, 0.3, 30))
        else:
            outputs = [str([[0.1, 0.2, 0.05 * rng.random(), 0.6, 0.9, float(each), 0.25, 0.26]]) for each in smile]
            table = make(action_units=outputs)
        written(table, tmp_path / "tables" / name)
    shutil.rmtree(tiny_inputs.path("data"))
    data = str(tiny_inputs.path("data"))
    import_features.main(["--from", "openface", str(tmp_path / "tables"), "--fps", "30", "--out", data])
    tiny_inputs.run("preprocess_baseline_data")
    tiny_inputs.run("preprocess_reaction_data")
    tables = tiny_inputs.path("preparation/preprocessed_reaction_data")
    settings = json.loads((tables / "settings.json").read_text())
    table = pd.read_csv(tables / "102.csv")
    empty = [] if make is openface_2 else [5, 15, 17, 20]
    assert settings["missing_action_units"] == empty
    assert [unit for unit in ACTION_UNITS if table[f"AU{unit}_activation_value"].isna().any()] == empty
    out = capsys.readouterr().out
    assert ("19 clips x 8 AUs = 152 activation values.\nAU5, AU15, AU17, AU20 are empty: openface-3.0" in out) == bool(
        empty
    )
    tiny_inputs.run("filter_participants_based_on_AU4")
    tiny_inputs.run("image_preference_binary_classification_based_on_ranking")
    found = pd.read_csv(tiny_inputs.path("results/image_preference_binary_classification_based_on_ranking.csv"))
    assert len(found) == 4 and found.notna().all(axis=None)
