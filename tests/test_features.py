"""The feature CSV: what is read, which frames are valid, and what is refused."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from conftest import clip_text

import config
from fergi.features import (
    COLUMNS,
    NO_FACE,
    PUBLISHED_ESTIMATOR,
    ClipFeatures,
    estimator_of,
    format_clip,
    read_clips,
    require_known_estimator,
    require_one_estimator,
    valid_frames,
)
from fergi.files import FergiError

CLIP = clip_text(np.arange(48).reshape(4, 12) / 8)


def write(folder, name, text):
    """A file of this text."""
    path = folder / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


def test_clips_one_after_another(tmp_path):
    """Two clips of 4 and 2 frames: starts 0, 4, 6, and the second one's numbers in its own rows."""
    paths = [write(tmp_path, "a.csv", CLIP), write(tmp_path, "b.csv", clip_text(np.full((2, 12), 0.25)))]
    features, problems = read_clips(paths)
    assert problems == []
    assert features.starts.tolist() == [0, 4, 6]
    assert features.lengths.tolist() == [4, 2]
    assert features.column("frame").tolist() == [1, 2, 3, 4, 1, 2]
    assert features.column("timestamp").tolist() == [0.0, 0.033, 0.067, 0.1, 0.0, 0.033]
    np.testing.assert_array_equal(features.intensities[:4], np.arange(48).reshape(4, 12) / 8)
    np.testing.assert_array_equal(features.intensities[4:], 0.25)
    assert features.column("AU26").tolist() == [11 / 8, 23 / 8, 35 / 8, 47 / 8, 0.25, 0.25]


def test_line_ends_of_another_system(tmp_path):
    """Carriage returns before line feeds change nothing, nor does a byte order mark."""
    expected, _ = read_clips([write(tmp_path, "a.csv", CLIP)])
    features, problems = read_clips([write(tmp_path, "b.csv", "\ufeff" + CLIP.replace("\n", "\r\n"))])
    assert problems == []
    np.testing.assert_array_equal(features.values, expected.values)


