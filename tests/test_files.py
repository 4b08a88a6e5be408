"""Writing all or nothing; reading with an error that names the file, the place and the cause."""

import json
import os
import stat
import subprocess
import sys

import pandas as pd
import pytest
from conftest import CHECKOUT, snapshot

from fergi.files import (
    FergiError,
    check_writable,
    different_settings,
    keep_settings,
    read_json,
    read_table,
    read_tables,
    replacing,
    require,
    write_json,
    write_table,
    write_tables,
)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")])
@pytest.mark.parametrize("old", [b"old", None])
def test_failing_write_leaves_the_old_file(tmp_path, error, old):
    """Whatever interrupts the block: the old content, or no file, and nothing beside it. Disk errors are explained."""
    path = tmp_path / "table.csv"
    if old:
        path.write_bytes(old)
    full = isinstance(error, OSError)
    message = r"Cannot write .*table\.csv: No space left on device\. Make room" if full else ""
    with pytest.raises(FergiError if full else error, match=message), replacing(path) as file:
        file.write(b"half of the new")
        raise error
    assert snapshot(tmp_path) == ({"table.csv": old} if old else {})


TABLES = ("1.csv", "2.csv", "3.csv")


def write_three(folder, value):
    """Three tables that belong together."""
    write_tables({folder / name: pd.DataFrame({"x": [value]}) for name in TABLES})


