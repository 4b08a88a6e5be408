"""The demo's steps: done once, again when something that they depend on has changed, and going on if interrupted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fergi.files import FergiError
from fergi.script import CHECKOUT
from synthetic import demo
from synthetic.__main__ import main
from synthetic.claim import MARKER, claim, clear
from synthetic.demo import HOME, SIZES, Step, imported_files, run_steps, steps
from tests.filmed import snapshot

# Each script adds a line to log.txt, and writes its output from its input.
ONE = "from parts.one import text\nimport os, pathlib\nroot = pathlib.Path(os.environ['FERGI_ROOT'])\n"
ONE += "(root / 'log.txt').open('a').write('one\\n')\n(root / 'one.txt').write_text(text)\n"
TWO = "import os, pathlib\nroot = pathlib.Path(os.environ['FERGI_ROOT'])\n"
TWO += "(root / 'log.txt').open('a').write('two' + (' again' if (root / 'part.txt').exists() else '') + '\\n')\n"
TWO += "(root / 'part.txt').write_text('half')\nif (root / 'stop').exists(): raise SystemExit(7)\n"
TWO += "(root / 'two.txt').write_text((root / 'one.txt').read_text() * 2)\n"


@pytest.fixture
def study(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A project of two scripts, and a root."""
    home, root = tmp_path / "home", tmp_path / "root"
    (home / "parts").mkdir(parents=True)
    claim(root)
    for name, text in {
        "one.py": ONE,
        "two.py": TWO,
        "parts/__init__.py": "",
        "parts/one.py": "text = 'a'\n",
        "requirements.txt": "",
    }.items():
        (home / name).write_text(text)
    made = [
        Step("the first", ("one.py",), writes=("one.txt",)),
        Step("the second", ("two.py",), reads=("one.txt",), writes=("two.txt", "part.txt")),
    ]
    monkeypatch.setattr(demo, "HOME", home)
    monkeypatch.setattr(demo, "steps", lambda root, size: made)
    return home, root


def done(root: Path) -> str:
    """What was run since the last look."""
    log = root / "log.txt"
    text = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return " ".join(text.split("\n")).strip()


def test_each_step_is_done_once(study, capfd):
    """The second time nothing has changed."""
    _, root = study
    run_steps(root, SIZES["smoke"])
    assert done(root) == "one two"
    assert (root / "two.txt").read_text() == "aa"
    run_steps(root, SIZES["smoke"])
    assert done(root) == ""
    assert capfd.readouterr().out.count("nothing has changed") == 2


@pytest.mark.parametrize(
    ("file", "text", "expected", "what_comes_out"),
    [
        ("parts/one.py", "text = 'b'\n", "one two", "bb"),  # a module that the first imports
        ("parts/one.py", "text = 'a'  # a comment\n", "one", "aa"),  # it gives the same, so the second need not run
        ("two.py", TWO.replace("* 2", "* 3"), "two", "aaa"),
        ("requirements.txt", "other", "one two", "aa"),
        ("unused.py", "", "", "aa"),
    ],
)
def test_only_what_changed_is_done_again(study, file, text, expected, what_comes_out):
    """Code, what it imports, packages and files that are read decide."""
    home, root = study
    run_steps(root, SIZES["smoke"])
    done(root)
    (home / file).write_text(text)
    run_steps(root, SIZES["smoke"])
    assert done(root) == expected
    assert (root / "two.txt").read_text() == what_comes_out


def test_a_lost_or_changed_output_is_made_again(study):
    """Even if nothing that the step depends on has changed."""
    _, root = study
    run_steps(root, SIZES["smoke"])
    done(root)
    (root / "two.txt").unlink()
    run_steps(root, SIZES["smoke"])
    assert done(root) == "two"
    (root / "one.txt").write_text("tampered with")
    run_steps(root, SIZES["smoke"])
    assert done(root) == "one"
    assert (root / "two.txt").read_text() == "aa"


def test_an_interrupted_step_goes_on_and_a_changed_one_begins_anew(study):
    """What an unfinished step wrote stays for it to go on from, unless it would now be made otherwise."""
    home, root = study
    (root / "stop").touch()
    with pytest.raises(FergiError, match=r"Step 2 of 2, the second, ended with exit code 7;.* run the same again"):
        run_steps(root, SIZES["smoke"])
    assert done(root) == "one two"
    with pytest.raises(FergiError):
        run_steps(root, SIZES["smoke"])
    assert done(root) == "two again"
    (home / "two.py").write_text(TWO + "# changed\n")
    with pytest.raises(FergiError):
        run_steps(root, SIZES["smoke"])
    assert done(root) == "two"
    (root / "stop").unlink()
    run_steps(root, SIZES["smoke"])
    assert done(root) == "two again"
    assert (root / "two.txt").read_text() == "aa"


