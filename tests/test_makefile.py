"""How ``make`` comes to Python 3.11, with stand-ins for the programs that may be on the path."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CHECKOUT

TOOLS = ("make", "touch", "sh", "rm", "cat", "chmod", "mkdir")
# Stand-ins note how they were called. Pythons of the right version make environments with a pip that does nothing.
PYTHON = """#!/bin/sh
case "$*" in
*version_info*) exit {wrong};;
*"-m venv"*) echo "{name} $*" >> "$LOG"; {environment};;
esac
"""
UV = """#!/bin/sh
echo "{name} $*" >> "$LOG"
{environment}
"""
ENVIRONMENT = "mkdir -p .venv/bin; echo '#!/bin/sh' > .venv/bin/pip; chmod +x .venv/bin/pip"


@pytest.fixture
def machine(tmp_path):
    """A folder with the Makefile, and a path on which nothing is but the tools that make itself needs."""
    for tool in TOOLS:
        (tmp_path / "path").mkdir(exist_ok=True)
        (tmp_path / "path" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "checkout").mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(CHECKOUT / name, tmp_path / "checkout")
    return tmp_path


def stand_in(path: Path, text: str, **values) -> None:
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(name=path, environment=ENVIRONMENT, **values))
    path.chmod(0o755)


def make_setup(machine: Path, *options: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """``make setup`` there, and which stand-ins made an environment."""
    log = machine / "log"
    log.touch()
    env = {"PATH": str(machine / "path"), "HOME": str(machine / "home"), "LOG": str(log)}
    done = subprocess.run(
        [shutil.which("make"), "setup", *options], cwd=machine / "checkout", env=env, capture_output=True, text=True
    )
    return done, log.read_text().splitlines()


def test_python_of_the_path_comes_first(machine):
    """Of several the one of the right version, before pyenv's and uv."""
    stand_in(machine / "path/python3.11", PYTHON, wrong=1)
    stand_in(machine / "path/python3", PYTHON, wrong=0)
    stand_in(machine / "home/.pyenv/versions/3.11.7/bin/python", PYTHON, wrong=0)
    stand_in(machine / "path/uv", UV)
    done, log = make_setup(machine)
    assert done.returncode == 0, done.stderr
    assert log == [f"{machine}/path/python3 -m venv --clear .venv"]
    assert (machine / "checkout/.venv/complete").exists()


def test_then_pyenvs_versions(machine):
    """Whatever else is there, and before uv."""
    stand_in(machine / "path/python3", PYTHON, wrong=1)
    stand_in(machine / "path/uv", UV)
    stand_in(machine / "home/.pyenv/versions/3.12.1/bin/python", PYTHON, wrong=1)
    stand_in(machine / "home/.pyenv/versions/3.11.7/bin/python", PYTHON, wrong=0)
    done, log = make_setup(machine)
    assert done.returncode == 0, done.stderr
    assert log == [f"{machine}/home/.pyenv/versions/3.11.7/bin/python -m venv --clear .venv"]


@pytest.mark.parametrize("place", ["path/uv", "checkout/.uv/bin/uv"])
def test_then_uv_which_fetches_it(machine, place):
    """On the path, or where the message below puts it."""
    stand_in(machine / "path/python3", PYTHON, wrong=1)
    stand_in(machine / place, UV)
    done, log = make_setup(machine)
    assert done.returncode == 0, done.stderr
    (line,) = log
    assert line.endswith("uv venv --clear --seed --python 3.11 .venv")
    assert (machine / "checkout/.venv/complete").exists()


def test_without_any_of_them(machine):
    """One message with the three ways and a command to paste."""
    stand_in(machine / "path/python3", PYTHON, wrong=1)
    done, log = make_setup(machine)
    assert done.returncode != 0 and log == []
    message = done.stderr.splitlines()[0]
    assert message.startswith("Python 3.11 is missing: it is neither on the path")
    assert "Paste: python3 -m venv .uv && .uv/bin/pip install uv && make setup" in message
    assert "pyenv install 3.11" in message and "make PYTHON=/path/to/python3.11" in message


def test_a_python_that_is_named(machine):
    """Is taken, or refused if it is of another version."""
    stand_in(machine / "path/python3.11", PYTHON, wrong=0)
    stand_in(machine / "mine", PYTHON, wrong=0)
    stand_in(machine / "old", PYTHON, wrong=1)
    done, log = make_setup(machine, f"PYTHON={machine / 'mine'}")
    assert done.returncode == 0 and log == [f"{machine / 'mine'} -m venv --clear .venv"]
    shutil.rmtree(machine / "checkout/.venv")
    done, log = make_setup(machine, f"PYTHON={machine / 'old'}")
    assert done.returncode != 0 and len(log) == 1
    assert f"{machine / 'old'} is not Python 3.11, which requirements.txt needs." in done.stderr


def test_make_here_has_one():
    """The Makefile works with the programs that are really there."""
    shown = subprocess.run(["make", "-n", "python"], cwd=CHECKOUT, env=os.environ, capture_output=True, text=True)
    assert shown.returncode == 0 and "Error" not in shown.stderr
