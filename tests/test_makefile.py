"""How ``make`` finds Python 3.11, with stand-ins for the programs that may be on the path."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CHECKOUT

TOOLS = ("make", "touch", "sh", "rm", "cat", "chmod", "mkdir")
# Stand-ins write down how they were called. Those of 3.11 and uv make environments with a pip that does nothing.
STAND_IN = """#!/bin/sh
case "$*" in
*version_info*) exit {wrong};;
*"venv --clear"*) echo "$0 $*" >> "$LOG"; mkdir -p .venv/bin; echo '#!/bin/sh' > .venv/bin/pip; chmod +x .venv/bin/pip;;
esac
"""
RIGHT, WRONG = 0, 1
NO_PYTHON = (
    "Python 3.11 is missing: it is neither on the path",
    "Paste: python3 -m venv .uv && .uv/bin/pip install uv && make setup",
    "pyenv install 3.11",
    "make PYTHON=/path/to/python3.11",
)


def make_setup(machine: Path, programs: dict[str, int], *options: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """``make setup`` where only ``programs`` and make's own tools are, and which of them made an environment."""
    for tool in TOOLS:
        (machine / "path").mkdir(exist_ok=True)
        (machine / "path" / tool).symlink_to(shutil.which(tool))
    (machine / "checkout").mkdir()
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(CHECKOUT / name, machine / "checkout")
    for name, wrong in programs.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(STAND_IN.format(wrong=wrong))
        (machine / name).chmod(0o755)
    log = machine / "log"
    log.touch()
    env = {"PATH": str(machine / "path"), "HOME": str(machine / "home"), "LOG": str(log)}
    command = [shutil.which("make"), "setup", *(option.format(machine) for option in options)]
    done = subprocess.run(command, cwd=machine / "checkout", env=env, capture_output=True, text=True)
    return done, log.read_text().splitlines()


PYENV_11, PYENV_12 = (f"home/.pyenv/versions/{version}/bin/python" for version in ("3.11.7", "3.12.1"))
PYTHON_MAKES, UV_MAKES = "-m venv --clear .venv", "venv --clear --seed --python 3.11 .venv"


PATH_3, PATH_11, UV = "path/python3", "path/python3.11", "path/uv"


@pytest.mark.parametrize(
    ("programs", "options", "expected"),
    [
        ({PATH_11: WRONG, PATH_3: RIGHT, PYENV_11: RIGHT, UV: RIGHT}, (), f"{PATH_3} {PYTHON_MAKES}"),
        ({PATH_3: WRONG, UV: RIGHT, PYENV_12: WRONG, PYENV_11: RIGHT}, (), f"{PYENV_11} {PYTHON_MAKES}"),
        ({PATH_3: WRONG, UV: RIGHT}, (), f"{UV} {UV_MAKES}"),
        ({PATH_3: WRONG, "checkout/.uv/bin/uv": RIGHT}, (), f".uv/bin/uv {UV_MAKES}"),
        ({PATH_11: RIGHT, "mine": RIGHT}, ("PYTHON={}/mine",), f"mine {PYTHON_MAKES}"),
    ],
)
def test_which_program_makes_the_environment(tmp_path, programs, options, expected):
    """Python of the path, then one of pyenv's, then uv (on the path or where the message puts it); or the one named."""
    done, log = make_setup(tmp_path, programs, *options)
    assert done.returncode == 0, done.stderr
    (line,) = log
    assert line.endswith(expected)
    assert (tmp_path / "checkout/.venv/complete").exists()


OLD_PYTHON = ("/old is not Python 3.11, which requirements",)


@pytest.mark.parametrize(
    ("programs", "options", "messages"),
    [
        ({PATH_3: WRONG}, (), NO_PYTHON),
        ({PATH_11: RIGHT, "old": WRONG}, ("PYTHON={}/old",), OLD_PYTHON),
    ],
)
def test_without_python_3_11(tmp_path, programs, options, messages):
    """One message with what to do, and no environment."""
    done, log = make_setup(tmp_path, programs, *options)
    assert done.returncode != 0 and log == []
    for message in messages:
        assert message in done.stderr.splitlines()[0]


def test_make_here_has_one():
    """The Makefile works with the programs that are really there."""
    shown = subprocess.run(["make", "-n", "python"], cwd=CHECKOUT, env=os.environ, capture_output=True, text=True)
    assert shown.returncode == 0 and "Error" not in shown.stderr
