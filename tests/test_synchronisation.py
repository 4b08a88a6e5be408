"""The recording's zero and what its log confirms: recordings with known capture times; no browser here."""

import json

import numpy as np
import pytest
from numbered import captures, write_recording, write_session

import config
from fergi.files import FergiError
from fergi.recording.synchronisation import (
    FIRST_CAPTURE,
    START_CALL,
    beyond,
    evidence,
    locate,
    newest_frames,
    plan_clips,
    read_log,
    recorded_times,
)

REFUSE, FLAG = config.RECORDING_LIMITS["refuse"], config.RECORDING_LIMITS["flag"]
FIRST = 20  # the frame with which the recording begins


def recorded(tmp_path, times, *, ending="mkv", drop=()):
    """A recording of the frames from ``FIRST`` on; the page's logs."""
    path = tmp_path / f"recording.{ending}"
    kept = [number for number in range(FIRST, len(times)) if number not in drop]
    write_recording(path, times[kept] - times[FIRST], kept)
    frames = [{"captureTime": time, "presentedFrames": number} for number, time in enumerate(times.tolist())]
    return path, [{"name": "recorder_starting", "time": times[FIRST] - 12.0}], frames


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("late", [-0.7, 0.5, 12.0, 29.0])
def test_planted_offset(tmp_path, ending, late):
    """The zero is the planted one, wherever the call was and however late the recorder's event; frames have their
    exact capture times, though the file rounds them. At −0.7 ms the first frame was still on its way at the call.
    """
    times = captures(120, seed=3)
    path, events, frames = recorded(tmp_path, times, ending=ending)
    events = [{"name": "recorder_starting", "time": times[FIRST] - late}, {"name": "recorder_started", "time": 9e9}]
    found = locate(path, events, frames)
    assert (found.rule, found.zero, found.missed_at_start) == (FIRST_CAPTURE, times[FIRST], 0)
    assert found.confirmed.all()
    np.testing.assert_array_equal(found.times, times[FIRST:])


@pytest.mark.parametrize("lost", [[FIRST], [FIRST, FIRST + 1], [FIRST - 1, FIRST]])
def test_log_lacks_frames_at_the_start(tmp_path, lost):
    """The first captureTime in the log is then not the recording's first frame; the other times of the log tell."""
    times = captures(120, seed=4, jitter=6)
    path, events, frames = recorded(tmp_path, times)
    found = locate(path, events, [frame for number, frame in enumerate(frames) if number not in lost])
    assert found.missed_at_start == len(lost) and abs(found.zero - times[FIRST]) < 1
    np.testing.assert_allclose(found.times, times[FIRST:], atol=1.0)


def test_log_of_another_recording_is_refused(tmp_path):
    """Times that the log does not confirm; a camera without jitter would be confirmed by any, so this one has some."""
    path, events, _ = recorded(tmp_path, captures(200, seed=5, jitter=8))
    other = [{"captureTime": t, "presentedFrames": n} for n, t in enumerate(captures(200, seed=6, jitter=8).tolist())]
    found = locate(path, events, other)
    assert found.confirmed.mean() < 0.5
    report = {"matched_share": found.confirmed.mean(), "repeated_share": 0, "oldest_frame": 0.02}
    assert beyond(report, REFUSE)[0].startswith("the log confirms the times of only")


@pytest.mark.parametrize("frames", [[], [{"captureTime": None, "presentedFrames": 3}]])
def test_browser_without_capture_times(tmp_path, frames):
    """The zero is the call itself, and the record says so."""
    times = captures(60)
    path, events, _ = recorded(tmp_path, times)
    found = locate(path, events, frames)
    assert (found.rule, found.zero, found.missed_at_start) == (START_CALL, times[FIRST] - 12, None)
    np.testing.assert_allclose(found.times, times[FIRST:] - 12, atol=0.51)


def test_newest_frames():
    """By hand: a frame counts from its own moment on."""
    times = np.array([10.0, 40.0, 70.0])
    for moment, frame in ((9.9, -1), (10.0, 0), (39.9, 0), (40.0, 1), (69.0, 1), (500.0, 2)):
        assert newest_frames(times, np.array([moment])).tolist() == [frame]
    # A frame is not repeated if the next one comes within 8 ms.
    assert newest_frames(times, np.array([1.9, 15, 31.9, 32.0, 62.0, 70])).tolist() == [-1, 0, 0, 1, 2, 2]
    assert newest_frames(times, np.array([2.0, 2.0, 31.0, 65.0])).tolist() == [-1, 0, 0, 1]


def test_uneven_camera_at_the_edge_of_frames():
    """30 frames a second that come up to 4 ms early or late of the moments: one is skipped, none repeated."""
    moments = 1000 / 30 * np.arange(150)
    times = moments + np.random.default_rng(1).uniform(-4, 4, 150)
    strict = np.searchsorted(times, moments, side="right") - 1
    assert np.mean(np.diff(strict) == 0) > 0.2
    chosen = newest_frames(times, moments)
    assert chosen[0] == strict[0] and sorted(np.diff(chosen)) == [1] * 148 + [2]
    assert (times[chosen[1:]] <= moments[1:] + 8).all() and np.abs(chosen - strict).max() <= 1


