"""A disk that is full: a tmpfs of a few pages, seen by one command only, or a limit on the files of this process."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")
CHECKOUT = Path(__file__).resolve().parent.parent
# The disk is gone with the command, so what is on it then is copied away first.
IN_A_NAMESPACE = """
mount -t tmpfs -o size="$1" tmpfs "$2" && cp -a "$3/." "$2" || exit 99
disk=$2; left=$4; shift 4
"$@"
code=$?
cp -a "$disk/." "$left"
exit $code
"""


@contextmanager
def largest_file(size: int):
    """No file of this process can grow beyond ``size`` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_with_room_for(pages: int, root: Path, folder: Path, script: str, *options: str) -> tuple[Path, str]:
    """Run a script of the project on a copy of ``root`` on a disk that has ``pages`` free.

    Parameters
    ----------
    pages : int
        How many pages of memory what the script writes may take; each begun one counts.
    root : Path
        What is on the disk at first; stays as it is.
    folder : Path
        Where the disk is mounted and what was on it at the end is copied to.
    script : str
        Its name.
    *options : str
        ``{disk}`` among them stands for the copy.

    Returns
    -------
    left : Path
        What was on the disk when the script had failed.
    message : str
        Its sentence on standard error.
    """
    if shutil.which("unshare") is None:
        pytest.skip("a full disk cannot be made without unshare (util-linux)")
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces, so that a full disk cannot be made")
    disk, left = folder / "disk", folder / "left"
    disk.mkdir(parents=True)
    left.mkdir()
    used = sum(-(-path.stat().st_size // PAGE) for path in root.rglob("*") if path.is_file())
    done = subprocess.run(
        [
            *("unshare", "--map-root-user", "--mount", "sh", "-c", IN_A_NAMESPACE, "sh"),
            *(str((used + pages) * PAGE), str(disk), str(root), str(left)),
            *(sys.executable, str(CHECKOUT / script), *(option.format(disk=disk) for option in options)),
        ],
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    # Python's tracker of resources may have the last word: about a worker that was ended while it ended by itself.
    return left, next(line for line in reversed(done.stderr.splitlines()) if line.startswith(f"{script}: "))
