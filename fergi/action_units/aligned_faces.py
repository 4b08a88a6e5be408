"""The aligned faces of a labelled data set: a folder of pictures, an index, and what they were made with.

settings.json    format, data set, detector, landmarks, luma, which the files of all parts share
<subject>/<part>/<frame>.png
parts/<subject>_<part>.csv    image, subject, part, frame, source (file and bytes) of one finished part; a run that was
                 interrupted, or finds other sources or pictures missing, does the other parts
index.csv        image, subject, part, frame, AU1, …, AU26; written when all parts are finished
no_face.csv      subject, part, frame of the frames in which no face was found
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from fergi.action_units.disfa import NOT_LABELLED, LabelledFrames
from fergi.action_units.faces_dataset import INDEX_FORMAT, LABEL_COLUMNS
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.files import FergiError, check_writable, keep_settings, summarise, write_table
from fergi.processes import end_with_parent
from fergi.video import UnreadableVideo, read_frames

FRAMES_AT_A_TIME = 32
INDEX_COLUMNS = ("image", "subject", "part", "frame")
PART_COLUMNS = (*INDEX_COLUMNS, "source")

_aligner: FaceAligner | None = None  # one in each worker process


class UnreadableFrames(Exception):
    """A part has a frame that is no picture, or a video that breaks off; the text says which."""


def _start_worker(settings: AlignmentSettings) -> None:
    """Load the models once in each worker process."""
    global _aligner
    end_with_parent()
    cv2.setNumThreads(1)
    _aligner = FaceAligner(settings)


def _read_picture(path: Path) -> np.ndarray:
    """An RGB picture; a file that is none, or only the beginning of one, is refused."""
    try:
        # imread would fill up a JPEG that was cut off; imdecode refuses it.
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise UnreadableFrames(f"{path} is not a picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _pictures(part: LabelledFrames) -> Iterator[tuple[str, np.ndarray]]:
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


def _align_part(part: LabelledFrames, output: Path) -> tuple[pd.DataFrame, int, str | None]:
    """Write the aligned faces of a part; its table, how many frames it has, and what is unreadable about it."""
    rows: list[tuple[str, str, str, str, str]] = []
    waiting: list[tuple[str, np.ndarray]] = []
    n_frames = 0
    folder = output / part.subject / part.part
    sources = _sources(part)

    def align_waiting() -> None:
        assert _aligner is not None
        for (name, _), face in zip(waiting, _aligner.align([picture for _, picture in waiting]), strict=True):
            image = ""
            if face is not None:
                file = folder / f"{Path(name).stem}.png"
                _write_picture(face.picture, file)
                image = file.relative_to(output).as_posix()
            source = sources[0 if part.video else len(rows)]
            rows.append((image, part.subject, part.part, name, source))
        waiting.clear()

    try:
        for frame in _pictures(part):
            waiting.append(frame)
            n_frames += 1
            if len(waiting) == FRAMES_AT_A_TIME:
                align_waiting()
    except UnreadableFrames as error:
        return pd.DataFrame(columns=list(PART_COLUMNS)), n_frames, str(error)
    align_waiting()
    return pd.DataFrame(rows, columns=list(PART_COLUMNS)), n_frames, None


def _sources(part: LabelledFrames) -> list[str]:
    """Name and size of each frame's file, or of the one video."""
    return [f"{path.name}, {_size(path)} bytes" for path in ([part.video] if part.video else part.pictures)]


def _size(path: Path) -> int:
    """Of a file, in bytes; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _is_finished(path: Path, part: LabelledFrames, output: Path) -> bool:
    """Whether a part's table is there, is of the files that the data set has now, and its pictures are there."""
    if not path.is_file():
        return False
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table) != list(PART_COLUMNS):  # an earlier version's
        return False
    sources = _sources(part)
    if list(table["source"]) != (sources * len(table) if part.video else sources):
        return False
    return all(_size(output / image) for image in table["image"] if image)


def _with_labels(table: pd.DataFrame, part: LabelledFrames) -> pd.DataFrame:
    """A part's table with the labels that the data set has now; a frame of a video beyond them has none."""
    labels = pd.DataFrame(part.labels, index=pd.Index(part.names), columns=list(LABEL_COLUMNS))
    own = labels.reindex(table["frame"], fill_value=NOT_LABELLED).reset_index(drop=True)
    return pd.concat([table[list(INDEX_COLUMNS)], own], axis=1)


def _write_picture(picture: np.ndarray, file: Path) -> None:
    """An RGB picture as PNG."""
    good, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert good
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.tobytes())
    except OSError as error:
        raise FergiError(
            f"Cannot write {file}: {error.strerror}. Make room and run again; finished parts stay."
        ) from error


