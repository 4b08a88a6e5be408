"""When each frame of a recording was captured, on the clock of the page that recorded it.

The page logs ``captureTime`` and ``presentedFrames`` of every frame that its preview shows, from before the recorder's
``start()`` on, and the time of each page change, all in milliseconds of its performance clock. The time 0 of the
recording is the first ``captureTime`` after the ``start()`` call; the ``start`` event comes later by up to 0.7 s. All
other times of the file are then capture times on the page's clock, and the log must confirm that. Rarely the recording
begins with a frame that was captured just before the call and was still on its way; the log tells that, too. A browser
without ``captureTime`` (Firefox) leaves the call itself, which is right to a frame or two.

A frame belongs to a moment if it is the newest that was captured by then (see ``newest_frames``). What a webcam and a
screen delay before and after that is not in any of these times.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fergi.files import FergiError
from fergi.video import UnreadableVideo

FRAMES_PER_SECOND = 30  # of the clips (Section 3.3)
FIRST_CAPTURE = "first captureTime after the start() call"
START_CALL = "start() call (no captureTime in this browser)"
# How far a recorded time may be from its captureTime, ms: containers round to 1 ms, or mp4 to 1/30000 s of a sum.
TOLERANCE, MP4_TOLERANCE = 1.5, 3.0
GAP = 0.1  # seconds without a new frame that are counted as a gap: three frames
EARLY = 8.0  # ms, a quarter of a frame, by which a clip may be early rather than repeat a frame
MARGIN = 0.05  # share of frames by which another zero must fit better than the first captureTime


@dataclass(frozen=True)
class Recording:
    """The frames of a recording on the page's clock.

    ``times`` are ms, ascending, shape (n_frames,): the captureTime where one confirms the recorded time, else the
    recorded time. ``places`` are the frames' places in the file's own unit of time (``pts``).
    """

    places: np.ndarray
    times: np.ndarray
    zero: float  # ms
    rule: str  # ``FIRST_CAPTURE`` or ``START_CALL``
    confirmed: np.ndarray  # bool, shape (n_frames,): a captureTime lies where the recorded time says
    missed_at_start: int | None  # frames that the log lacks around the start() call; None if it cannot say


@dataclass(frozen=True)
class PlannedClip:
    """One clip on the page's clock."""

    kind: str  # baseline or reaction
    image: int  # from 1
    start: float  # ms
    n_frames: int

    @property
    def name(self) -> str:
        """The name of its file without the ending."""
        return f"{self.kind}_clip_{self.image}"

    @property
    def grid(self) -> np.ndarray:
        """The moment of each frame, ms, shape (n_frames,)."""
        return self.start + 1000 * np.arange(self.n_frames) / FRAMES_PER_SECOND


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of ``events.jsonl`` or ``frames.jsonl``, by ``number`` if they have one.

    A last line that was cut off is left away; a line that arrived twice counts once.

    Raises
    ------
    FergiError
        If the file is missing, a line is not an object, or a number is missing.
    """
    advice = "The session cannot be cut; leave it out, or restore the file."
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise FergiError(f"Cannot read {path}: {error.strerror}. {advice}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            entries.append(entry)
        elif number < len(lines) or line.endswith(b"\n"):
            raise FergiError(f"Line {number} of {path} is not an object of JSON. {advice}")
    if not all(type(entry.get("number")) is int for entry in entries):
        return entries
    by_number = {entry["number"]: entry for entry in entries}
    missing = sorted(set(range(max(by_number, default=-1) + 1)) - set(by_number))
    if missing:
        raise FergiError(f"{path} lacks {len(missing)} of {max(by_number) + 1} entries (first: {missing[0]}). {advice}")
    return [by_number[number] for number in sorted(by_number)]


def recorded_times(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The times of all frames in a file, in its own unit and in seconds, both ascending, shape (n_frames,).

    Nothing is decoded. Where a file is cut off, the frames before the cut are found.

    Raises
    ------
    UnreadableVideo
        If the file has no frames.
    """
    import av  # not with the module: config's readers need no video library

    places = []
    try:
        with av.open(str(path.absolute())) as container:
            stream = container.streams.video[0]
            seconds = float(stream.time_base)
            try:
                places = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            except av.FFmpegError:
                pass  # the cut
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UnreadableVideo(f"{path} is not a video that can be opened: {error}") from None
    if not places:
        raise UnreadableVideo(f"{path} has no frames")
    unique = np.unique(np.array(places, np.int64))
    return unique, unique * seconds


