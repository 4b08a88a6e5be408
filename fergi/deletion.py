"""Everything below a root that is of one participant, and its removal."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from fergi.dataset import CLIP_KINDS, Folders
from fergi.files import FergiError, read_json, write_json, write_table

PAGES = (".html", ".pdf", ".png", ".svg")
NAME_COLUMNS = ("participant", "user_id", "subject")
# Files that a running server or cut_clips.py holds.
LOCKS = (("recordings", ".lock", "collect_sessions.py"), ("data", ".cutting", "cut_clips.py"))


@dataclass(frozen=True)
class Trace:
    """Something of the participant, and how it goes."""

    path: Path
    what: str  # a few words
    remove: Callable[[], None]


def find_traces(folders: Folders, participant: str) -> list[Trace]:
    """All that is of a participant: their folders and tables, their entries in lists, their rows.

    Folders of faces that were cut out of clips go whole, and are made again by the script that needs them.
    Of results and figures, tables with a row of the participant go whole, since the other rows were found with their
    help, and so do pages and pictures if there is anything else of the participant in the preparation of results; but
    not pictures in a folder that has another participant's name.

    Raises
    ------
    FergiError
        If something lies outside the root, behind a link.
    """
    if not participant or participant != Path(participant).name:  # a path, and no name
        return []
    own = list(_own_paths(folders, participant))
    traces = [*_entries(folders, participant), *_rows(folders, participant)]
    if own or traces:
        own += _named_after(folders, participant)
    outside = [path for path in own if not path.resolve().is_relative_to(folders.root.resolve())]
    if outside:
        raise FergiError(
            f"{outside[0]} is outside of {folders.root}, behind a link. Remove it there, and the link, then run again."
        )
    traces = [Trace(path, _count(path), partial(_remove, path)) for path in own] + traces
    cut = [path.parent for path in sorted(folders.cut_faces.glob("*/index.csv")) if _n_rows(path, participant)]
    traces += [Trace(path, "faces cut out of clips, also others'", partial(_remove, path)) for path in cut]
    shown = [path for folder in (folders.results, folders.figures) for path in sorted(folder.rglob("*"))]
    shown = [path for path in shown if not {*own, folders.published} & {path, *path.parents}]
    tables = [path for path in shown if path.suffix == ".csv" and _n_rows(path, participant)]
    traces += [Trace(path, "a table with their results", partial(_remove, path)) for path in tables]
    if tables or any(folders.preparation in path.parents for path in own):
        homes = (folder for folder in (folders.data, folders.recordings) if folder.is_dir())
        others = {path.name for home in homes for path in home.iterdir()} - {participant}
        pages = [
            path for path in shown if path.suffix in PAGES and not others & set(path.relative_to(folders.root).parts)
        ]
        traces += [Trace(path, "shows all participants", partial(_remove, path)) for path in pages]
    return traces


def _own_paths(folders: Folders, participant: str) -> Iterator[Path]:
    """The participant's folders, and tables named after them."""
    paths = [folder / participant for folder in (folders.recordings, folders.data, folders.root / "truth")]
    tables = [folders.image_tables, *(folders.activation_tables(kind) for kind in CLIP_KINDS)]
    paths += [folder / f"{participant}.csv" for folder in tables]
    names = {path.parent: {each.name for each in path.parent.iterdir()} for path in paths if path.parent.is_dir()}
    yield from (path for path in paths if path.name in names.get(path.parent, ()))  # links that lead nowhere, too


def _named_after(folders: Folders, participant: str) -> Iterator[Path]:
    """Folders and files of results and figures that have the participant's name."""
    for top in (folders.results, folders.figures):
        for parent, subfolders, files in os.walk(top):
            found = [name for name in subfolders if name == participant]
            found += [name for name in files if Path(name).stem == participant]
            yield from (Path(parent, name) for name in sorted(found))
            subfolders[:] = sorted(name for name in subfolders if name != participant)


def _entries(folders: Folders, participant: str) -> Iterator[Trace]:
    """Entries of JSON files."""
    for path, key in (
        (folders.valid_sessions, participant),
        (folders.black_images, participant),
        (folders.excluded_participants, participant),
        (folders.score_settings, f"{participant}.csv"),
    ):
        if path.is_file() and key in (content := read_json(path, "Correct it, then run again.")):
            what = f"{len(content[key])} sessions" if path == folders.valid_sessions else "an entry"
            yield Trace(path, what, partial(_remove_entry, path, key))


def _remove_entry(path: Path, key: str) -> None:
    content = read_json(path, "Correct it, then run again.")
    if isinstance(content, list):
        write_json([each for each in content if each != key], path)
    elif kept := {name: value for name, value in content.items() if name != key}:
        write_json(kept, path)
    else:
        path.unlink()  # nobody is left, and an empty list of sessions is refused


def _rows(folders: Folders, participant: str) -> Iterator[Trace]:
    """Rows of the finished scores; those of others took hours and stay."""
    for path in sorted(folders.image_scores.glob("*/scores.csv")):
        if n_rows := _n_rows(path, participant):
            yield Trace(path, f"{n_rows} rows", partial(_remove_rows, path, participant))


def _remove_rows(path: Path, participant: str) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    write_table(table[table["participant"] != participant], path)


def _n_rows(path: Path, participant: str) -> int:
    """How many rows of a table are of the participant; 0 also if it has no column of names."""
    try:
        header = pd.read_csv(path, nrows=0).columns
        named = [column for column in NAME_COLUMNS if column in header]
        return sum(int((pd.read_csv(path, usecols=[c], dtype=str)[c] == participant).sum()) for c in named)
    except (ValueError, OSError):  # no table
        return 0


def _count(path: Path) -> str:
    """How many files a folder holds."""
    return f"{sum(each.is_file() for each in path.rglob('*'))} files" if path.is_dir() else "a file"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_traces(traces: list[Trace]) -> None:
    """Remove all; run again after an interruption, it finds what is left.

    Raises
    ------
    FergiError
        If something cannot be removed.
    """
    for trace in traces:
        try:
            trace.remove()
        except OSError as error:
            raise FergiError(f"Cannot remove {trace.path}: {error.strerror}. Mend that and run it again.") from error


@contextmanager
def nobody_writes(folders: Folders, locks: Sequence[tuple[str, str, str]] = LOCKS) -> Iterator[None]:
    """Stop if sessions are being collected or cut below the root, and let nobody begin to."""
    with ExitStack() as stack:
        for folder, name, script in locks:
            path = folders.root / folder / name
            if path.is_file():
                try:
                    fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise FergiError(f"{script} is at work in {path.parent}. Stop it, then run this again.") from None
        yield
