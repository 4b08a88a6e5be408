"""Writing all or nothing; reading with an error that names the file, the place and the cause."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import CHECKOUT

from fergi.files import (
    FergiError,
    check_writable,
    read_json,
    read_table,
    read_tables,
    replacing,
    require,
    summarise,
    write_json,
    write_table,
    write_tables,
)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failing_write_leaves_the_old_file(tmp_path, error):
    """Whatever interrupts the block, the old content stays and nothing lies beside it."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half of the new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_failing_first_write_leaves_nothing(tmp_path):
    """Without an old file there is none afterwards either."""
    with pytest.raises(ValueError), replacing(tmp_path / "table.csv") as file:
        file.write(b"half")
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_disk_full_while_writing_is_one_sentence(tmp_path):
    """An error of the disk becomes an error for the person at the terminal."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with pytest.raises(FergiError, match=r"Cannot write .*table\.csv: No space left on device"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_killed_while_writing_leaves_the_old_file(tmp_path):
    """A process that dies without a chance to clean up has not touched the file."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    program = (
        "import os, sys; from pathlib import Path; from fergi.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, path], cwd=CHECKOUT, check=False)
    assert ended.returncode == -9
    assert path.read_bytes() == b"old"


TABLES = ("1.csv", "2.csv", "3.csv")


def write_three(folder, value):
    """Three tables that belong together."""
    write_tables({folder / name: pd.DataFrame({"x": [value]}) for name in TABLES})


def values(folder):
    """What is in them now."""
    assert sorted(os.listdir(folder)) == list(TABLES)
    return [int(pd.read_csv(folder / name).x.iloc[0]) for name in TABLES]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_tables_that_belong_together_stay_old_if_one_cannot_be_synced(tmp_path, monkeypatch, failing):
    """None takes its name before all are on the disk."""
    write_three(tmp_path, 1)
    calls = []

    def sync(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(FergiError, match=rf"Cannot write .*{failing}\.csv: No space left on device"):
        write_three(tmp_path, 2)
    assert values(tmp_path) == [1, 1, 1]


def test_tables_that_belong_together_stay_old_if_a_name_is_taken(tmp_path):
    """A folder of the last one's name is found before the first one is renamed."""
    write_three(tmp_path, 1)
    (tmp_path / "3.csv").unlink()
    (tmp_path / "3.csv").mkdir()
    with pytest.raises(FergiError, match=r"Cannot write .*3\.csv: Is a directory"):
        write_three(tmp_path, 2)
    (tmp_path / "3.csv").rmdir()
    (tmp_path / "3.csv").write_text("x\n1\n")
    assert values(tmp_path) == [1, 1, 1]


@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
def test_a_process_that_is_killed_between_two_renames(tmp_path, renamed):
    """As documented: the first ones new, the others old, each whole; and running again mends it."""
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
    there = [int(pd.read_csv(tmp_path / name).x.iloc[0]) for name in TABLES]
    assert there == [2] * renamed + [1] * (3 - renamed)
    write_three(tmp_path, 3)
    assert values(tmp_path) == [3, 3, 3]


def test_old_content_is_there_until_the_block_ends(tmp_path):
    """A reader in between sees the old file, a reader afterwards the new one."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_new_file_has_the_usual_permissions(tmp_path):
    """Readable as the umask says, not only for the owner as temporary files are."""
    old = os.umask(0o022)
    try:
        write_json([], tmp_path / "list.json")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "list.json").stat().st_mode) == 0o644


def test_folder_is_made_on_the_way(tmp_path):
    """A first run needs no empty folders prepared."""
    write_json({"a": [1]}, tmp_path / "new" / "folder" / "list.json")
    assert json.loads((tmp_path / "new" / "folder" / "list.json").read_text()) == {"a": [1]}


def test_file_where_the_folder_should_be(tmp_path):
    """Neither writing nor the check before the work can use it, and both say so."""
    (tmp_path / "results").write_text("a file")
    with pytest.raises(FergiError, match=r"Cannot write into .*results: File exists"):
        check_writable(tmp_path / "results")
    with pytest.raises(FergiError, match=r"Cannot write .*results/table\.csv: File exists"):
        write_json([], tmp_path / "results" / "table.csv")
    assert (tmp_path / "results").read_text() == "a file"


def test_folder_where_the_file_should_be(tmp_path):
    """The name is taken; the temporary file goes away again."""
    (tmp_path / "list.json").mkdir()
    with pytest.raises(FergiError, match=r"Cannot write .*list\.json"):
        write_json([], tmp_path / "list.json")
    assert os.listdir(tmp_path) == ["list.json"]


def test_check_writable_leaves_nothing(tmp_path):
    """The check makes the folder and no file."""
    check_writable(tmp_path / "results")
    assert os.listdir(tmp_path / "results") == []


def test_floats_keep_every_digit(tmp_path):
    """What is read back has the same bits."""
    table = pd.DataFrame({"x": [0.1 + 0.2, 1 / 3, 5e-324, 1e300, -0.0, 0.6000000000000001]})
    write_table(table, tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", float_precision="round_trip")["x"].to_numpy()
    assert read.tobytes() == table["x"].to_numpy().tobytes()


def test_summary_counts_and_names_the_first():
    """How many of how many, the first one, what to do; one is singular."""
    assert str(summarise(["b: cut", "c: cut"], 33, "files", "Run it.")) == (
        "2 of 33 files are unusable (first: b: cut). Run it."
    )
    assert str(summarise(["b: cut"], 33, "files", "Run it.")) == "1 of 33 files is unusable (first: b: cut). Run it."


def test_require_names_the_first_missing_file(tmp_path):
    """A folder of that name is not the file."""
    (tmp_path / "a").write_text("")
    (tmp_path / "b").mkdir()
    require([tmp_path / "a"], "files", "Run it.")
    with pytest.raises(FergiError) as caught:
        require([tmp_path / "a", tmp_path / "b", tmp_path / "c"], "files", "Run it.")
    assert str(caught.value) == f"2 of 3 files are missing (first: {tmp_path / 'b'}). Run it."


def test_json_that_is_none(tmp_path):
    """Cut-off JSON is named with the advice."""
    (tmp_path / "list.json").write_text('{"101": [1, 2')
    with pytest.raises(FergiError, match=r"list\.json is not JSON: .*\. Run it\."):
        read_json(tmp_path / "list.json", "Run it.")


GOOD = "session_index,image_index,felt,name,score\n1,1,True,x,0.5\n1,2,False,y,1e-3\n"


def read(tmp_path, text, **options):
    """Read a table of this text."""
    path = tmp_path / "101.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, **{"key": ("session_index", "image_index"), "numeric": ("score",), **options})


def test_table_has_the_wanted_columns_in_order(tmp_path):
    """Key, then numbers; True and False are numbers; the rest is left out."""
    table = read(tmp_path, GOOD, key=("image_index", "session_index"), numeric=("score", "felt"))
    expected = pd.DataFrame(
        {"image_index": [1, 2], "session_index": [1, 1], "score": [0.5, 0.001], "felt": [1.0, 0.0]},
    )
    pd.testing.assert_frame_equal(table, expected, check_exact=True)


def test_table_with_a_text_key_keeps_leading_zeros(tmp_path):
    """Participants are called 001, not 1."""
    table = read(tmp_path, "user_id,score\n001,1\n002,2\n", key=(), text_key=("user_id",))
    assert table["user_id"].tolist() == ["001", "002"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "101.csv is empty"),
        (GOOD.splitlines()[0] + "\n", "101.csv has a header but no rows"),
        (GOOD.replace(",score", ""), "101.csv has no column score"),
        (GOOD.replace("0.5", "0.5,9").replace("1e-3", "1e-3,9"), "101.csv has more values in its rows than names"),
        (GOOD.replace("score", "points"), "101.csv has no column score"),
        (GOOD.replace("0.5", "half"), "101.csv, line 2, column score: 'half' is not a number"),
        (GOOD.replace("1e-3", ""), "101.csv, line 3, column score: nothing is not a number"),
        (GOOD.replace("1e-3", "nan"), "101.csv, line 3, column score: nothing is not a number"),
        (GOOD.replace("1e-3", "inf"), "101.csv, line 3, column score: 'inf' is not a number"),
        (GOOD.replace("1,2,False", "1.5,2,False"), "101.csv, line 3, column session_index: '1.5' is not a whole"),
        (GOOD.replace("1,2,False", ",2,False"), "101.csv, line 3, column session_index: nothing is not a whole"),
        (GOOD.replace("1,2,False", "1,1,False"), "101.csv, line 3: session_index 1, image_index 1 stands there twice"),
        (GOOD.replace("0.5", '"0.5'), "101.csv is not a CSV table"),
        (GOOD.encode().replace(b"x", b"\xff"), "101.csv is not a CSV table"),
        (GOOD.replace(",1e-3", ""), "101.csv, line 3, column score: nothing is not a number"),
        (GOOD + "1,3,True,z,1,2\n", "101.csv is not a CSV table"),
    ],
    ids=range(16),
)
def test_unusable_table(tmp_path, text, cause):
    """Each with the file, the line and the column where there is one."""
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert cause in str(caught.value)


def test_table_cut_off_inside_its_last_number(tmp_path):
    """0.4321 cut to 0.4 is a number, and the wrong one."""
    with pytest.raises(ValueError, match=r"101\.csv is cut off in line 3"):
        read(tmp_path, GOOD.replace("1e-3", "0.4321")[:-4])


def test_missing_table_and_folder_in_place_of_a_table(tmp_path):
    """The operating system's reason is passed on."""
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="Is a directory"):
        read_table(tmp_path)