def locate(path: Path, events: Sequence[Mapping[str, Any]], frames: Sequence[Mapping[str, Any]]) -> Recording:
    """A recording on the page's clock.

    ``events`` and ``frames`` are the page's logs (``read_log``).

    Raises
    ------
    UnreadableVideo
        If the file has no frames.
    FergiError
        If the log does not have the ``start()`` call exactly once.
    """
    places, seconds = recorded_times(path)
    recorded = 1000 * seconds
    calls = [float(event["time"]) for event in events if event.get("name") == "recorder_starting"]
    if len(calls) != 1:
        raise FergiError(f"The log beside {path} has the recorder's start {len(calls)} times, not once. Leave it out.")
    call = calls[0]
    captures, presented = _captures(frames)
    first = int(np.searchsorted(captures, call, side="right"))
    if first == len(captures):
        return Recording(places, call + recorded, call, START_CALL, np.zeros(len(recorded), bool), None)

    tolerance = MP4_TOLERANCE if path.suffix == ".mp4" else TOLERANCE
    missed = None if first == 0 else max(0, int(presented[first] - presented[first - 1]) - 1)
    # The last frame captured before the call, or frames that the log lacks around it, may be the recording's first.
    n_before = len(recorded) if missed is None else 1 + missed
    earlier = captures[first] - recorded[1:n_before]
    candidates = [captures[first], *captures[max(0, first - 1) : first], *earlier[earlier > call]]
    found = [_nearest(captures, zero + recorded, tolerance) for zero in candidates]
    share = np.array([confirmed.mean() for _, confirmed in found])
    chosen = int(np.argmax(share)) if share.max() > share[0] + MARGIN else 0
    zero = float(candidates[chosen])
    nearest, confirmed = found[chosen]
    times = np.maximum.accumulate(np.where(confirmed, nearest, zero + recorded))
    return Recording(places, times, zero, FIRST_CAPTURE, confirmed, missed)


