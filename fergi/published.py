"""Fetch what the authors published, verified, into the shared folders.

Reads   the release's repository at a pinned commit (git), or a local copy of it
Writes  data/                              per-frame features of all clips
        preparation/                       sessions, black images, ratings, ranks and scores of images
        results/published/                 the release's own values of what stages 6 to 9 compute, to compare with
Run     python -m fergi.published
        FERGI_DATA=DIR python -m fergi.published       from a local copy instead
        FERGI_REMOTE=URL python -m fergi.published     from another git remote
Takes   about 100 MB; a second call finds everything in place and fetches nothing.

Every file is checked against published_files.txt before it is put in place.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from fergi.features import PUBLISHED_ESTIMATOR, SETTINGS_FILE, estimator_of
from fergi.files import FergiError, check_writable, sha256, summarise
from fergi.script import argument_parser, run

REPOSITORY = "https://github.com/ShuangquanFeng/FERGI"
COMMIT = "02c8a2f121d5263702c8f7a6208984c757f7157c"  # the newest one lacks the list of excluded participants
PATHS = ("data", "preparation", "results/image_preference_binary_classification_based_on_ranking.csv")
# The stages compute these themselves; the published ones go to results/published/, to compare with.
COMPUTED = (
    "preparation/preprocessed_baseline_data/",
    "preparation/preprocessed_reaction_data/",
    "preparation/AU4_excluded_participants.json",
    "results/",
)
LIST = Path(__file__).with_name("published_files.txt")


@dataclass(frozen=True)
class Entry:
    """A published file, or the feature files of one session."""

    path: str  # in the repository; a session's folder ends with a slash
    sha256: str  # of the file; of a session: of the lines that ``sha256sum *_features.csv`` prints in its folder

    @property
    def place(self) -> str:
        """Where it belongs below the root."""
        _, *rest = PurePosixPath(self.path).parts
        return str(PurePosixPath("results", "published", *rest)) if self.path.startswith(COMPUTED) else self.path

    def files(self, path: Path) -> list[Path]:
        """Its files, if it lies at that path."""
        if self.path.endswith("/"):
            return sorted(path.glob("*_features.csv"))
        return [path] if path.is_file() else []

    def source(self, folder: Path) -> Path:
        """Where it lies in a copy of the repository, which may have its results in a folder ``expected``."""
        expected = folder / self.path.replace("results/", "expected/", 1)
        return folder / self.path if (folder / self.path).exists() else expected

    def digest(self, path: Path) -> str | None:
        """Its SHA-256 as it lies at that path; None if it is missing."""
        sums = {file.name: sha256(file) for file in self.files(path)}
        if not self.path.endswith("/"):
            return next(iter(sums.values()), None)
        lines = "".join(f"{found}  {name}\n" for name, found in sums.items())
        return hashlib.sha256(lines.encode()).hexdigest() if sums else None

    def state(self, path: Path) -> str:
        """``missing``, ``whole`` or ``different`` at that path."""
        return {None: "missing", self.sha256: "whole"}.get(self.digest(path), "different")


def read_entries(path: Path = LIST) -> list[Entry]:
    """The list of published files: lines of SHA-256, two spaces, path."""
    return [Entry(line[66:], line[:64]) for line in path.read_text(encoding="utf-8").splitlines()]


def _require_no_other_estimator(data: Path) -> None:
    """Stop if the folder has features of another estimator."""
    there = estimator_of(data)
    if there != PUBLISHED_ESTIMATOR:
        raise FergiError(
            f"{data} has features of {there['estimator']}, as its {SETTINGS_FILE} says, and the published "
            "ones cannot stand beside them. Choose another --root or move that folder away."
        )


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
        If there are features of another estimator, files in the way differ from the published ones, or the source
        cannot be reached or is not the published one: nothing is then put in place. If the disk is full: every file
        that is in place is whole.
    """
    check_writable(root)
    for leftover in root.glob(".fetching-*"):
        shutil.rmtree(leftover)
    _require_no_other_estimator(root / "data")
    states = {entry: entry.state(root / entry.place) for entry in entries}
    wanted = [entry for entry, state in states.items() if state != "whole"]
    in_the_way = [str(root / entry.place) for entry, state in states.items() if state == "different"]
    if in_the_way and not replace:
        raise FergiError(
            f"{len(in_the_way)} of {len(entries)} published files or sessions differ from what is published "
            f"(first: {in_the_way[0]}). Move them away, or replace them with: python -m fergi.published --replace"
        )
    if not wanted:
        return 0
    if copy is not None and not copy.is_dir():
        raise FergiError(f"FERGI_DATA is {copy}, which is not a folder. Set it to a copy of {REPOSITORY}.")
    try:
        with TemporaryDirectory(prefix=".fetching-", dir=root) as staging:
            if copy is None:
                _check_out(remote, commit, Path(staging))
            _put_in_place(wanted, copy or Path(staging), root, Path(staging, "file"))
    except OSError as error:
        raise FergiError(f"Cannot put the published files into {root}: {error}. Make room and call again.") from error
    return len(wanted)