@dataclass(frozen=True)
class AlignmentReport:
    """What became of a data set's frames."""

    n_parts: int
    n_done_before: int
    n_faces: int
    n_without_face: int
    n_labels_missing: int
    n_labels_out_of_range: int
    n_labelled_not_filmed: int
    first_missing: str
    first_out_of_range: str
    first_not_filmed: str

    def text(self) -> str:
        """For the terminal."""
        lines = [
            f"{self.n_parts} parts, {self.n_done_before} of them done before.",
            f"{self.n_faces} aligned faces; {self.n_without_face} frames without a face (no_face.csv).",
        ]
        for number, what, first in (
            (self.n_labels_missing, "labels are missing", self.first_missing),
            (self.n_labels_out_of_range, "labels are not 0-5", self.first_out_of_range),
        ):
            if number:
                lines.append(f"{number} {what} and count as not labelled (first in {first}).")
        if self.n_labelled_not_filmed:
            lines.append(
                f"{self.n_labelled_not_filmed} labelled frames are not in their video, which is shorter "
                f"(first in {self.first_not_filmed})."
            )
        return "\n".join(lines)


def align_dataset(
    dataset: str, parts: Sequence[LabelledFrames], output: Path, alignment: AlignmentSettings, *, workers: int
) -> AlignmentReport:
    """Align all frames of a data set into a folder, part by part in parallel; finished parts are kept.

    Parameters
    ----------
    dataset : str
        DISFA or DISFAPlus.
    parts : sequence of LabelledFrames
        ``read_disfa`` or ``read_disfa_plus``.
    output : Path
        The folder.
    alignment : AlignmentSettings
        How faces are found and aligned.
    workers : int
        Processes.

    Raises
    ------
    FergiError
        If the folder has faces made with other settings, a frame is unreadable (the others are done first), a
        worker dies or the disk is full. ``index.csv`` is then not written.
    """
    FaceAligner(alignment)  # a missing or damaged model is found here, before any process is started
    check_writable(output)
    keep_settings(
        {"format": INDEX_FORMAT, "dataset": dataset, **alignment.settings},
        output / "settings.json",
        f"Use the same settings, or move {output.name} away.",
    )
    tables = [output / "parts" / f"{part.subject}_{part.part}.csv" for part in parts]
    todo = [index for index, part in enumerate(parts) if not _is_finished(tables[index], part, output)]
    problems = []
    total = sum(len(parts[index].names) for index in todo)
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=total, unit="frame", desc=dataset, disable=None) as bar,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(alignment,)) as pool,
    ):
        futures = {pool.submit(_align_part, parts[index], output): index for index in todo}
        try:
            for future in as_completed(futures):
                table, n_frames, problem = future.result()
                bar.update(n_frames)
                if problem:
                    problems.append(problem)
                else:
                    write_table(table, tables[futures[future]])
        except BrokenProcessPool as error:
            raise FergiError(
                f"A worker process died while aligning {dataset}, most likely out of memory. "
                "Run again with fewer --workers; finished parts stay."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        raise summarise(
            problems, len(parts), f"parts of {dataset}", "Replace the files and run again; the rest is done."
        )

    found = [
        _with_labels(pd.read_csv(table, dtype=str, keep_default_na=False), part)
        for table, part in zip(tables, parts, strict=True)
    ]
    # How many frames a video has is known only now.
    not_labelled = [len(set(own["frame"]) - set(part.names)) for own, part in zip(found, parts, strict=True)]
    not_filmed = [len(set(part.names) - set(own["frame"])) for own, part in zip(found, parts, strict=True)]
    n_missing = [part.n_missing + len(LABEL_COLUMNS) * frames for part, frames in zip(parts, not_labelled, strict=True)]
    frames = pd.concat(found, ignore_index=True)
    has_face = frames["image"] != ""
    write_table(frames.loc[~has_face, ["subject", "part", "frame"]], output / "no_face.csv")
    write_table(frames[has_face], output / "index.csv")
    n_out_of_range = [part.n_out_of_range for part in parts]
    return AlignmentReport(
        n_parts=len(parts),
        n_done_before=len(parts) - len(todo),
        n_faces=int(has_face.sum()),
        n_without_face=int((~has_face).sum()),
        n_labels_missing=sum(n_missing),
        n_labels_out_of_range=sum(n_out_of_range),
        n_labelled_not_filmed=sum(not_filmed),
        first_missing=_first(parts, n_missing),
        first_out_of_range=_first(parts, n_out_of_range),
        first_not_filmed=_first(parts, not_filmed),
    )


def _first(parts: Sequence[LabelledFrames], numbers: Sequence[int]) -> str:
    """The first part that has any of what was counted."""
    return next((f"{part.subject}, {part.part}" for part, n in zip(parts, numbers, strict=True) if n), "")
