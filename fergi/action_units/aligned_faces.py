"""From DISFA and DISFA+ to a folder of aligned faces (see ``faces_dataset``), part by part in worker processes.

Beside the files that the training reads, the folder holds
parts/<subject>_<part>.csv    image, subject, part, frame, source (file and bytes) of a finished part; a run does those
                 that have none, or of which sources changed or pictures are gone
no_face.csv      subject, part, frame of the frames in which no face was found
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from fergi.action_units.disfa import NOT_LABELLED, LabelledFrames
from fergi.action_units.faces_dataset import FRAME_COLUMNS, INDEX, LABEL_COLUMNS, SETTINGS
from fergi.dataset import Folders
from fergi.faces.pipeline import AlignmentSettings, FaceAligner, add_alignment_arguments, alignment_settings
from fergi.files import FergiError, check_writable, keep_settings, summarise, write_table
from fergi.processes import WorkerDied, items_from_workers
from fergi.script import add_workers_argument
from fergi.video import UnreadableVideo, read_frames

GROUP_SIZE = 32  # frames that are read and aligned together


class UnreadableFrames(Exception):
    """A part has a frame that is no picture, or a video that breaks off; the text says which."""


def align_dataset(
    dataset: str,
    parser: argparse.ArgumentParser,
    read: Callable[[argparse.Namespace], list[LabelledFrames]],
    arguments: Sequence[str] | None,
) -> None:
    """What stages 1 and 2 do: align all frames of a data set into a folder, and say what became of them.

    ``parser`` has the options of the data set, from which ``read`` gives its frames, checked as a whole.
    ``arguments`` is the command line, if it is not the process's.

    Raises
    ------
    FergiError
        If the folder has faces of other settings, a frame is unreadable (the others are done first), a worker dies or
        the disk is full. Finished parts are kept, and ``index.csv`` is not written.
    """
    add_workers_argument(parser, "processes")
    add_alignment_arguments(parser)
    shown = f"where to write (default: preparation/{dataset}_faces)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=shown)
    chosen = parser.parse_args(arguments)
    parts, folders = read(chosen), Folders(chosen.root)
    alignment = alignment_settings(folders.pretrained_models, chosen.landmarks, chosen.luma)
    output = chosen.out or folders.aligned_faces(dataset)
    print(f"{sum(len(part.names) for part in parts)} frames of {len({part.subject for part in parts})} subjects.")
    print(f"Landmarks by {alignment.landmarks}.")
    FaceAligner(alignment)  # a missing or damaged model is found here, before any worker is started
    check_writable(output, "--out" if chosen.out else "--root")
    advice = f"Use the same settings, or move {output.name} away."
    keep_settings({"dataset": dataset, **alignment.settings}, output / SETTINGS, advice)

    tables = [_finished(part, output) for part in parts]
    n_before = sum(table is not None for table in tables)
    _align_missing(dataset, tables, AlignedParts(parts, output, alignment), chosen.workers)
    labelled = [_with_labels(table, part) for table, part in zip(tables, parts, strict=True)]
    frames = pd.concat(labelled, ignore_index=True)
    has_face = frames["image"] != ""
    write_table(frames.loc[~has_face, ["subject", "part", "frame"]], output / "no_face.csv")
    write_table(frames[has_face], output / INDEX)
    print(f"{len(parts)} parts, {n_before} of them done before.")
    print(f"{has_face.sum()} aligned faces; {(~has_face).sum()} frames without a face (no_face.csv).")
    _report_labels(parts, labelled)
    print(f"Wrote {output / INDEX}.")


def _align_missing(dataset: str, tables: list[pd.DataFrame | None], aligned: "AlignedParts", workers: int) -> None:
    """Align the parts without a table, in workers; their tables are written and put in."""
    todo, parts = [index for index, table in enumerate(tables) if table is None], aligned.parts
    total, problems = sum(len(parts[index].names) for index in todo), []
    try:
        with (
            tqdm(total=total, unit="frame", desc=dataset, disable=None) as bar,
            items_from_workers(Subset(aligned, todo), min(workers, len(todo))) as items,
        ):
            for index, table, n_frames, error in items:
                bar.update(n_frames)
                if isinstance(error, FergiError):
                    raise error
                if error:
                    problems.append(str(error))
                else:
                    tables[index] = table
                    write_table(table, _table_file(parts[index], aligned.output))
    except WorkerDied as error:
        raise FergiError(
            f"A worker process died while aligning {dataset}, most likely out of memory. "
            "Run again with fewer --workers; finished parts stay."
        ) from error
    if problems:
        advice = "Replace the files and run again; the rest is done."
        raise summarise(problems, len(parts), f"parts of {dataset}", advice)


class AlignedParts(Dataset):
    """Item i is part i once its aligned faces are written: i, its table, how many frames were read, and an error.

    The error is ``UnreadableFrames`` or ``FergiError``, if there is one; raised in a worker it would arrive as a
    traceback.
    """

    def __init__(self, parts: Sequence[LabelledFrames], output: Path, alignment: AlignmentSettings) -> None:
        self.parts, self.output, self.alignment = parts, output, alignment

    @cached_property
    def aligner(self) -> FaceAligner:
        """The models, loaded once in each worker."""
        return FaceAligner(self.alignment)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> tuple[int, pd.DataFrame, int, Exception | None]:
        part, rows, n_frames, error = self.parts[index], [], 0, None
        sources, frames = _sources(part), _frames(part)
        try:
            while group := list(islice(frames, GROUP_SIZE)):
                for (name, _), face in zip(group, self.aligner.align([picture for _, picture in group]), strict=True):
                    image = f"{part.subject}/{part.part}/{Path(name).stem}.png" if face else ""
                    if face:
                        _write_picture(face.picture, self.output / image)
                    rows.append((image, part.subject, part.part, name, sources[0 if part.video else len(rows)]))
                n_frames += len(group)
        except (UnreadableFrames, FergiError) as problem:
            error = problem
        return index, pd.DataFrame(rows, columns=[*FRAME_COLUMNS, "source"]), n_frames, error


def _frames(part: LabelledFrames) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB picture of each frame."""
    if part.video is None:
        for path, name in zip(part.pictures, part.names, strict=True):
            yield name, _read_picture(path)
        return
    try:
        for number, (_, picture) in enumerate(read_frames(part.video), 1):
            yield str(number), picture
    except UnreadableVideo as error:
        raise UnreadableFrames(str(error)) from None


