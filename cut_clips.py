"""Cut the sessions that collect_sessions.py recorded into baseline and reaction clips at 30 FPS (Section 3.3).

Reads   recordings/<participant>/consent.json
        recordings/<participant>/session_<n>/    recording, events and frames of the page, answers, images
Writes  data/<participant>/session_<n>/{baseline,reaction}_clip_<i>.mp4, image<i>.png, data.json, cut.json
        data/<participant>/consent.json
        preparation/valid_sessions.json, invalid_images.json    new sessions are added, all others stay
Run     python cut_clips.py
        python cut_clips.py --remove-raw    (removes recordings whose clips are complete)
Takes   about a second a clip and core; no GPU.

Sessions that are cut already are skipped, those whose files have changed are cut again, and an interrupted run resumes.
A session whose recording and log disagree is refused: the others are cut, it is named at the end, and the exit code is
1. Sessions that were stopped or interrupted are not cut. Recordings stay until --remove-raw. Next comes stage 4,
clips_facial_process.py.
"""

import fcntl
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

import config
from fergi.dataset import Folders, check_participant, read_valid_sessions
from fergi.files import FergiError, check_writable, read_json, replacing, summarise, write_json
from fergi.recording.cutting import Cut, cut_session, find_recording, verify
from fergi.script import add_workers_argument, argument_parser, run

Session = tuple[str, int]  # participant, number


def find_sessions(folders: Folders) -> tuple[list[Session], int]:
    """All complete sessions, by participant and number, and how many others there are."""
    complete, n_others = [], 0
    for path in folders.recordings.glob("*/*session_*"):
        if match := re.fullmatch(r"session_(\d+)", path.name):
            complete.append((check_participant(path.parent.name), int(match[1])))
        else:
            n_others += path.name.startswith(".session_")
    if not complete:
        raise FergiError(f"There are no complete sessions in {folders.recordings}. Collect some: collect_sessions.py.")
    return sorted(complete), n_others


def consents(folders: Folders, participants: Sequence[str]) -> dict[str, str]:
    """Put each participant's consent beside the data; of whom nothing may be cut, and why."""
    refused = {}
    for participant in dict.fromkeys(participants):
        path = folders.recordings / participant / "consent.json"
        try:
            consent = read_json(path, "Nothing of this participant may be cut; move the folder out of recordings/.")
        except FergiError as error:
            refused[participant] = str(error)
            continue
        allowed = consent.get("recording") is True and consent.get("withdrawn") is False
        if allowed or (folders.data / participant).is_dir():  # so that exports know of a consent that was withdrawn
            with replacing(folders.data / participant / "consent.json") as file:
                file.write(path.read_bytes())
        if not allowed:
            advice = f"Remove everything: delete_participant.py {participant}."
            refused[participant] = f"{path} does not allow the recording. {advice}"
    return refused


def list_session(folders: Folders, session: Session, black: Sequence[int]) -> None:
    """Add a new session to ``valid_sessions.json`` and its black images to ``invalid_images.json``.

    One that was taken out by hand later stays out.

    A missing list of black images is begun only if it then has all valid sessions; otherwise stage 5 writes it.
    """
    participant, number = session
    valid = read_valid_sessions(folders) if folders.valid_sessions.is_file() else {}
    begins = not folders.black_images.is_file()
    images = {} if begins else read_json(folders.black_images, "Remove it; preprocess_image_data.py writes it again.")
    of_session = images.get(participant, {}) | {str(number): list(black)}
    new_images = images | {participant: dict(sorted(of_session.items(), key=lambda item: int(item[0])))}
    if images != new_images and not (begins and set(valid) - {participant}):
        write_json(dict(sorted(new_images.items())), folders.black_images)
    numbers = sorted({*valid.get(participant, ()), number})
    if numbers != valid.get(participant):
        write_json(dict(sorted((valid | {participant: numbers}).items())), folders.valid_sessions)


def cut_all(folders: Folders, sessions: Sequence[Session], workers: int) -> tuple[dict[Session, Cut], list[str]]:
    """Cut the sessions, several at once, and list them; also what could not be cut and why."""
    limits, stop, one_at_a_time = config.RECORDING_LIMITS, threading.Event(), threading.Lock()

    def cut(session: Session) -> Cut:
        def announce(black: Sequence[int]) -> None:
            with one_at_a_time:
                list_session(folders, session, black)

        places = folders.recorded_session(*session), folders.session(*session)
        return cut_session(*places, limits["refuse"], limits["flag"], announce, stop.is_set)

    done: dict[Session, Cut] = {}
    problems: dict[Session, str] = {}
    with ThreadPoolExecutor(workers) as threads:
        futures: dict[Future[Cut], Session] = {threads.submit(cut, session): session for session in sessions}
        try:
            for future in tqdm(as_completed(futures), "cutting", len(futures), unit="session", disable=None):
                session = futures[future]
                try:
                    done[session] = future.result()
                except FergiError as error:
                    problems[session] = str(error)
        except BaseException:
            stop.set()
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return dict(sorted(done.items())), [problems[session] for session in sorted(problems)]


def remove_raw(folders: Folders, sessions: Sequence[Session]) -> int:
    """Remove the recordings of sessions whose clips are complete and can be decoded; how many."""
    removed = 0
    for session in sessions:
        if recording := find_recording(folders.recorded_session(*session)):
            verify(folders.session(*session))
            recording.unlink()
            removed += 1
    return removed


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let no second run cut into the same folder."""
    with (folder / ".cutting").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FergiError(f"Another cut_clips.py writes into {folder}. Wait for it or stop it.") from None
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Cut what is new, list it, report."""
    parser = argument_parser(__doc__)
    add_workers_argument(parser, "sessions cut at once")
    parser.add_argument("--remove-raw", action="store_true", help="then remove recordings whose clips are complete")
    chosen = parser.parse_args(arguments)
    folders = Folders(chosen.root)
    sessions, n_others = find_sessions(folders)
    for folder in (folders.data, folders.preparation):
        check_writable(folder)
    with only_one(folders.data):
        refused = consents(folders, [participant for participant, _ in sessions])
        done, problems = cut_all(folders, [each for each in sessions if each[0] not in refused], chosen.workers)
        problems += [refused[participant] for participant, _ in sessions if participant in refused]
        n_new = sum(cut.is_new for cut in done.values())
        print(f"{len(sessions)} complete sessions: {n_new} cut, {len(done) - n_new} cut already.")
        if n_others:
            print(f"{n_others} others were stopped or interrupted; they are not cut.")
        for (participant, number), cut in done.items():
            for warning in cut.warnings:
                print(f"Warning: {participant}, session {number}: {warning}.")
        if chosen.remove_raw:
            print(f"Removed {remove_raw(folders, list(done))} recordings; logs, answers and images stay.")
    if problems:
        advice = f"The others are cut and listed in {folders.valid_sessions}."
        raise summarise(problems, len(sessions), "sessions", advice, "are not cut")


if __name__ == "__main__":
    run(main)
