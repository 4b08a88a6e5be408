"""Which folders synthetic data may use: files there are replaced and removed, so nobody's own may be among them."""

import os
import shutil
from pathlib import Path

from fergi.files import FergiError, check_writable, replacing
from fergi.script import CHECKOUT

MARKER = "SYNTHETIC.txt"
KEPT = ".kept"  # what does not depend on the rest, and takes long to make
TEXT = "python -m synthetic made this folder, and replaces and removes files in it. Keep none of your own here.\n"


def claim(root: Path) -> None:
    """Take a folder for synthetic data: a new or empty one, or one that was taken before. ``MARKER`` in it says so.

    Raises
    ------
    FergiError
        If it cannot be written, holds anything else, has a link to another place, or is or holds this project or the
        user's home. Then nothing has changed.
    """
    root = root.resolve()
    for kept in (CHECKOUT, Path(os.path.expanduser("~")).resolve()):
        if kept.is_relative_to(root):
            raise FergiError(
                f"{root} cannot be taken for synthetic data, which replace and remove files, because it is or holds "
                f"{kept}. Nothing was changed; name a new folder with --root."
            )
    check_writable(root)
    there = sorted(root.iterdir())
    if there and not (root / MARKER).is_file():
        raise FergiError(
            f"{root} was not made by python -m synthetic, which replaces and removes files (it holds "
            f"{there[0].name}). Nothing was changed; name a new or empty folder with --root."
        )
    links = [path for path in there if path.is_symlink()]
    if links:
        raise FergiError(
            f"{links[0]} is a link, and what it leads to could be replaced or removed. Nothing was changed; take the "
            "link away or name another --root."
        )
    if not (root / MARKER).exists():
        with replacing(root / MARKER) as file:
            file.write(TEXT.encode())


def clear(root: Path, *, everything: bool = False) -> None:
    """Remove all in a folder of synthetic data but ``MARKER`` and, unless ``everything`` is to go, ``KEPT``.

    Raises
    ------
    FergiError
        If ``claim`` refuses it, or something cannot be removed.
    """
    claim(root)
    for path in root.iterdir():
        if path.name == KEPT and not everything:
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != MARKER:
                path.unlink()
        except OSError as error:
            raise FergiError(f"Cannot remove {path}: {error.strerror}. Remove it or name another --root.") from error