def test_an_interruption_is_no_fault_of_the_files(tmp_path, monkeypatch):
    """What pandas makes of Ctrl-C, if it comes while it reads."""

    def interrupted(*_, **__):
        raise pd.errors.ParserError("Error tokenizing data. C error: Calling read(nbytes) on source failed.")

    path = write(tmp_path, "a.csv", CLIP)
    monkeypatch.setattr(pd, "read_csv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_clips([path])


@pytest.mark.parametrize(
    ("confidence", "pitch", "yaw", "valid"),
    [
        (0.9, 0.55, 0.3, True),
        (0.9, 0.85, 0.7, True),
        (1.0, 0.7, 0.5, True),
        (0.899, 0.7, 0.5, False),
        (0.95, 0.549, 0.5, False),
        (0.95, 0.851, 0.5, False),
        (0.95, 0.7, 0.299, False),
        (0.95, 0.7, 0.701, False),
        (0.0, -1.0, -1.0, False),
    ],
)
def test_valid_frames_include_their_bounds(confidence, pitch, yaw, valid):
    """The bounds of Appendix C belong to the valid side; a frame without a face is not valid."""
    values = np.zeros((1, len(COLUMNS)))
    values[0, 2:5] = confidence, pitch, yaw
    assert valid_frames(ClipFeatures(np.array([0, 1]), values), config.FRAME_LIMITS).tolist() == [valid]


def line(number, change):
    """A change of one line of the clip."""

    def changed(text):
        lines = text.splitlines()
        lines[number - 1] = change(lines[number - 1])
        return "\n".join(lines) + "\n"

    return changed


def cell(number, column, value):
    """A change of one cell of the clip."""

    def changed(row):
        cells = row.split(",")
        cells[COLUMNS.index(column)] = value
        return ",".join(cells)

    return line(number, changed)


def with_columns(columns):
    """A change of the columns and their order."""
    return lambda text: pd.read_csv(io.StringIO(text), dtype=str)[list(columns)].to_csv(index=False)


def repeat_line(number, times):
    """A change that writes a line so often."""
    return lambda text: "".join(
        f"{row}\n" * (times if i == number else 1) for i, row in enumerate(text.splitlines(), 1)
    )


UNUSABLE = {
    "empty": (lambda text: "", " is empty"),
    "no frames": (lambda text: text.splitlines()[0] + "\n", " has a header but no frames"),
    "header cut off": (lambda text: text[:20], " has no column face_detection_confidence_score"),
    "cut off in a line": (lambda text: text[:-10], " is cut off in line 5"),
    "cut off at its last number": (lambda text: text[:-1], " is cut off in line 5"),
    "no column": (with_columns(name for name in COLUMNS if name != "AU12"), " has no column AU12"),
    "another column": (lambda text: text.replace("AU12", "AU13"), " has no column AU12"),
    "one column more": (
        lambda text: "".join(f"{row},{'AU45' if row[0] == 'f' else 1}\n" for row in text.splitlines()),
        " has 18 columns instead of 17 (first other: AU45)",
    ),
    "other order": (with_columns([*COLUMNS[:-2], *COLUMNS[:-3:-1]]), " has its columns in another order"),
    "text": (cell(3, "AU4", "high"), ", line 3, column AU4: 'high' is not a number"),
    "decimal comma": (cell(3, "AU4", "0,5"), ", line 3: 18 values instead of 17"),
    "quotes": (cell(3, "AU4", '"0.5"'), ", line 3: there is something else than numbers and commas"),
    "empty cell": (cell(3, "AU4", ""), ", line 3, column AU4: it is empty, and not in every row with a face"),
    "empty ratio": (cell(3, "yaw_indicative_ratio", ""), ", line 3, column yaw_indicative_ratio: '' is not a number"),
    "NA": (cell(3, "AU4", "NA"), ", line 3, column AU4: 'NA' is not a number"),
    "NaN": (cell(5, "AU26", "nan"), ", line 5, column AU26: 'nan' is not a number"),
    "infinite": (cell(2, "frame", "inf"), ", line 2, column frame: 'inf' is not a number"),
    "too large": (cell(2, "AU1", "1e999"), ", line 2, column AU1: '1e999' is not a number"),
    "row too long": (line(4, lambda row: row + ",1"), ", line 4: 18 values instead of 17"),
    "row too short": (line(4, lambda row: row.rsplit(",", 1)[0]), ", line 4: 16 values instead of 17"),
    "blank line": (lambda text: text + "\n", ", line 6: 1 values instead of 17"),
    "missing frame": (repeat_line(3, 0), ", line 3: frame 3 instead of frame 2"),
    "missing first frame": (repeat_line(2, 0), ", line 2: frame 2 instead of frame 1"),
    "duplicate row": (repeat_line(3, 2), ", line 4: frame 2 instead of frame 3"),
    "time backwards": (cell(4, "timestamp", "0.020"), ", line 4: time 0.02 s does not come after 0.033 s"),
    "time stands still": (cell(4, "timestamp", "0.033"), ", line 4: time 0.033 s does not come after 0.033 s"),
    # These stop pandas' parser itself.
    "one quote": (cell(3, "AU4", '"0.5'), ", line 3: there is something else than numbers and commas"),
    "not UTF-8": (cell(3, "AU4", "\udcff"), ", line 3: there is something else than numbers and commas"),
    "a value in the next line": (
        lambda text: line(3, lambda row: row.rsplit(",", 1)[0])(line(4, lambda row: row + ",1")(text)),
        ", line 3: 16 values instead of 17",
    ),
    "zero bytes": (lambda text: "\0" * len(text), " has no column frame"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_unusable_file(tmp_path, fault):
    """Refused between two good files, with its name, the place and the cause, once, whatever its position."""
    change, cause = UNUSABLE[fault]
    good, bad = write(tmp_path, "good.csv", CLIP), write(tmp_path, "bad.csv", change(CLIP))
    for order in ([bad], [bad, good], [good, bad], [good, bad, good]):
        _, problems = read_clips(order)
        assert len(problems) == 1
        assert problems[0].startswith(f"{bad}{cause}")


def test_missing_and_unreadable_paths(tmp_path):
    """Every unusable file is named, not only the first, and once, with its first line that is wrong."""
    good = write(tmp_path, "good.csv", CLIP)
    _, problems = read_clips([tmp_path / "none.csv", good, tmp_path])
    assert problems == [f"{tmp_path / 'none.csv'}: No such file or directory", f"{tmp_path}: Is a directory"]
    bad = [write(tmp_path, f"{number}.csv", repeat_line(number, 0)(CLIP)) for number in (2, 3)]
    _, problems = read_clips(bad)
    assert [problem.split(":")[0] for problem in problems] == [f"{bad[0]}, line 2", f"{bad[1]}, line 3"]


# ---- estimators that do not give every AU


def test_an_au_that_the_estimator_does_not_give(tmp_path):
    """It is empty in every row with a face, also where frames have none; another clip in the same call may have it."""
    values = np.tile([0.95, 0.7, 0.5, *range(12)], (4, 1))
    values[:, 3 + 5] = np.nan  # AU9
    values[2] = NO_FACE
    path = tmp_path / "a.csv"
    path.write_bytes(format_clip(np.arange(4) / 30, values, 3))
    rows = path.read_text().splitlines()
    assert rows[1].split(",")[COLUMNS.index("AU9")] == "" and rows[3] == "3,0.067,0" + ",-1" * 14
    text = path.read_text()
    for content in (text, cell(4, "AU9", "")(text)):
        features, problems = read_clips([write(tmp_path, "a.csv", content), write(tmp_path, "b.csv", CLIP)])
        assert problems == []
        with_face = features.column("face_detection_confidence_score") > 0
        empty = np.isnan(features.values[with_face])
        assert empty[:3, COLUMNS.index("AU9")].all() and empty.sum() == 3
        assert features.column("AU9")[4:].tolist() == [5 / 8, 17 / 8, 29 / 8, 41 / 8]


def test_an_au_that_is_empty_here_and_there(tmp_path):
    """A gap is no AU that is not given: every file with one is named, with its first empty cell."""
    gaps = [write(tmp_path, f"{line}.csv", cell(line, "AU26", "")(CLIP)) for line in (2, 5)]
    lost = write(tmp_path, "lost.csv", cell(4, "AU2", "")(cell(4, COLUMNS[2], "0")(CLIP)))
    _, problems = read_clips([write(tmp_path, "good.csv", CLIP), *gaps, lost])
    rest = "it is empty, and not in every row with a face"
    assert problems == [
        f"{gaps[0]}, line 2, column AU26: {rest}",
        f"{gaps[1]}, line 5, column AU26: {rest}",
        f"{lost}, line 4, column AU2: {rest}",
    ]


# ---- which estimator


def settings(folder, **content):
    """A folder with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(content))
    return folder


def test_the_nearest_settings_count(tmp_path):
    """Up to the folder of all data; older settings name a checkpoint only; other settings say nothing."""
    data = settings(tmp_path / "data", estimator="blendshapes", estimator_version="64184e, 1", device="cpu")
    settings(tmp_path, estimator="another", estimator_version="above the data")
    own = settings(data / "101", checkpoint_sha256="abc", network="ir50")
    session, other = own / "session_1", data / "102" / "session_1"
    for folder in (session, other):
        folder.mkdir(parents=True)
    settings(session, study="a test")
    assert estimator_of(session, data) == estimator_of(own) == {"estimator": "fergi", "estimator_version": "abc"}
    blendshapes = {"estimator": "blendshapes", "estimator_version": "64184e, 1"}
    assert estimator_of(other, data) == estimator_of(data) == blendshapes
    assert estimator_of(other) == estimator_of(tmp_path / "none", tmp_path / "none") == PUBLISHED_ESTIMATOR
    assert require_one_estimator([other, data / "none"], data) == blendshapes
    assert require_one_estimator([], data) == PUBLISHED_ESTIMATOR
    with pytest.raises(FergiError) as caught:
        require_one_estimator([other, session, own], data)
    assert f"2 estimators: blendshapes 64184e, 1 in {other}, fergi abc in {session}. " in str(caught.value)
    published = [folder / "clip_features.csv" for folder in (data / "103", data / "104")]
    for path in (*published, session / "clip_features.csv"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    require_known_estimator(data)
    (data / "settings.json").unlink()
    require_known_estimator(data, own=published)
    with pytest.raises(FergiError, match=rf"has 1 feature files \(first: {published[1]}\) and no settings\.json"):
        require_known_estimator(data, own=published[:1])
    for content, message in (("[1]", "does not map settings to their values"), ("{", "is not JSON")):
        (own / "settings.json").write_text(content)
        with pytest.raises(FergiError, match=message):
            estimator_of(own)