def test_evidence(tmp_path):
    """Gaps, repeats, missed callbacks: each as planted, and beyond the limits where it should be."""
    write_session(tmp_path / "good")
    good = judged(tmp_path / "good")
    assert good["matched_share"] == 1 and good["gaps"] == 0 and good["missed_callbacks"] == 0
    assert good["repeated_share"] < 0.1 and good["oldest_frame"] < 0.04 and not beyond(good, FLAG)

    times = captures(330)
    shown = int(np.searchsorted(times, times[20] + 400.3))  # the first frame in the first clip, which takes 30
    write_session(tmp_path / "gap", drop=range(shown + 5, shown + 14))
    gap = judged(tmp_path / "gap")
    assert gap["gaps"] == 1 and gap["longest_gap"] == pytest.approx(
        (times[shown + 14] - times[shown + 4]) / 1e3, abs=2e-3
    )
    assert 0.29 <= gap["oldest_frame"] <= gap["longest_gap"] and 0.2 < gap["repeated_share"] < 0.37
    assert gap["matched_share"] == 1 and not beyond(gap, REFUSE)
    assert beyond(gap, FLAG) == [
        f"a clip repeats {100 * gap['repeated_share']:.0f} % of its frames",
        f"a clip has no new frame for {gap['oldest_frame']:.2f} s",
    ]

    write_session(tmp_path / "slow", drop=[n for n in range(21, 330) if n % 3])  # 10 FPS
    slow = judged(tmp_path / "slow")
    assert slow["frames_per_second"] == pytest.approx(10, abs=0.1)
    assert len(beyond(slow, REFUSE)) == 1 and "repeats 6" in beyond(slow, REFUSE)[0]

    log = tmp_path / "good" / "frames.jsonl"
    log.write_text("".join(line for number, line in enumerate(log.open()) if number % 50 or not number))
    missed = judged(tmp_path / "good")
    assert missed["missed_callbacks"] == 6 and 0.97 < missed["matched_share"] < 1


def judged(folder):
    """The evidence of a session's folder."""
    session = json.loads((folder / "session.json").read_text())
    logs = [read_log(folder / f"{name}.jsonl") for name in ("events", "frames")]
    return evidence(folder / "recording.mkv", *logs, session["n_images"], session["seconds"])


def test_recording_cut_off_anywhere(tmp_path):
    """Never an exception, never a frame that was not there; what ends too early is refused."""
    events = write_session(tmp_path / "session")
    path = tmp_path / "session" / "recording.mkv"
    whole, times = path.read_bytes(), recorded_times(path)[1]
    clip = (events[-3]["time"] - captures()[FIRST]) / 1000  # the last one, of a second
    last = 0
    for size in [0, 3, 100, *range(400, len(whole), len(whole) // 40)]:
        path.write_bytes(whole[:size])
        found = judged(tmp_path / "session")
        if "problem" not in found:
            assert found["recorded_frames"] >= last
            last = found["recorded_frames"]
            np.testing.assert_array_equal(recorded_times(path)[1], times[:last])
        end = times[last - 1] if last else 0
        assert end < clip + 1 if beyond(found, REFUSE) else end > clip + 0.3
    assert last > 0.9 * len(times)


def test_log_lines(tmp_path):
    """In any order, twice, or cut off in the last line; but not with one missing."""
    path = tmp_path / "events.jsonl"
    lines = ['{"number": 2, "name": "c"}', '{"number": 0, "name": "a"}', '{"number": 1, "name": "b"}']
    path.write_text("\n".join([*lines, lines[0], '{"number": 3, "na']))
    assert [entry["name"] for entry in read_log(path)] == ["a", "b", "c"]
    for text, reason in (
        ("\n".join(lines[:2]), r"lacks 1 of 3 entries \(first: 1\)"),
        ("3\n", "Line 1 of .*events.jsonl is not an object"),
        ('{"number": 0}\n{"num\n{"number": 1}\n', "Line 2"),
    ):
        path.write_text(text)
        with pytest.raises(FergiError, match=reason) as caught:
            read_log(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FergiError, match="Cannot read"):
        read_log(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda events: events.pop(2), "baseline_shown of image 1 0 times"),
        (lambda events: events.append(events[3]), "image_shown of image 1 2 times"),
        (lambda events: events[5].update(time=events[3]["time"] + 890), "reaction page of image 1 .* 0.89 s and not"),
    ],
)
def test_events_that_cannot_be_used(tmp_path, change, reason):
    """Missing, doubled, or a page that went too early."""
    events = write_session(tmp_path / "session")
    assert len(plan_clips(events, 2, {"baseline": 1, "image": 1})) == 4
    change(events)
    with pytest.raises(FergiError, match=reason):
        plan_clips(events, 2, {"baseline": 1, "image": 1})


@pytest.mark.parametrize("n_calls", [0, 2])
def test_recorder_started_once(tmp_path, n_calls):
    """Two recorders in one log cannot be told apart."""
    path, events, frames = recorded(tmp_path, captures(40))
    with pytest.raises(FergiError, match=f"has the recorder's start {n_calls} times, not once"):
        locate(path, events * n_calls, frames)
