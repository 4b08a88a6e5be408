"""Reading with clear errors, writing all or nothing.

A file is written under a temporary name in its folder and then renamed, so that readers find the old content or the
new one, never a part of it.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class FergiError(Exception):
    """An error that the user can correct; its message says how many, where, which one first, and what to do next."""


def summarise(problems: Sequence[str], total: int, what: str, advice: str, state: str = "are unusable") -> FergiError:
    """The error for ``len(problems)`` of ``total`` things, naming the first one.

    ``state`` begins with "are" or "have"; one thing "is" or "has".
    """
    if len(problems) == 1:
        verb, _, rest = state.partition(" ")
        state = f"{({'are': 'is', 'have': 'has'})[verb]} {rest}"
    return FergiError(f"{len(problems)} of {total} {what} {state} (first: {problems[0]}). {advice}")


def require(paths: Iterable[Path], what: str, advice: str) -> None:
    """Stop unless every file is there.

    Raises
    ------
    FergiError
        Naming how many of the files are missing, the first of them, and ``advice``.
    """
    paths = list(paths)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise summarise(missing, len(paths), what, advice, "are missing")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which gets the name ``path`` when the block ends without an error.

    Temporary files of the same name that killed processes left are removed.

    Raises
    ------
    FergiError
        If the folder cannot be made or written, or the disk is full; ``path`` is then as it was before.
    """
    with _explained(path), _temporary_name(path) as temporary:
        with temporary.open("wb") as file:
            yield file
            _sync(file)
        os.replace(temporary, path)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of the operating system as a ``FergiError``."""
    try:
        yield
    except OSError as error:
        raise FergiError(
            f"Cannot write {path}: {error.strerror or error}. Make room or choose another --root."
        ) from error


@contextlib.contextmanager
def _temporary_name(path: Path) -> Iterator[Path]:
    """A name in the same folder for a file, which is removed afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.part"):
        if not _is_running(leftover.suffixes[-2].removeprefix(".")):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """A hidden folder to fill, which gets the name ``path`` when the block ends without an error.

    Folders of the same name that killed processes left are removed.

    Raises
    ------
    FergiError
        If there is something at ``path`` that is not an empty folder, or nothing can be written there, or the disk is
        full; nothing is left then. ``option`` names the path in the message.
    """
    path = Path(os.path.abspath(path))
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FergiError(f"{path} is there already and is no empty folder. Move it away or change {option}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.part"):
            if not _is_running(leftover.suffixes[-2].removeprefix(".")):
                shutil.rmtree(leftover)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FergiError(
            f"Cannot write {path}: {error.strerror or error}. Make room or choose another {option}."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _is_running(process: str) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def check_writable(folder: Path, option: str = "--root") -> None:
    """Stop before long work if nothing can be written into ``folder``, which ``option`` names.

    Raises
    ------
    FergiError
        If the folder cannot be made or a file in it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FergiError(
            f"Cannot write into {folder}: {error.strerror}. Free that name or choose another {option}."
        ) from error


def write_json(content: Any, path: Path) -> None:
    """Write ``content`` as indented JSON, all or nothing."""
    with replacing(path) as file:
        file.write(_json(content))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV without an index, all or nothing; floats keep every digit."""
    write_tables({path: table})


def write_tables(tables: "Mapping[Path, pd.DataFrame | dict[str, Any]]") -> None:
    """Write tables and settings (dicts, as JSON) that belong together.

    None is renamed to its final name before all are written and synced. A crash between two renames leaves some files
    new and the others old, each complete; running again repairs that.

    Raises
    ------
    FergiError
        As ``replacing`` does; unless a rename itself fails, every file is then as it was before.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {}
        for path, table in tables.items():
            with _explained(path):
                temporaries[path] = stack.enter_context(_temporary_name(path))
                with temporaries[path].open("wb") as file:
                    if isinstance(table, dict):
                        file.write(_json(table))
                    else:
                        table.to_csv(file, index=False)
                    _sync(file)
        for path, temporary in temporaries.items():
            with _explained(path):
                os.replace(temporary, path)


def read_json(path: Path, advice: str) -> Any:
    """The content of a JSON file.

    Raises
    ------
    FergiError
        If the file is missing or is not JSON; ``advice`` says what to do then.
    """
    require([path], "file", advice)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FergiError(f"{path} is not JSON: {error}. {advice}") from error


def read_table(
    path: Path,
    *,
    key: Sequence[str] = (),
    text_key: Sequence[str] = (),
    numeric: Sequence[str] = (),
    optional: Sequence[str] = (),
    kept: Sequence[str] = (),
) -> "pd.DataFrame":
    """A CSV table, checked before anything is computed from it.

    Parameters
    ----------
    path : Path
        The file, with a header line.
    key, text_key : sequence of str
        Columns of whole numbers and of text that together name a row: no two rows may share them.
    numeric : sequence of str
        Columns with a finite number in every row; True and False count as 1 and 0.
    optional : sequence of str
        The same, but such a column may be empty in every row; it is NaN then.
    kept : sequence of str
        Further columns that must be there; their cells are not checked.

    Returns
    -------
    pandas.DataFrame
        The columns text_key, key (int), numeric, optional (float), kept, in this order, with at least one row.

    Raises
    ------
    ValueError
        With the file and the cause; callers read many tables and summarise (see ``read_tables``).
    """
    import pandas as pd  # scripts that read no table need not wait for it

    names = [*text_key, *key]
    wanted = [*names, *numeric, *optional, *kept]
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text_key, str))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty") from None
    except (OSError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV table: {str(error).strip()}") from None
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}")
    if len(table) == 0:
        raise ValueError(f"{path} has a header but no rows")
    if not path.read_bytes().endswith(b"\n"):
        raise ValueError(f"{path} is cut off in line {len(table) + 1}")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"{path} has more values in its rows than names in its header")
    for name in (*key, *numeric, *(each for each in optional if table[each].notna().any())):
        table[name] = _numbers(table[name], path, whole=name in key)
    repeated = np.flatnonzero(table.duplicated(names)) if names else ()
    if len(repeated):
        row = ", ".join(f"{name} {table[name].iloc[repeated[0]]}" for name in names)
        raise ValueError(f"{path}, line {repeated[0] + 2}: {row} appears twice")
    return table[wanted]


def _numbers(column: "pd.Series", path: Path, *, whole: bool) -> "pd.Series":
    """A column as numbers, int if ``whole``; ValueError names the first cell that is no such number."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(~np.isfinite(numbers) | (whole & (numbers % 1 != 0)))
    if len(bad):
        cell = column.iloc[bad[0]]
        found, kind = "nothing" if pd.isna(cell) else repr(str(cell)), "a whole number" if whole else "a number"
        raise ValueError(f"{path}, line {bad[0] + 2}, column {column.name}: {found} is not {kind}")
    return numbers.astype(int) if whole else numbers


def read_tables(
    folder: Path,
    participants: Iterable[str],
    *,
    key: Sequence[str],
    numeric: Sequence[str] = (),
    optional: Sequence[str] = (),
    kept: Sequence[str] = (),
    advice: str,
) -> "dict[str, pd.DataFrame]":
    """The tables ``<participant>.csv`` of one folder, each checked by ``read_table``.

    Raises
    ------
    FergiError
        Naming how many participants have no table or an unusable one, the first of them, and ``advice``.
    """
    participants = list(participants)
    missing = [f"{participant}.csv" for participant in participants if not (folder / f"{participant}.csv").is_file()]
    if missing:
        raise summarise(missing, len(participants), "participants", advice, f"have no table in {folder}")
    tables, problems = {}, []
    for participant in participants:
        try:
            path = folder / f"{participant}.csv"
            tables[participant] = read_table(path, key=key, numeric=numeric, optional=optional, kept=kept)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise summarise(problems, len(participants), "tables", advice)
    return tables


def keep_settings(settings: dict[str, Any], path: Path, advice: str) -> None:
    """Write the settings of outputs beside them, into ``settings.json``; later runs must have the same ones.

    Raises
    ------
    FergiError
        If the file has other settings; ``advice`` says what to do then.
    """
    different = different_settings(settings, path)
    if different is None:
        write_json(settings, path)
    elif different:
        name, (there, now) = next(iter(different.items()))
        raise FergiError(
            f"{path} says that {name} was {there!r} for the files that are there, and now it is {now!r}. {advice}"
        )


def different_settings(settings: dict[str, Any], path: Path) -> dict[str, tuple[Any, Any]] | None:
    """The settings that a file has with other values, as (there, now); None if there is no such file.

    Missing keys count as equal.
    """
    if not path.is_file():
        return None
    there = read_json(path, "Remove it together with the files beside it.")
    return {name: (there[name], now) for name, now in settings.items() if there.get(name, now) != now}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
