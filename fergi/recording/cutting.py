"""A recorded session → its clips, images and ``data.json`` below ``data/`` (Section 3.3).

A clip has 30.000 frames a second: its frame k is the newest one captured by the event + k/30 s
(``synchronisation.newest_frames``). H.264 in MP4, in the
recording's own size and colours. A session is cut whole or not at all; ``cut.json`` beside the clips says from which
files, and what the recording's evidence is.
"""

import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from fergi.dataset import SessionData, parse_session_data, write_session_data
from fergi.files import FergiError, read_json, require, sha256, write_json
from fergi.pictures import is_black, open_picture
from fergi.recording.synchronisation import (
    EARLY,
    FRAMES_PER_SECOND,
    PlannedClip,
    Recording,
    beyond,
    describe,
    locate,
    newest_frames,
    plan_clips,
    read_log,
)
from fergi.video import UnreadableVideo

RECORDING_NAMES = ("recording.mkv", "recording.webm", "recording.mp4")
LOGS = ("session.json", "events.jsonl", "frames.jsonl", "answers.json", "images.json")
ENCODING = {"crf": "15", "preset": "veryfast"}  # of libx264; 50 dB against a recording of a drawn face
LEAVE_OUT = "The session cannot be cut; leave it out, or restore the file."
SETTINGS = {"frames_per_second": FRAMES_PER_SECOND, "early": EARLY, **ENCODING}  # other ones cut again
Limits = Mapping[str, float]


class Interrupted(Exception):
    """Cutting was asked to stop."""


@dataclass(frozen=True)
class Cut:
    """What became of one session."""

    warnings: list[str]  # evidence that is worse than wished
    is_new: bool  # whether it was cut now; otherwise nothing had changed


def find_recording(folder: Path) -> Path | None:
    """A session's recording, if it is there."""
    return next((folder / name for name in RECORDING_NAMES if (folder / name).is_file()), None)


