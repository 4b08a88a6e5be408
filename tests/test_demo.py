"""The demo: finished steps stay, interrupted ones resume, a change makes all anew; folders of others are refused."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fergi.files import FergiError
from fergi.script import CHECKOUT
from synthetic import demo
from synthetic.__main__ import main
from synthetic.claim import KEPT, MARKER, claim, clear
from synthetic.demo import SIZES, Step, run_steps, steps
from tests.filmed import snapshot

# Each script adds a line to log.txt, and writes its output from its input.
ROOT = "import os, pathlib, sys\nroot = pathlib.Path(os.environ['FERGI_ROOT'])\n"
ONE = ROOT + "(root / 'log.txt').open('a').write('one\\n')\n(root / 'one.txt').write_text(sys.argv[1])\n"
TWO = ROOT + "(root / 'log.txt').open('a').write('two' + (' again' if (root / 'part.txt').exists() else '') + '\\n')\n"
TWO += "(root / 'part.txt').write_text('half')\nif (root.parent / 'stop').exists(): raise SystemExit(7)\n"
TWO += "(root / 'two.txt').write_text((root / 'one.txt').read_text() * 2)\n"


@pytest.fixture
def study(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A project of two scripts, and a root."""
    home, root = tmp_path / "home", tmp_path / "root"
    (home / "fergi").mkdir(parents=True)
    for name, text in {"one.py": ONE, "two.py": TWO, "fergi/module.py": "", "requirements.txt": ""}.items():
        (home / name).write_text(text)
    monkeypatch.setattr(demo, "CHECKOUT", home)
    use_options(monkeypatch, "a")
    return home, root


def use_options(monkeypatch, text: str) -> None:
    """Give the first script another argument."""
    made = [Step("the first", ("one.py", text), "one.txt"), Step("the second", ("two.py",), "two.txt")]
    monkeypatch.setattr(demo, "steps", lambda root, size: made)


def done(root: Path) -> str:
    """What runs now."""
    log = root / "log.txt"
    log.unlink(missing_ok=True)
    try:
        run_steps(root, SIZES["smoke"])
    finally:
        said = " ".join(log.read_text().split("\n")).strip() if log.exists() else ""
    return said


def test_each_step_is_done_once(study, capfd):
    """The second time nothing has changed; what was lost is made again."""
    _, root = study
    assert done(root) == "one two"
    assert (root / "two.txt").read_text() == "aa"
    assert done(root) == ""
    assert capfd.readouterr().out.count("nothing has changed") == 2
    (root / "two.txt").unlink()
    assert done(root) == "two again"
    assert (root / "two.txt").read_text() == "aa"


@pytest.mark.parametrize("changed", ["two.py", "fergi/module.py", "requirements.txt", "new.ipynb", "the options"])
def test_a_change_makes_everything_anew(study, monkeypatch, changed):
    """Of the code, the packages or the options; nothing stays of what was made before."""
    home, root = study
    done(root)
    (root / "people" / "of another cohort").mkdir(parents=True)
    if changed == "the options":
        use_options(monkeypatch, "b")
    else:
        (home / changed).write_text(TWO + "# changed\n")
    assert done(root) == "one two"
    assert (root / "two.txt").read_text() == ("bb" if changed == "the options" else "aa")
    assert not (root / "people").exists()
    (home / "notes.txt").write_text("no code")
    assert done(root) == ""


def test_an_interrupted_step_resumes(study):
    """It finds what it wrote; the step before stays."""
    _, root = study
    (root.parent / "stop").touch()
    with pytest.raises(FergiError, match=r"Step 2 of 2, the second, ended with exit code 7;.* run the same command"):
        done(root)
    (root.parent / "stop").unlink()
    assert done(root) == "two again"
    assert (root / "two.txt").read_text() == "aa"


SLEEPER = "import os, pathlib, time\npathlib.Path(os.environ['FERGI_ROOT'], 'pid').write_text(str(os.getpid()))\n"
SLEEPER += "time.sleep(100)\n"
TERMINATED = """
import sys
from pathlib import Path
from fergi.script import run
from synthetic import __main__, demo
demo.CHECKOUT = Path(sys.argv[1])
demo.steps = lambda root, size: [demo.Step("the sleeper", ("sleeper.py",), "")]
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
    assert how == signal.SIGKILL or "Interrupted; finished files are complete." in said
    until = time.monotonic() + 10
    while runs(int((root / "pid").read_text())):
        assert time.monotonic() < until, "the step runs on"
        time.sleep(0.05)


# Scripts that are no stage of the paper.
OF_OWN_PEOPLE = {
    *("collect_sessions.py", "cut_clips.py", "delete_participant.py", "import_features.py"),
    *("finetune_scorer.py", "finetune_generator.py"),  # which ``synthetic tuned`` calls
    *("train_face_generator.py", "synthesise_faces.py", "correct_labels.py"),
}


def test_every_script_has_its_place(tmp_path):
    """Each stage is a step, and each part of this package but the demos themselves."""
    made = [step.command for step in steps(tmp_path, SIZES["demo"])]
    scripts = {path.name for path in CHECKOUT.glob("*_*.py")} - OF_OWN_PEOPLE
    assert {command[0] for command in made if command[0] != "-m"} == scripts
    assert {command[2] for command in made if command[:2] == ("-m", "synthetic")} == {
        *("cohort", "scorers", "audience", "generator", "tuned", "compare")
    }


def test_nothing_is_tuned_where_nothing_is_planted(tmp_path):
    """Faces without an effect give no pairs; every other step stays."""
    demo_size = SIZES["demo"]
    without = steps(tmp_path, replace(demo_size, cohort=replace(demo_size.cohort, strength=0.0)))
    left_out = [step.name for step in steps(tmp_path, demo_size) if step.name not in {each.name for each in without}]
    assert left_out == [name for name, *_ in demo.TUNED]
    assert without[-2].command[2] == "compare"


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
    monkeypatch.setattr("synthetic.recordings.items_from_workers", begin)
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
    monkeypatch.setattr("synthetic.claim.CHECKOUT", project)
    monkeypatch.setenv("HOME", str(home))
    before = snapshot(tmp_path)
    for root in (project, project.parent, home, home.parent, tmp_path):
        with pytest.raises(FergiError, match=r"cannot be taken for synthetic data.* Nothing was changed"):
            main([*command, "--root", str(root)])
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_in_the_place_of_the_folder(tmp_path, idle, command):
    """One sentence."""
    (tmp_path / "root").write_text("dear to me")
    with pytest.raises(FergiError, match=r"Cannot write into .*choose another --root"):
        main([*command, "--root", str(tmp_path / "root")])
    assert (tmp_path / "root").read_text() == "dear to me"


def test_synthetic_data_are_cleared_away(tmp_path):
    """All but the file that says what the folder is, and what is kept unless everything is to go."""
    root = tmp_path / "demo"
    claim(root)
    (root / KEPT / "generator").mkdir(parents=True)
    clear(root)
    assert (root / KEPT / "generator").is_dir()
    clear(root, everything=True)
    for name in ("data/008/session_1/data.json", "figures/figure_3.png", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for _ in range(2):
        clear(root)
        assert list(snapshot(tmp_path)) == [f"demo/{MARKER}"] and len(list(root.iterdir())) == 1


def test_impossible_strength_is_refused(tmp_path):
    """Before anything is made."""
    with pytest.raises(FergiError, match="strength must be from 0 to 5, not 7"):
        main(["demo", "--root", str(tmp_path), "--strength", "7"])
    assert not any(tmp_path.iterdir())
