"""Pictures that carry their number, and recorded sessions made of them, so that each frame of a clip can be told."""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fergi.dataset import EMOTIONS, ISSUES

BITS = 16
READABLE = 60  # grey levels between a block and its complement


def numbered(number: int, width: int = 160, height: int = 120) -> np.ndarray:
    """An RGB picture with two rows of blocks at its top: the bits of its number and their complement."""
    picture = np.full((height, width, 3), (60 + number * 7 % 120, 90, 130), np.uint8)
    block = width // BITS
    for place in range(BITS):
        bit = number >> place & 1
        columns = slice(place * block, (place + 1) * block)
        picture[:block, columns], picture[block : 2 * block, columns] = 235 * bit + 10, 235 * (1 - bit) + 10
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number of a picture of any size; −1 if a block cannot be read."""
    grey, block = picture.mean(axis=2), picture.shape[1] / BITS
    rows = [slice(round((row + 0.3) * block), round((row + 0.7) * block)) for row in range(2)]
    columns = [slice(round((place + 0.3) * block), round((place + 0.7) * block)) for place in range(BITS)]
    levels = np.array([[grey[row, column].mean() for column in columns] for row in rows])
    difference = levels[0] - levels[1]
    if (np.abs(difference) < READABLE).any():
        return -1
    return int(((difference > 0) << np.arange(BITS)).sum())


def write_recording(path: Path, milliseconds: Iterable[float], numbers: Iterable[int], codec: str = "libx264") -> None:
    """A recording of numbered pictures at these times of the file, as a browser writes it: no constant rate."""
    unit = Fraction(1, 30_000) if path.suffix == ".mp4" else Fraction(1, 1000)
    fast = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {"deadline": "realtime"}
    options = {"movflags": "frag_keyframe+empty_moov"} if path.suffix == ".mp4" else {}
    container_format = {".mkv": "matroska"}.get(path.suffix, path.suffix[1:])
    with av.open(str(path), "w", format=container_format, options=options) as container:
        stream = container.add_stream(codec, rate=30, options=fast)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = stream.time_base = unit
        stream.codec_context.gop_size = 15
        for time, number in zip(milliseconds, numbers, strict=True):
            frame = av.VideoFrame.from_ndarray(numbered(number))
            frame.pts, frame.time_base = round(time / 1000 / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def captures(n: int = 330, seed: int = 0, jitter: float = 4.0) -> np.ndarray:
    """The capture times of a camera on the page's clock, ms."""
    return 5000 + 1000 / 30 * np.arange(n) + np.random.default_rng(seed).uniform(-jitter, jitter, n)


def write_session(
    folder: Path,
    *,
    n_images: int = 2,
    seconds: float = 1.0,
    times: np.ndarray | None = None,
    start: int = 20,
    black: Sequence[int] = (),
    ending: str = "mkv",
    codec: str = "libx264",
    drop: Sequence[int] = (),
) -> list[dict]:
    """A complete session as the server leaves it; its events.

    The camera takes picture number i at ``times[i]``; the recorder begins with number ``start``, and ``drop`` are those
    that it loses. The pages follow each other at odd moments.
    """
    times = captures(max(330, 120 + round(75 * seconds * n_images))) if times is None else times
    folder.mkdir(parents=True)
    recorded = [number for number in range(start, len(times)) if number not in drop]
    write_recording(folder / f"recording.{ending}", times[recorded] - times[start], recorded, codec)
    events = [{"name": "recorder_starting", "time": times[start] - 12.3}, {"name": "recorder_started", "time": 6100.7}]
    now = float(times[start]) + 400.3
    for image in range(1, n_images + 1):
        for name, stay in (("baseline_shown", seconds), ("image_shown", seconds), ("image_hidden", 0.1)):
            events.append({"name": name, "image": image, "time": now})
            if name == "image_shown":
                events.append({"name": "image_rendered", "image": image, "time": now + 20, "renderTime": now + 16.5})
            now += 1000 * stay + 7.77
    events.append({"name": "recorder_stopped", "time": now})
    assert now < times[-1], "the camera stops before the session"
    survey = {"overallRating": 4, "alignmentRating": 1, "fidelityRating": 7, "missingElements": "a hat"}
    survey |= {"issuesList": dict.fromkeys(ISSUES, False), "reactionList": dict.fromkeys(EMOTIONS, True)}
    order = list(range(n_images))
    answers = {"survey": [survey] * n_images, "ranking": order[::-1], "ranking_start": order[1:] + order[:1]}
    session = {"kind": "free", "prompt": "two red cats", "state": "complete", "n_images": n_images}
    session["seconds"] = {"baseline": seconds, "image": seconds}
    for name, content in (("session", session), ("answers", answers), ("images", [{}] * n_images)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    numbered_events = ({"number": number} | event for number, event in enumerate(events))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in numbered_events))
    frames = ({"captureTime": time, "presentedFrames": number} for number, time in enumerate(times.tolist()))
    (folder / "frames.jsonl").write_text("".join(json.dumps(frame) + "\n" for frame in frames))
    (folder / "images").mkdir()
    for image in range(1, n_images + 1):
        picture = Image.new("RGB", (32, 32), "black" if image in black else (20 * image, 100, 50))
        picture.save(folder / "images" / f"image{image}.png")
    return events


def write_consent(folder: Path, **changes) -> None:
    """The consent of a participant."""
    folder.mkdir(parents=True, exist_ok=True)
    consent = {"recording": True, "sharing": True, "withdrawn": False} | changes
    (folder / "consent.json").write_text(json.dumps(consent))
