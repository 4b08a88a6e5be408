"""Fetch what the authors published, verified, into the shared folders.

Reads   the release's repository at a pinned commit (git), or a local copy of it
Writes  data/                              per-frame features of all clips
        preparation/                       sessions, black images, ratings, ranks and scores of images
        results/published/                 the release's own values of what stages 6 to 9 compute, to compare with
Run     python -m fergi.published
        FERGI_DATA=DIR python -m fergi.published       from a local copy instead
        FERGI_REMOTE=URL python -m fergi.published     from another git remote
Takes   about 100 MB; a second call finds everything in place and fetches nothing.

Every file is checked against published_files.txt before it is put in place, so what is there is whole.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from fergi.files import FergiError, check_writable, sha256, summarise
from fergi.script import argument_parser, run

REPOSITORY = "https://github.com/ShuangquanFeng/FERGI"
COMMIT = "02c8a2f121d5263702c8f7a6208984c757f7157c"  # the newest one lacks the list of excluded participants
PATHS = (
    "/data/",
    "/preparation/",
    "/results/image_preference_binary_classification_based_on_ranking.csv",
)
# What the stages compute themselves is kept apart, to compare with.
COMPUTED = (
    "preparation/preprocessed_baseline_data/",
    "preparation/preprocessed_reaction_data/",
    "preparation/AU4_excluded_participants.json",
    "results/",
)
FEATURE_FILES = "*_features.csv"
LIST = Path(__file__).with_name("published_files.txt")


@dataclass(frozen=True)
class Entry:
    """A published file, or the feature files of one session.

    Attributes
    ----------
    path : str
        Where it is in the repository; a session's folder ends with a slash.
    sha256 : str
        Of the file. Of a session: of the lines that ``sha256sum *_features.csv`` prints in its folder.
    """

    path: str
    sha256: str

    def files(self, folder: Path) -> list[Path]:
        """Its files below a copy of the repository, by name."""
        if self.path.endswith("/"):
            return sorted((folder / self.path).glob(FEATURE_FILES))
        return [folder / self.path] if (folder / self.path).is_file() else []

    @property
    def place(self) -> "Entry":
        """The same with the path at which it belongs below the root."""
        if self.path.startswith(COMPUTED):
            _, *rest = PurePosixPath(self.path).parts
            return Entry(str(PurePosixPath("results", "published", *rest)), self.sha256)
        return self


def digest(files: Sequence[Path], session: bool) -> str:
    """SHA-256 of a file, or of a session's files as in ``Entry``."""
    sums = [sha256(file) for file in files]
    if not session:
        return sums[0]
    lines = "".join(f"{each}  {file.name}\n" for each, file in zip(sums, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def list_entries(folder: Path) -> list[Entry]:
    """The entries that a copy of the repository has: this is how published_files.txt was made."""
    sessions = [f"{path.relative_to(folder).as_posix()}/" for path in folder.glob("data/*/session_*")]
    tables = [path.relative_to(folder).as_posix() for path in folder.glob("preparation/**/*") if path.is_file()]
    results = [path for path in (PATHS[-1].removeprefix("/"),) if (folder / path).is_file()]
    entries = [Entry(path, "") for path in sorted([*sessions, *tables, *results])]
    return [Entry(each.path, digest(each.files(folder), each.path.endswith("/"))) for each in entries]


def read_entries(path: Path = LIST) -> list[Entry]:
    """The list of published files: lines of SHA-256, two spaces, path."""
    return [Entry(line[66:], line[:64]) for line in path.read_text(encoding="utf-8").splitlines()]


def _state(entry: Entry, folder: Path) -> str:
    """``missing``, ``whole`` or ``different``."""
    files = entry.files(folder)
    if not files:
        return "missing"
    return "whole" if digest(files, entry.path.endswith("/")) == entry.sha256 else "different"


def _states(entries: Sequence[Entry], folder: Path, what: str) -> dict[Entry, str]:
    """The state of each entry below a folder, with a progress bar."""
    bar = tqdm(entries, desc=what, unit="folder", disable=None, leave=False)
    return {entry: _state(entry, folder) for entry in bar}


def fetch(
    root: Path,
    *,
    entries: Sequence[Entry],
    remote: str = REPOSITORY,
    commit: str = COMMIT,
    copy: Path | None = None,
    replace: bool = False,
) -> int:
    """Put the published files in place below ``root``; those that are there and whole stay as they are.

    Parameters
    ----------
    root : Path
        Folder that holds data/, preparation/ and results/.
    entries : sequence of Entry
        What is published.
    remote, commit : str
        Where git fetches from, and which commit.
    copy : Path, optional
        A local copy of the repository to take instead.
    replace : bool
        Whether files that differ from the published ones may be replaced.

    Returns
    -------
    int
        How many entries were fetched.

    Raises
    ------
    FergiError
        If files in the way differ from the published ones, the source cannot be reached or is not the
        published one, or the root cannot be written. Nothing is then put in place.
    """
    check_writable(root)
    for leftover in root.glob(".fetching-*"):
        shutil.rmtree(leftover)
    states = _states([entry.place for entry in entries], root, "checking")
    wanted = [entry for entry in entries if states[entry.place] != "whole"]
    in_the_way = [str(root / each.path) for each, state in states.items() if state == "different"]
    if in_the_way and not replace:
        raise FergiError(
            f"{len(in_the_way)} of {len(entries)} published files or sessions differ from what is published "
            f"(first: {in_the_way[0]}). Move them away, or replace them with: python -m fergi.published --replace"
        )
    if not wanted:
        return 0

    staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=root))
    try:
        if copy is not None:
            _copy(copy, wanted, staging)
        else:
            _check_out(remote, commit, staging)
        source = str(copy) if copy is not None else f"{remote} at {commit[:7]}"
        bad = [
            f"{entry.path} is {state}"
            for entry, state in _states(wanted, staging, "verifying").items()
            if state != "whole"
        ]
        if bad:
            raise summarise(
                bad, len(wanted), f"files or sessions of {source}", f"Take the repository {REPOSITORY} at {COMMIT}."
            )
        for entry in wanted:
            _put_in_place(entry, staging, root)
    except OSError as error:
        raise FergiError(f"Cannot put the published files into {root}: {error}. Make room and call again.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(wanted)


def _copy(copy: Path, entries: Sequence[Entry], staging: Path) -> None:
    """Copy the entries' files from a local copy of the repository."""
    if not copy.is_dir():
        raise FergiError(f"FERGI_DATA is {copy}, which is not a folder. Set it to a copy of {REPOSITORY}.")
    for entry in tqdm(entries, desc="copying", unit="folder", disable=None, leave=False):
        target = staging / entry.path if entry.path.endswith("/") else (staging / entry.path).parent
        target.mkdir(parents=True, exist_ok=True)
        for file in _files_in_copy(entry, copy):
            shutil.copyfile(file, target / file.name)


def _files_in_copy(entry: Entry, copy: Path) -> list[Path]:
    """An entry's files in a local copy, which may have its results in a folder ``expected``."""
    files = entry.files(copy)
    if not files and entry.path.startswith("results/"):
        files = Entry(entry.path.replace("results/", "expected/", 1), entry.sha256).files(copy)
    return files


def _check_out(remote: str, commit: str, staging: Path) -> None:
    """Check the wanted paths of one commit out, fetching no other commit and no other file's content.

    Raises
    ------
    FergiError
        If git is missing or the remote cannot be reached or lacks the commit.
    """
    commands = (
        ["init", "--quiet"],
        ["config", "core.autocrlf", "false"],
        ["remote", "add", "origin", remote],
        ["sparse-checkout", "set", "--no-cone", *PATHS],
        ["fetch", "--progress", "--no-tags", "--depth=1", "--filter=blob:none", "origin", commit],
        ["checkout", "--progress", "--detach", "FETCH_HEAD"],
    )
    for command in commands:
        said = _git(command, staging)
        if said is not None:
            raise FergiError(
                f"Cannot fetch commit {commit[:7]} from {remote} (git: {said}). "
                "Connect this machine to it, or set FERGI_DATA to a local copy of the repository."
            )


def _git(command: Sequence[str], folder: Path) -> str | None:
    """Run git, showing its progress on a terminal. Returns what it says if it fails, else None."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set inside a git hook
        environment.pop(name, None)
    try:
        process = subprocess.Popen(
            ["git", *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        return "not installed"
    last = "it failed without a word"
    with process:
        for line in map(str.strip, process.stderr or ()):  # text mode ends lines at carriage returns too
            if "%" in line and sys.stderr.isatty():
                print(f"\r{line}", end="", file=sys.stderr)
            elif line.startswith(("fatal:", "error:", "remote:")):
                last = line
    return last if process.returncode else None


def _put_in_place(entry: Entry, staging: Path, root: Path) -> None:
    """Move an entry from the staging folder, on the same disk, to where it belongs."""
    source, target = staging / entry.path, root / entry.place.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not entry.path.endswith("/") or not target.exists():
        os.replace(source, target)
        return
    for file in entry.files(root):
        file.unlink()
    for file in entry.files(staging):
        os.replace(file, target / file.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what is missing and say what was done."""
    parser = argument_parser(__doc__)
    parser.add_argument("--replace", action="store_true", help="replace files that differ from the published ones")
    chosen = parser.parse_args(arguments)
    entries = read_entries()
    copy = os.environ.get("FERGI_DATA")
    remote = os.environ.get("FERGI_REMOTE") or REPOSITORY
    fetched = fetch(
        chosen.root,
        entries=entries,
        remote=remote,
        copy=Path(copy).expanduser() if copy else None,
        replace=chosen.replace,
    )
    n_sessions = sum(entry.path.endswith("/") for entry in entries)
    print(
        f"The published files are in place and whole: features of {n_sessions} sessions, {len(entries) - n_sessions} "
        f"tables and lists; {fetched or 'none'} of them fetched now."
    )


if __name__ == "__main__":
    run(main)