def _captures(frames: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Ascending captureTimes and presentedFrames of the log's entries that have both."""
    logged = sorted(
        (float(frame["captureTime"]), int(frame["presentedFrames"]))
        for frame in frames
        if frame.get("captureTime") is not None and frame.get("presentedFrames") is not None
    )
    times, counts = np.array(logged).reshape(-1, 2).T
    return times, counts


def _nearest(captures: np.ndarray, times: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The captureTime nearest to each time, and whether it is within the tolerance."""
    after = np.searchsorted(captures, times).clip(1, max(1, len(captures) - 1))
    pair = np.stack([captures[after - 1], captures[np.minimum(after, len(captures) - 1)]])
    nearest = np.take_along_axis(pair, np.abs(pair - times).argmin(axis=0)[None], axis=0)[0]
    return nearest, np.abs(nearest - times) <= tolerance


def plan_clips(events: Sequence[Mapping[str, Any]], n_images: int, seconds: Mapping[str, float]) -> list[PlannedClip]:
    """The clips of a session: from ``baseline_shown`` and from ``image_shown`` of each image on.

    ``seconds`` are those of ``session.json``: how long a ``baseline`` and an ``image`` is shown.

    Raises
    ------
    FergiError
        If the log has one of these events not once, or a page was shown for less than the clip, by more than ``GAP``.
    """
    clips = []
    for image in range(1, n_images + 1):
        marks = [_mark(events, name, image) for name in ("baseline_shown", "image_shown", "image_hidden")]
        shown = zip(("baseline", "reaction"), marks, marks[1:], (seconds["baseline"], seconds["image"]), strict=False)
        for kind, start, end, wanted in shown:
            if end - start < 1000 * (wanted - GAP):
                raise FergiError(
                    f"The {kind} page of image {image} was shown for {(end - start) / 1000:.2f} s and not for "
                    f"{wanted:g} s. The session cannot be cut; leave it out."
                )
            clips.append(PlannedClip(kind, image, start, round(wanted * FRAMES_PER_SECOND)))
    return clips


def _mark(events: Sequence[Mapping[str, Any]], name: str, image: int) -> float:
    """The time of an image's event, ms."""
    times = [event["time"] for event in events if event.get("name") == name and event.get("image") == image]
    if len(times) != 1:
        raise FergiError(
            f"The log has {name} of image {image} {len(times)} times and not once. The session cannot be cut; leave "
            "it out."
        )
    return float(times[0])


def newest_frames(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The place of the newest frame at each moment, both in ms and ascending; −1 before the first frame.

    Where that is the frame of the moment before, the next frame takes its place if it was captured within ``EARLY``
    after the moment. Otherwise a camera that is as fast as the moments, but not as regular, would have frames repeated
    and skipped whenever the moments fall where frames change.
    """
    newest = np.searchsorted(times, moments, side="right") - 1
    for place in range(1, len(newest)):
        if newest[place] <= newest[place - 1]:
            following = newest[place - 1] + 1
            early = following < len(times) and times[following] <= moments[place] + EARLY
            newest[place] = following if early else following - 1
    return newest


def evidence(
    path: Path,
    events: Sequence[Mapping[str, Any]],
    frames: Sequence[Mapping[str, Any]],
    n_images: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """What a recording and its logs say about each other, for the session's record; nothing is decoded.

    Returns
    -------
    dict
        ``recorded_frames``, ``frames_per_second``, ``zero`` (ms), ``zero_rule``, ``matched_share`` (of the recorded
        frames, those that a captureTime confirms; None without captureTimes), ``missed_callbacks`` (frames that the
        log lacks, by ``presentedFrames``), ``missed_at_start``, ``gaps`` (longer than ``GAP``), ``longest_gap``
        (seconds), and over all clips the worst ``repeated_share`` (of a clip's frames, those that are the one before)
        and ``oldest_frame`` (seconds by which the newest frame is older than its moment). A recording that cannot be
        judged has ``problem`` instead, a sentence.
    """
    try:
        recording = locate(path, events, frames)
        clips = plan_clips(events, n_images, seconds)
    except (FergiError, UnreadableVideo) as error:
        return {"problem": str(error)}
    return describe(recording, clips, frames)


def describe(recording: Recording, clips: Sequence[PlannedClip], frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``evidence`` of a recording that is located and planned already."""
    _, presented = _captures(frames)
    steps = np.diff(recording.times) / 1000
    length = float(steps.sum())
    chosen = [newest_frames(recording.times, clip.grid) for clip in clips]
    before_first = any((frame < 0).any() for frame in chosen)
    ages = [(clip.grid - recording.times[frame]).max() for clip, frame in zip(clips, chosen, strict=True)]
    repeats = [np.count_nonzero(np.diff(frame) == 0) / len(frame) for frame in chosen]
    return {
        "recorded_frames": len(recording.times),
        "frames_per_second": round(len(steps) / length, 2) if length else 0.0,
        "zero": round(recording.zero, 3),
        "zero_rule": recording.rule,
        "matched_share": round(float(recording.confirmed.mean()), 4) if recording.rule == FIRST_CAPTURE else None,
        "missed_callbacks": int(np.maximum(np.diff(presented) - 1, 0).sum()),
        "missed_at_start": recording.missed_at_start,
        "gaps": int(np.count_nonzero(steps > GAP)),
        "longest_gap": round(float(steps.max(initial=0)), 3),
        "repeated_share": round(float(max(repeats, default=0)), 4),
        "oldest_frame": None if before_first else round(float(max(ages, default=0)) / 1000, 3),
    }


def beyond(evidence: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """What of the evidence is worse than the limits (``config.RECORDING_LIMITS``), each a few words."""
    if "problem" in evidence:
        return [evidence["problem"]]
    found = []
    matched, oldest = evidence["matched_share"], evidence["oldest_frame"]
    if matched is not None and matched < limits["matched_share"]:
        found.append(f"the log confirms the times of only {100 * matched:.0f} % of the frames")
    if evidence["repeated_share"] > limits["repeated_share"]:
        found.append(f"a clip repeats {100 * evidence['repeated_share']:.0f} % of its frames")
    if oldest is None:
        found.append("a clip begins before the recording")
    elif oldest > limits["oldest_frame"]:
        found.append(f"a clip has no new frame for {oldest:.2f} s")
    return found