def sources(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of all that a session is cut from; without ``recording`` if that was removed."""
    require((folder / name for name in LOGS), "files of the session", LEAVE_OUT)
    paths = {name: folder / name for name in LOGS}
    paths |= {path.name: path for path in sorted((folder / "images").glob("image*.png"))}
    if recording := find_recording(folder):
        paths["recording"] = recording
    return {name: sha256(path) for name, path in paths.items()}


def cut_session(
    source: Path,
    target: Path,
    refuse: Limits,
    flag: Limits,
    announce: Callable[[list[int]], None],
    stopped: Callable[[], bool],
) -> Cut:
    """Cut a session of ``recordings/`` into its folder below ``data/``, unless it is there and nothing has changed.

    A session that was cut from other files is replaced; feature files in it belong to its old clips and go with them.

    Parameters
    ----------
    source, target : Path
        The session's folders.
    refuse, flag : mapping
        Evidence beyond these limits (``config.RECORDING_LIMITS``) refuses the session or makes a warning.
    announce : callable
        Gets the numbers of the black images just before a new session gets its name, so that no session that is there
        was never announced.
    stopped : callable
        Whether to stop now; asked for every frame.

    Raises
    ------
    FergiError
        If the session cannot be cut or is refused, with the reason.
    Interrupted
        If ``stopped`` says so. What was there before is then as it was.
    """
    files = sources(source)
    done = _read_cut(target)
    if done is not None and done["settings"] == SETTINGS and done["sources"] | files == done["sources"]:
        return Cut(done["warnings"], is_new=False)
    if target.exists() and not (target / "cut.json").is_file():
        raise FergiError(f"{target} is there and was not cut from a recording. Move one of the two sessions away.")
    plan = _plan(source, refuse, flag)
    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write_clips(plan.path, plan.recording, plan.clips, temporary, stopped)
        for picture in plan.pictures:
            shutil.copyfile(picture, temporary / picture.name)
        write_session_data(plan.data, temporary / "data.json")
        content = {"sources": files, "settings": SETTINGS, "evidence": plan.evidence, "warnings": plan.warnings}
        write_json(content | {"clips": {clip.name: clip.n_frames for clip in plan.clips}}, temporary / "cut.json")
        announce(plan.black)
        _put_in_place(temporary, target)
    except OSError as error:  # PyAV's errors are OSErrors where the system's are
        raise FergiError(f"Cannot write {target}: {error.strerror or error}. Make room and run it again.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Cut(plan.warnings, is_new=True)


@dataclass(frozen=True)
class _Plan:
    """What a session becomes; nothing is decoded yet."""

    path: Path  # of the recording
    recording: Recording
    clips: list[PlannedClip]
    pictures: list[Path]
    black: list[int]
    data: SessionData
    evidence: dict[str, Any]
    warnings: list[str]


def _plan(source: Path, refuse: Limits, flag: Limits) -> _Plan:
    """Read and judge a session; errors as with ``cut_session``."""
    path = find_recording(source)
    if path is None:
        raise FergiError(f"{source} has no recording. {LEAVE_OUT}")
    session, data = _read_session(source)
    pictures = [source / "images" / f"image{image}.png" for image in range(1, 1 + len(data.surveys))]
    black = [image for image, picture in enumerate(pictures, start=1) if _is_black(picture)]
    events, frames = read_log(source / "events.jsonl"), read_log(source / "frames.jsonl")
    try:
        recording = locate(path, events, frames)
    except UnreadableVideo as error:
        raise FergiError(f"{error}. {LEAVE_OUT}") from None
    clips = plan_clips(events, len(pictures), session["seconds"])
    evidence = describe(recording, clips, frames)
    if problems := beyond(evidence, refuse):
        raise FergiError(f"{source}: {', and '.join(problems)}.")
    warnings = beyond(evidence, flag) + _unseen(clips, events)
    if evidence["matched_share"] is None:
        warnings.append("the browser tells no captureTime, so that clips may be off by a frame or two")
    elif evidence["missed_at_start"]:
        warnings.append("the log lacks frames at the recording's start, so that clips may be off by a frame")
    data = replace(data, marks=_marks(clips, events, recording))
    return _Plan(path, recording, clips, pictures, black, data, evidence, warnings)


def _read_cut(target: Path) -> dict[str, Any] | None:
    """``cut.json`` of a session that is cut and whose clips and images are there."""
    if not (target / "cut.json").is_file():
        return None
    content = read_json(target / "cut.json", "Remove the folder.")
    names = [f"{clip}.mp4" for clip in content["clips"]] + [
        name for name in content["sources"] if name.endswith(".png")
    ]
    return content if all((target / name).is_file() for name in (*names, "data.json")) else None


def _read_session(source: Path) -> tuple[dict[str, Any], SessionData]:
    """``session.json``, and the answers as ``data.json`` will have them."""
    session, answers = (read_json(source / name, LEAVE_OUT) for name in ("session.json", "answers.json"))
    if session.get("state") != "complete":
        raise FergiError(f"{source} was not completed (state: {session.get('state')}). Leave it out.")
    content = {name: answers.get(name) for name in ("survey", "ranking_start")}
    content |= {name: session.get(name) for name in ("prompt", "kind")}
    ranking = answers.get("ranking")
    content["ranking"] = [{"id": place} for place in ranking] if isinstance(ranking, list) else ranking
    try:
        return session, parse_session_data(content, session["n_images"])
    except ValueError as error:
        raise FergiError(f"{source}: {error}. {LEAVE_OUT}") from None


def _is_black(picture: Path) -> bool:
    try:
        return is_black(open_picture(picture))
    except ValueError as error:
        raise FergiError(f"{error}. {LEAVE_OUT}") from None


def _unseen(clips: Sequence[PlannedClip], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Clips during which the page was hidden, in a few words each."""
    changes = [(float(event["time"]), event["name"]) for event in events if event.get("name") in ("hidden", "visible")]
    found = []
    for clip in clips:
        before = [name for time, name in changes if time <= clip.start]
        during = [name for time, name in changes if clip.start < time <= clip.grid[-1]]
        if "hidden" in (*before[-1:], *during):
            found.append(f"the page was hidden during {clip.name}")
    return found


def _marks(
    clips: Sequence[PlannedClip], events: Sequence[Mapping[str, Any]], recording: Recording
) -> dict[str, dict[str, Any]]:
    """For each clip its place in the recording, and the events from its start to the next page, in its own seconds."""
    marks = {}
    for clip in clips:
        end = clip.grid[-1] + 1000  # a page may stay a little longer than its clip
        during = [
            {"name": event["name"], "seconds": round((event.get("renderTime", event["time"]) - clip.start) / 1000, 4)}
            for event in events
            if clip.start <= event["time"] <= end and event.get("image", clip.image) == clip.image
        ]
        place = round((clip.start - recording.zero) / 1000, 4)
        marks[clip.name] = {"recording_seconds": place, "events": during}
    return marks


def _put_in_place(temporary: Path, target: Path) -> None:
    """Give a finished folder its name, in place of an older one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)


# Video ---------------------------------------------------------------------------------------------------------------


def write_clips(
    path: Path, recording: Recording, clips: Sequence[PlannedClip], folder: Path, stopped: Callable[[], bool]
) -> None:
    """Write all clips of a recording in one pass through it.

    Raises
    ------
    FergiError
        If a frame that a clip needs cannot be decoded.
    """
    chosen = [recording.places[newest_frames(recording.times, clip.grid)] for clip in clips]
    wanted = [Counter(places.tolist()) for places in chosen]  # place → how many frames of the clip it becomes
    writers: dict[str, _Writer] = {}
    for frame in _decode(path):
        if stopped():
            raise Interrupted
        place = frame.pts  # which writing changes
        for clip, places in zip(clips, wanted, strict=True):
            if n_times := places.pop(place, 0):
                if clip.name not in writers:
                    writers[clip.name] = _Writer(folder / f"{clip.name}.mp4", frame)
                writers[clip.name].write(frame, n_times)
                if not places:
                    writers.pop(clip.name).close()
    lost = sum(sum(places.values()) for places in wanted)
    if lost:
        n_frames = sum(clip.n_frames for clip in clips)
        raise FergiError(f"{lost} of {n_frames} frames of the clips cannot be decoded from {path}. {LEAVE_OUT}")


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """The frames that can be decoded; none from a damaged one to the next keyframe, since they build on each other."""
    with av.open(str(path.absolute())) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}  # no concealment
        packets, sound = container.demux(stream), True
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                for frame in packet.decode():
                    sound = (sound or frame.key_frame) and not frame.is_corrupt
                    if sound:
                        yield frame
            except av.InvalidDataError:
                sound = False  # a damaged frame, or the cut
            except av.FFmpegError:
                return


class _Writer:
    """One clip that is being written; one thread, so that the same frames give the same bytes everywhere."""

    def __init__(self, path: Path, first: av.VideoFrame):
        self.width, self.height = first.width - first.width % 2, first.height - first.height % 2  # yuv420p halves them
        self.n_frames = 0
        # In memory, a megabyte: PyAV can crash the process when a disk is full.
        self.path, self.buffer = path, io.BytesIO()
        self.container = av.open(self.buffer, "w", format="mp4")
        self.stream = self.container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=ENCODING)
        self.stream.width, self.stream.height, self.stream.pix_fmt = self.width, self.height, "yuv420p"
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.color_range = first.color_range
        self.stream.codec_context.colorspace = first.colorspace

    def write(self, frame: av.VideoFrame, n_times: int) -> None:
        frame = frame.reformat(self.width, self.height, "yuv420p")
        frame.pict_type = PictureType.NONE  # or the recording's keyframes would be the clip's
        frame.time_base = 1 / self.stream.codec_context.rate
        for _ in range(n_times):
            frame.pts = self.n_frames
            self.container.mux(self.stream.encode(frame))
            self.n_frames += 1

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()
        with self.path.open("wb") as file:
            file.write(self.buffer.getbuffer())
            os.fsync(file.fileno())


def verify(target: Path) -> None:
    """Stop unless every clip of a cut session can be decoded whole: all frames, at 30 a second.

    Raises
    ------
    FergiError
        Naming the first clip that cannot.
    """
    content = _read_cut(target)
    if content is None:
        raise FergiError(f"{target} is not complete. Run cut_clips.py again.")
    for name, n_frames in content["clips"].items():
        path = target / f"{name}.mp4"
        try:
            with av.open(str(path.absolute())) as container:
                times = np.array([frame.time for frame in container.decode(video=0)], float)
        except (av.FFmpegError, OSError):
            times = np.array([])
        if len(times) != n_frames or np.abs(times - np.arange(n_frames) / FRAMES_PER_SECOND).max(initial=0) > 1e-6:
            raise FergiError(f"{path} does not have {n_frames} frames. Remove {target} and run cut_clips.py again.")