def test_tables_name_the_missing_participants(tmp_path):
    """As many as there are, the first of them, and which script to run."""
    (tmp_path / "101.csv").write_text(GOOD)
    options = {"key": ("session_index", "image_index"), "numeric": ("score",), "advice": "Run it first."}
    with pytest.raises(FergiError) as caught:
        read_tables(tmp_path, ["101", "102", "103"], **options)
    assert str(caught.value) == f"2 of 3 participants have no table in {tmp_path} (first: 102.csv). Run it first."


def test_tables_name_the_first_unusable_one(tmp_path):
    """All are looked at before the sentence is made."""
    for participant, text in {"101": GOOD, "102": "", "103": ""}.items():
        (tmp_path / f"{participant}.csv").write_text(text)
    options = {"key": ("session_index", "image_index"), "numeric": ("score",), "advice": "Run it first."}
    with pytest.raises(FergiError) as caught:
        read_tables(tmp_path, ["101", "102", "103"], **options)
    assert str(caught.value) == (f"2 of 3 tables are unusable (first: {tmp_path / '102.csv'} is empty). Run it first.")
    tables = read_tables(tmp_path, ["101"], **options)
    assert list(tables) == ["101"]
    np.testing.assert_array_equal(tables["101"]["score"], [0.5, 0.001])


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    """And what a living one is writing is not."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom fergi.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n"
        "    if sys.argv[2] == 'killed':\n        os.kill(os.getpid(), 9)\n"
        "    print('here', flush=True)\n    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "table.csv")]
    subprocess.run([*command, "killed"], cwd=CHECKOUT, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with subprocess.Popen(
        [*command, "alive"], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "here\n"
        with replacing(tmp_path / "table.csv") as file:
            file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 2
        other.communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_bytes() == b"half"