def _check_out(remote: str, commit: str, folder: Path) -> None:
    """Check out the wanted paths of one commit; git fetches no other commit and no other file's content.

    Raises
    ------
    FergiError
        If git is missing or the remote cannot be reached or lacks the commit; git itself says why on the terminal.
    """
    inside_a_hook = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in inside_a_hook}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", remote],
        ["fetch", "--no-tags", "--depth=1", "--filter=blob:none", "origin", commit],
        ["-c", "core.autocrlf=false", "checkout", "FETCH_HEAD", "--", *PATHS],
    ):
        try:
            subprocess.run(["git", *command], cwd=folder, env=environment, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            status = getattr(error, "returncode", None)
            reason = "git: not installed" if status is None else f"git's exit status is {status}"
            raise FergiError(
                f"Cannot fetch commit {commit[:7]} from {remote} ({reason}). "
                "Connect this machine to it, or set FERGI_DATA to a local copy of the repository."
            ) from error


def _put_in_place(entries: Sequence[Entry], source: Path, root: Path, temporary: Path) -> None:
    """Verify all entries in the source, then copy each to a temporary name and rename it to its place."""
    states = {entry: entry.state(entry.source(source)) for entry in entries}
    bad = [f"{entry.path} is {state}" for entry, state in states.items() if state != "whole"]
    if bad:
        advice = f"Take the repository {REPOSITORY} at {COMMIT}."
        raise summarise(bad, len(entries), "published files or sessions", advice)
    for entry in entries:
        found, place = entry.source(source), root / entry.place
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            temporary.mkdir()
            for file in entry.files(found):
                shutil.copyfile(file, temporary / file.name)
        else:
            shutil.copyfile(found, temporary)
        if not place.is_dir():
            os.replace(temporary, place)
            continue
        for file in entry.files(place):  # a session's folder may also hold its videos
            file.unlink()
        for file in entry.files(temporary):
            os.replace(file, place / file.name)
        temporary.rmdir()


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what is missing and say what was done."""
    parser = argument_parser(__doc__)
    parser.add_argument("--replace", action="store_true", help="replace files that differ from the published ones")
    chosen = parser.parse_args(arguments)
    entries = read_entries()
    remote = os.environ.get("FERGI_REMOTE") or REPOSITORY
    copy = Path(os.environ["FERGI_DATA"]).expanduser() if os.environ.get("FERGI_DATA") else None
    fetched = fetch(chosen.root, entries=entries, remote=remote, copy=copy, replace=chosen.replace)
    n_sessions = sum(entry.path.endswith("/") for entry in entries)
    print(
        f"The published files are in place and whole: features of {n_sessions} sessions, {len(entries) - n_sessions} "
        f"tables and lists; {fetched or 'none'} of them fetched now."
    )


if __name__ == "__main__":
    run(main)