def _read_picture(path: Path) -> np.ndarray:
    """An RGB picture; a file that is none, or only the beginning of one, is refused."""
    try:
        # imread would fill up a JPEG that was cut off; imdecode refuses it.
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise UnreadableFrames(f"{path} is not a picture")
    return picture


def _write_picture(picture: np.ndarray, file: Path) -> None:
    """An RGB picture as PNG."""
    _, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.tobytes())
    except OSError as error:
        message = f"Cannot write {file}: {error.strerror}. Make room and run again; finished parts stay."
        raise FergiError(message) from error


def _sources(part: LabelledFrames) -> list[str]:
    """Name and size of each frame's file, or of the one video."""
    return [f"{path.name}, {_size(path)} bytes" for path in ([part.video] if part.video else part.pictures)]


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _table_file(part: LabelledFrames, output: Path) -> Path:
    return output / "parts" / f"{part.subject}_{part.part}.csv"


def _finished(part: LabelledFrames, output: Path) -> pd.DataFrame | None:
    """A part's table, if it has one of the files that the data set has now, and its pictures are there."""
    file = _table_file(part, output)
    if not file.is_file():
        return None
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    sources = _sources(part)
    same = list(table["source"]) == (sources * len(table) if part.video else sources)
    return table if same and all(_size(output / image) for image in table["image"] if image) else None


def _with_labels(table: pd.DataFrame, part: LabelledFrames) -> pd.DataFrame:
    """A part's table with the labels that the data set has now; a frame of a video beyond them has none."""
    labels = pd.DataFrame(part.labels, index=pd.Index(part.names), columns=list(LABEL_COLUMNS))
    own = labels.reindex(table["frame"], fill_value=NOT_LABELLED).reset_index(drop=True)
    return pd.concat([table[list(FRAME_COLUMNS)], own], axis=1)


def _report_labels(parts: Sequence[LabelledFrames], tables: Sequence[pd.DataFrame]) -> None:
    """Say how many labels are missing or impossible, and how many have no frame, with the first part that has any."""
    counts = []
    for part, table in zip(parts, tables, strict=True):
        labelled, filmed = set(part.names), set(table["frame"])  # these differ only where a video was read
        n_missing = part.n_missing + len(LABEL_COLUMNS) * len(filmed - labelled)
        counts.append((n_missing, part.n_out_of_range, len(labelled - filmed)))
    texts = (
        "labels are missing and count as not labelled",
        "labels are not 0-5 and count as not labelled",
        "labelled frames are not in their video, which is shorter",
    )
    for text, numbers in zip(texts, zip(*counts, strict=True), strict=True):
        first = next((part for part, n in zip(parts, numbers, strict=True) if n), None)
        if first:
            print(f"{sum(numbers)} {text} (first in {first.subject}, {first.part}).")