def three(*values):
    """Their contents, for a comparison with all that is in the folder."""
    return {name: f"x\n{value}\n".encode() for name, value in zip(TABLES, values, strict=True)}


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_tables_that_belong_together_stay_old_if_one_cannot_be_synced(tmp_path, monkeypatch, failing):
    """None is renamed before all are on the disk."""
    write_three(tmp_path, 1)
    calls = []

    def sync(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(FergiError, match=rf"Cannot write .*{failing}\.csv: No space left on device"):
        write_three(tmp_path, 2)
    assert snapshot(tmp_path) == three(1, 1, 1)


def test_names_that_are_taken(tmp_path):
    """By a folder where the file should be, for the last of three tables, too; by a file where the folder should be."""
    write_three(tmp_path, 1)
    (tmp_path / "3.csv").unlink()
    (tmp_path / "3.csv").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(FergiError, match=r"Cannot write .*3\.csv: Is a directory"):
        write_three(tmp_path, 2)
    with pytest.raises(FergiError, match=r"Cannot write .*3\.csv: Is a directory"):
        write_json([], tmp_path / "3.csv")
    with pytest.raises(FergiError, match=r"Cannot write into .*2\.csv: File exists"):
        check_writable(tmp_path / "2.csv")
    with pytest.raises(FergiError, match=r"Cannot write .*2\.csv/table\.csv: File exists"):
        write_json([], tmp_path / "2.csv" / "table.csv")
    check_writable(tmp_path / "results")  # makes the folder and no file
    assert snapshot(tmp_path) == before and (tmp_path / "3.csv").is_dir() and (tmp_path / "results").is_dir()


@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
def test_a_process_that_is_killed_between_two_renames(tmp_path, renamed):
    """As documented: the first ones new, the others old, each complete; and running again repairs it."""
    write_three(tmp_path, 1)
    program = (
        "import os, sys\nfrom pathlib import Path\nimport pandas as pd\nfrom fergi.files import write_tables\n"
        "rename, left = os.replace, [int(sys.argv[2])]\n"
        "def replace(*names):\n"
        "    if not left[0]:\n        os.kill(os.getpid(), 9)\n"
        "    left[0] -= 1\n    rename(*names)\n"
        "os.replace = replace\n"
        "write_tables({Path(sys.argv[1], f'{n}.csv'): pd.DataFrame({'x': [2]}) for n in (1, 2, 3)})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path, str(renamed)], cwd=CHECKOUT, check=False)
    assert ended.returncode == (0 if renamed == 3 else -9)
    assert snapshot(tmp_path, "*.csv") == three(*[2] * renamed, *[1] * (3 - renamed))
    write_three(tmp_path, 3)
    assert snapshot(tmp_path) == three(3, 3, 3)


def test_old_content_is_there_until_the_block_ends(tmp_path):
    """A reader in between gets the old file, a reader afterwards the new one."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert snapshot(tmp_path) == {"table.csv": b"new"}


def test_new_file_and_folder(tmp_path):
    """The folder is made on the way. The file is readable as the umask says, not only for its owner."""
    path, old = tmp_path / "new" / "folder" / "list.json", os.umask(0o022)
    try:
        write_json({"a": [1]}, path)
    finally:
        os.umask(old)
    assert json.loads(path.read_text()) == {"a": [1]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_floats_keep_every_digit(tmp_path):
    """What is read back has the same bits."""
    table = pd.DataFrame({"x": [0.1 + 0.2, 1 / 3, 5e-324, 1e300, -0.0, 0.6000000000000001]})
    write_table(table, tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", float_precision="round_trip")["x"].to_numpy()
    assert read.tobytes() == table["x"].to_numpy().tobytes()


def test_missing_files_and_json_that_is_none(tmp_path):
    """How many are missing, and the first; a folder of that name is not the file. Cut-off JSON is named."""
    (tmp_path / "a").write_text('{"101": [1, 2')
    (tmp_path / "b").mkdir()
    require([tmp_path / "a"], "files", "Run it.")
    with pytest.raises(FergiError) as caught:
        require([tmp_path / "a", tmp_path / "b", tmp_path / "c"], "files", "Run it.")
    assert str(caught.value) == f"2 of 3 files are missing (first: {tmp_path / 'b'}). Run it."
    with pytest.raises(FergiError, match=r"/a is not JSON: .*\. Run it\."):
        read_json(tmp_path / "a", "Run it.")


GOOD = "session_index,image_index,felt,name,score\n1,1,True,x,0.5\n1,2,False,y,1e-3\n"


def read(tmp_path, text, **options):
    """Read a table of this text."""
    path = tmp_path / "101.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return read_table(path, **{"key": ("session_index", "image_index"), "numeric": ("score",), **options})


def test_table_has_the_wanted_columns_in_order(tmp_path):
    """Key, then numbers; True and False are numbers; no other column. A text key keeps leading zeros."""
    table = read(tmp_path, GOOD, key=("image_index", "session_index"), numeric=("score", "felt"))
    expected = {"image_index": [1, 2], "session_index": [1, 1], "score": [0.5, 0.001], "felt": [1.0, 0.0]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_exact=True)
    table = read(tmp_path, "user_id,score\n001,1\n002,2\n", key=(), text_key=("user_id",))
    assert table["user_id"].tolist() == ["001", "002"]


CELL = ", line 3, column "


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", " is empty"),
        (GOOD.splitlines()[0] + "\n", " has a header but no rows"),
        (GOOD.replace(",score", ""), " has no column score"),
        (GOOD.replace("0.5", "0.5,9").replace("1e-3", "1e-3,9"), " has more values in its rows than names"),
        (GOOD.replace("score", "points"), " has no column score"),
        (GOOD.replace("0.5", "half"), ", line 2, column score: 'half' is not a number"),
        (GOOD.replace("1e-3", ""), f"{CELL}score: nothing is not a number"),
        (GOOD.replace("1e-3", "nan"), f"{CELL}score: nothing is not a number"),
        (GOOD.replace("1e-3", "inf"), f"{CELL}score: 'inf' is not a number"),
        (GOOD.replace("1,2,False", "1.5,2,False"), f"{CELL}session_index: '1.5' is not a whole"),
        (GOOD.replace("1,2,False", ",2,False"), f"{CELL}session_index: nothing is not a whole"),
        (GOOD.replace("1,2,False", "1,1,False"), ", line 3: session_index 1, image_index 1 appears twice"),
        (GOOD.replace("0.5", '"0.5'), " is not a CSV table"),
        (GOOD.replace("x", "\udcff"), " is not a CSV table"),
        (GOOD.replace(",1e-3", ""), f"{CELL}score: nothing is not a number"),
        (GOOD + "1,3,True,z,1,2\n", " is not a CSV table"),
        (GOOD.replace("1e-3", "0.4321")[:-4], " is cut off in line 3"),  # 0.4 is a number, and the wrong one
    ],
    ids=range(17),
)
def test_unusable_table(tmp_path, text, cause):
    """Each with the file, the line and the column where there is one."""
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / '101.csv'}{cause}")


def test_missing_table_and_folder_in_place_of_a_table(tmp_path):
    """The operating system's reason is passed on."""
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="Is a directory"):
        read_table(tmp_path)


def test_tables_name_the_missing_and_the_unusable_ones(tmp_path):
    """As many as there are, the first of them, and which script to run; missing ones before any is read."""

    def read_three():
        key, advice = ("session_index", "image_index"), "Run it first."
        return read_tables(tmp_path, ["101", "102", "103"], key=key, numeric=("score",), advice=advice)

    (tmp_path / "101.csv").write_text(GOOD)
    for change, message in (
        (lambda path: path.touch(), f"2 of 3 participants have no table in {tmp_path} (first: 102.csv)"),
        (lambda path: path.write_text(GOOD), f"2 of 3 tables are unusable (first: {tmp_path / '102.csv'} is empty)"),
    ):
        with pytest.raises(FergiError) as caught:
            read_three()
        assert str(caught.value) == f"{message}. Run it first."
        for participant in ("102", "103"):
            change(tmp_path / f"{participant}.csv")
    assert [table["score"].tolist() for table in read_three().values()] == [[0.5, 0.001]] * 3


def test_settings_of_outputs(tmp_path):
    """Written once, then compared; missing keys count as equal."""
    path = tmp_path / "settings.json"
    assert different_settings({"luma": "released"}, path) is None
    keep_settings({"luma": "released"}, path, "Use the same.")
    keep_settings({"luma": "released", "device": "cpu"}, path, "Use the same.")
    assert json.loads(path.read_text()) == {"luma": "released"}
    assert different_settings({"luma": "correct", "device": "cpu"}, path) == {"luma": ("released", "correct")}
    message = (
        r"settings\.json says that luma was 'released' for the files that are there, and now it is 'correct'\. Use"
    )
    with pytest.raises(FergiError, match=message):
        keep_settings({"luma": "correct"}, path, "Use the same.")


def test_a_killed_writer(tmp_path):
    """The old file is as it was. The next writer removes what the killed one left, and nothing of a running one."""
    (tmp_path / "table.csv").write_bytes(b"old")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom fergi.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n"
        "    if sys.argv[2] == 'killed':\n        os.kill(os.getpid(), 9)\n"
        "    print('here', flush=True)\n    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "table.csv")]
    assert subprocess.run([*command, "killed"], cwd=CHECKOUT, check=False).returncode == -9
    assert (tmp_path / "table.csv").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    with subprocess.Popen(
        [*command, "alive"], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "here\n"
        with replacing(tmp_path / "table.csv") as file:
            file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 2
        other.communicate("\n")
    assert snapshot(tmp_path) == {"table.csv": b"half"}
