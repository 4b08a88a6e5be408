"""The demo's steps: done once, again when something that they depend on has changed, and going on if interrupted."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import config
from fergi.files import FergiError
from fergi.synthetic import demo
from fergi.synthetic.__main__ import main
from fergi.synthetic.demo import HOME, SIZES, Step, clear, imported_files, run_steps, steps

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
    root.mkdir()
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
from fergi.synthetic import __main__, demo
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


def test_a_step_ends_with_the_demo(study):
    """Told to end, the demo leaves no process behind that would write on."""
    home, root = study
    (home / "sleeper.py").write_text(SLEEPER)
    command = [sys.executable, "-c", TERMINATED, str(home), str(root)]
    running = subprocess.Popen(command, cwd=config.ROOT, stderr=subprocess.PIPE, text=True)
    while not (root / "pid").exists() or not (root / "pid").read_text():
        assert running.poll() is None
        time.sleep(0.05)
    running.terminate()
    assert "Interrupted; every finished file is whole." in running.communicate(timeout=30)[1]
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


def test_only_a_demo_is_cleared_away(tmp_path):
    """A folder of somebody's own files is left alone."""
    (tmp_path / "mine.txt").write_text("dear to me")
    with pytest.raises(FergiError, match="was not made by the demo"):
        clear(tmp_path)
    assert (tmp_path / "mine.txt").exists()
    (tmp_path / ".steps").mkdir()
    clear(tmp_path)
    assert not tmp_path.exists()


def test_impossible_strength_is_refused(tmp_path):
    """Before anything is made."""
    with pytest.raises(FergiError, match="strength must be an intensity from 0 to 5, not 7"):
        main(["demo", "--root", str(tmp_path), "--strength", "7"])
    assert not any(tmp_path.iterdir())