SLEEPER = "import os, pathlib, time\npathlib.Path(os.environ['FERGI_ROOT'], 'pid').write_text(str(os.getpid()))\n"
SLEEPER += "time.sleep(100)\n"
TERMINATED = """
import sys
from pathlib import Path
from fergi.script import run
from synthetic import __main__, demo
demo.HOME = Path(sys.argv[1])
demo.steps = lambda root, size: [demo.Step("the sleeper", ("sleeper.py",))]
run(lambda arguments: __main__.main(["demo", "--root", sys.argv[2]]))
"""


def runs(process: int) -> bool:
    """Whether there is such a process, other than one that has ended and waits to be noticed."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_ends_with_the_demo(study, how):
    """Told to end, or killed, the demo leaves no process behind that would write on."""
    home, root = study
    (home / "sleeper.py").write_text(SLEEPER)
    command = [sys.executable, "-c", TERMINATED, str(home), str(root)]
    running = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    while not (root / "pid").exists() or not (root / "pid").read_text():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(how)
    said = running.communicate(timeout=30)[1]
    assert how == signal.SIGKILL or "Interrupted; every finished file is whole." in said
    until = time.monotonic() + 10
    while runs(int((root / "pid").read_text())):
        assert time.monotonic() < until, "the step runs on"
        time.sleep(0.05)


def test_a_broken_record_counts_as_none(study):
    """Half a file of a killed machine."""
    _, root = study
    run_steps(root, SIZES["smoke"])
    done(root)
    (root / ".steps" / "02.json").write_text('{"key"')
    run_steps(root, SIZES["smoke"])
    assert done(root) == "two"


def test_every_step_names_files_that_exist_and_reads_what_was_written(tmp_path):
    """No step reads what only a later one writes; every script has its place."""
    made = steps(tmp_path, SIZES["demo"])
    scripts = [step.command[0] for step in made if step.command[0].endswith(".py")]
    there = {path.name for path in HOME.glob("*.py")} - {"config.py"}
    assert set(scripts) == there
    for step in made:
        for source in demo._sources(step):
            assert source.is_file(), source
    written: list[str] = []
    for step in made:
        for pattern in step.reads:
            stem = pattern.split("*")[0]
            assert any(stem.startswith(other.split("*")[0]) or other.startswith(stem) for other in written), pattern
        written += step.writes


def test_imports_are_followed(tmp_path):
    """Through packages, other modules, functions and notebooks; not into libraries."""
    for name, text in {
        "a.py": "import numpy\nfrom b import c\n",
        "b/__init__.py": "",
        "b/c.py": "def f():\n    from d import e\n",
        "d.py": "e = 1\n",
        "z.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    cells = [{"cell_type": "markdown", "source": ["import z"]}, {"cell_type": "code", "source": ["import a\n", "1"]}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    found = imported_files([tmp_path / "n.ipynb"], tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        *("n.ipynb", "a.py", "b/__init__.py", "b/c.py", "d.py")
    }


def test_nothing_is_left_of_people_who_are_no_longer_there(tmp_path, monkeypatch):
    """Not even their folders, which stages would take for people."""
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    (home / "requirements.txt").touch()
    script = "import os, pathlib, sys\nfor name in sys.argv[1:]:\n"
    script += "    folder = pathlib.Path(os.environ['FERGI_ROOT'], 'people', name, 'films')\n"
    script += "    folder.mkdir(parents=True, exist_ok=True)\n    (folder / 'film').touch()\n"
    (home / "film.py").write_text(script)
    monkeypatch.setattr(demo, "HOME", home)
    for people in (("one", "two"), ("one",)):
        made = [Step("films", ("film.py", *people), writes=("people/**/*",))]
        monkeypatch.setattr(demo, "steps", lambda root, size, made=made: made)
        run_steps(root, SIZES["smoke"])
        assert sorted(path.name for path in (root / "people").iterdir()) == list(people)


def test_a_change_of_the_verdict_does_not_film_again(tmp_path):
    """What depends on the comparison and on the folds; films and scorers on neither."""
    made = {step.name: imported_files(demo._sources(step), HOME) for step in steps(tmp_path, SIZES["demo"])}
    stages_9 = {f"stage 9: preferences, {name}" for name in ("paper mode", "released mode", "strict folds")}
    verdict = "planted and recovered"
    for changed, depending in {
        "recovery": {verdict},
        "__main__": set(),
        "scorers": {"scorers: tiny networks with weights"},
        "recordings": {"cohort: people, pictures, films", verdict},
    }.items():
        path = HOME / "fergi" / "synthetic" / f"{changed}.py"
        assert {name for name, files in made.items() if path in files} == depending, changed
    depending = {name for name, files in made.items() if HOME / "fergi" / "preference" / "results.py" in files}
    assert depending == {*stages_9, "intervals of the results", verdict, "stage 10: the notebook"}


# Folders of somebody's own

OWN = (
    *("data/012/session_1/data.json", "data/012/session_1/image1.png", "data/012/session_1/reaction_clip_1.mp4"),
    *("FER_datasets/DISFA/Videos_LeftCamera/LeftVideoSN001_comp.avi", "truth/notes.txt"),
    "pretrained_models/HPS_v2_compressed.pt",
)
COMMANDS = (["demo", "--size", "smoke"], ["demo", "--size", "smoke", "--afresh"], ["cohort"], ["scorers"])


@pytest.fixture
def idle(monkeypatch) -> None:
    """A folder that should have been refused fails the test before the long work."""

    def begin(*arguments, **options) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr("synthetic.demo.subprocess.run", begin)
    monkeypatch.setattr("synthetic.recordings.ProcessPoolExecutor", begin)
    monkeypatch.setattr("synthetic.scorers._draw_examples", begin)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("own", [*OWN, "linked"])
def test_own_files_are_left_alone(tmp_path, idle, command, own):
    """In one sentence; not a byte is changed or added, also where a folder of synthetic data leads to them."""
    root, message = tmp_path / "root", "was not made by python -m synthetic"
    (tmp_path / "mine" / own).parent.mkdir(parents=True)
    (tmp_path / "mine" / own).write_text("dear to me")
    if own == "linked":
        claim(root)
        (root / "pretrained_models").symlink_to(tmp_path / "mine")
        message = "pretrained_models is a link"
    else:
        (tmp_path / "mine").rename(root)
    before = snapshot(tmp_path)
    with pytest.raises(FergiError, match=rf"{message}.* Nothing was changed; .*--root\.$"):
        main([*command, "--root", str(root)])
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_neither_the_project_nor_a_home_is_taken(tmp_path, idle, monkeypatch, command):
    """Nor what holds them, even if it says that it is synthetic. Both stand in for the real ones here."""
    project, home = tmp_path / "one" / "project", tmp_path / "other" / "me"
    for each in (project, home):
        claim(each)
    monkeypatch.setattr("synthetic.claim.HOME", project)
    monkeypatch.setenv("HOME", str(home))
    before = snapshot(tmp_path)
    for root in (project, project.parent, home, home.parent, tmp_path):
        with pytest.raises(FergiError, match=r"cannot be taken for synthetic data.* Nothing was changed"):
            main([*command, "--root", str(root)])
    assert snapshot(tmp_path) == before
    assert CHECKOUT == HOME


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_in_the_place_of_the_folder(tmp_path, idle, command):
    """One sentence."""
    (tmp_path / "root").write_text("dear to me")
    with pytest.raises(FergiError, match=r"Cannot write into .*choose another --root"):
        main([*command, "--root", str(tmp_path / "root")])
    assert (tmp_path / "root").read_text() == "dear to me"


@pytest.mark.parametrize("left", [MARKER, ".steps/01.json", "data/synthetic.json"])
def test_synthetic_data_are_known_and_cleared_away(tmp_path, left):
    """By what this version or an earlier one left; folders inside the project may be taken as well."""
    root = tmp_path / "demo"
    for name in (left, "data/008/session_1/data.json", "figures/figure_3.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    clear(root)
    assert list(snapshot(tmp_path)) == [f"demo/{MARKER}"] and len(list(root.iterdir())) == 1
    clear(root)


def test_impossible_strength_is_refused(tmp_path):
    """Before anything is made."""
    with pytest.raises(FergiError, match="strength must be an intensity from 0 to 5, not 7"):
        main(["demo", "--root", str(tmp_path), "--strength", "7"])
    assert not any(tmp_path.iterdir())
