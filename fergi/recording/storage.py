"""A study's participants and sessions on disk, as files only.

``recordings/<participant>/`` has ``consent.json`` and sessions. A session is ``.session_<n>`` until it is complete,
then ``session_<n>``. One that was begun and not completed becomes ``.session_<n>_interrupted_<k>`` or, where the
participant stopped it and let it be kept, ``.session_<n>_stopped_<k>``; the next one has the number n again.

What a call has confirmed by returning is on the disk. All calls on one participant take turns.
"""

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from fergi.dataset import EMOTIONS, ISSUES, Folders
from fergi.deletion import LOCKS, find_traces, nobody_writes, remove_traces
from fergi.files import FergiError, read_json, write_json
from fergi.recording.study import RATINGS, Study

ENDINGS = {"video/x-matroska": "mkv", "video/webm": "webm", "video/mp4": "mp4"}  # of MediaRecorder's types
EBML = b"\x1a\x45\xdf\xa3"  # how matroska and webm begin
LARGEST_RECORDING = 8 << 30  # bytes
LARGEST_LOG = 64 << 20
SURVEY_KEYS = (*RATINGS, "issuesList", "reactionList")
LONGEST_ENTRY = 4000  # characters of JSON
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Refused(Exception):
    """A request that cannot be met: status, one sentence, and what else the answer says."""

    def __init__(self, status: int, sentence: str, **more: Any):
        super().__init__(sentence)
        self.status, self.sentence, self.more = status, sentence, more


def _hash(secret: str) -> str:
    """Of a random secret of 256 bits, which needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_secret(path: Path, given: str) -> bool:
    """Whether the file has the hash of what is given."""
    try:
        return hmac.compare_digest(path.read_text(), _hash(given))
    except FileNotFoundError:
        return False


def _keep_secret(path: Path) -> str:
    secret = secrets.token_urlsafe(32)
    path.write_text(_hash(secret))
    return secret


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Recordings:
    """Everything below ``recordings/``. One process at a time may have it."""

    LOCK = ".lock"

    def __init__(self, folders: Folders, study: Study):
        """Take the folder, and remove what a killed server was about to make or to delete.

        Raises
        ------
        FergiError
            If the folder cannot be written or another server has it.
        """
        self.study, self.folders, self.folder = study, folders, folders.recordings
        self._lock = threading.Lock()
        self._locks: dict[str, threading.RLock] = defaultdict(threading.RLock)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # faces are nobody else's
            self._taken = _take(self.folder / self.LOCK)
        except BlockingIOError:
            raise FergiError(
                f"Another server collects sessions in {self.folder}. Stop it or choose another --root."
            ) from None
        except OSError as error:
            raise FergiError(f"Cannot write into {self.folder}: {error.strerror}. Choose another --root.") from error
        for leftover in [*self.folder.glob(".new_*"), *self.folder.glob(".deleted_*")]:
            shutil.rmtree(leftover)

    def close(self) -> None:
        """Let another server have the folder."""
        self._taken.close()

    def add_participant(self, *, sharing: bool) -> tuple[str, str]:
        """A new participant who consented to the recording, and perhaps to sharing: name and key.

        Names are numbers, of three figures or more; none is given twice, even if its participant withdrew.
        """
        with self._lock:
            names = [
                path.name for folder in (self.folder, self.folders.data) if folder.is_dir() for path in folder.iterdir()
            ]
            if sum(name.isdecimal() for name in os.listdir(self.folder)) >= self.study.participants:
                raise Refused(403, "This study takes no more participants.")
            last = self.folder / ".last_participant"
            used = read_json(last, "Remove it.") if last.is_file() else 0
            number = 1 + max((used, *(int(name) for name in names if re.fullmatch("[0-9]{1,9}", name))))
            name, folder = f"{number:03}", self.folder / f".new_{secrets.token_hex(8)}"
            try:
                folder.mkdir()
                consent = {
                    "text_version": self.study.consent["version"],
                    "text_sha256": hashlib.sha256("\n\n".join(self.study.consent["paragraphs"]).encode()).hexdigest(),
                    "recording": True,
                    "sharing": sharing,
                    "time": now(),
                    "withdrawn": False,
                }
                write_json(consent, folder / "consent.json")
                key = _keep_secret(folder / ".key")
                write_json(number, last)
                folder.rename(self.folder / name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return name, key

    def participant(self, name: str, key: str) -> "Participant":
        """The participant of that name, if the key is theirs; otherwise refused, 401."""
        folder = self.folder / name
        if not re.fullmatch("[0-9]{3,9}", name) or not _is_secret(folder / ".key", key):
            raise Refused(401, "This browser is not known here. Begin again at the first page.")
        return Participant(folder, self.study, self._locks[name])

    def withdraw(self, participant: "Participant") -> int:
        """Delete everything of a participant below the root; in how many places there was something.

        Results that were found with their data go as well (see ``fergi.deletion``): the page promises that nothing
        is left. The key goes last, so that the browser can ask again if something cannot be removed.
        """
        with participant.lock:
            try:
                with nobody_writes(self.folders, [lock for lock in LOCKS if lock[1] != self.LOCK]):
                    traces = find_traces(self.folders, participant.name)
                    remove_traces([trace for trace in traces if trace.path != participant.folder])
            except FergiError as error:
                raise Refused(503, "Your data cannot be deleted just now. This page tries again.") from error
            _remove(participant.folder, self.folder)
        return len(traces)


def _take(path: Path) -> TextIO:
    """An open file that no other process can take as long as it is open."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


class Participant:
    """One participant's sessions."""

    def __init__(self, folder: Path, study: Study, lock: threading.RLock):
        self.folder, self.study, self.lock, self.name = folder, study, lock, folder.name

    def sessions(self) -> list[dict[str, Any]]:
        """Number, kind and state of each session begun; complete, interrupted or stopped."""
        found: dict[int, dict[str, Any]] = {}
        order = ("stopped", "interrupted", "complete")
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = re.fullmatch(r"(\.?)session_([0-9]+)(?:_(interrupted|stopped)_[0-9]+)?", path.name)
            if match and (path / "session.json").is_file():
                number, state = int(match[2]), match[3] or ("interrupted" if match[1] else "complete")
                kind = Session(self, number, path).read()["kind"]
                each = {"number": number, "kind": kind, "state": state}
                found[number] = max(found.get(number, each), each, key=lambda each: order.index(each["state"]))
        return [found[number] for number in sorted(found)]

    def next_session(self) -> dict[str, Any] | None:
        """Number and kind of the session to do now; None if all are complete."""
        number = 1 + max((each["number"] for each in self.sessions() if each["state"] == "complete"), default=0)
        kind = self.study.kind_of(number)
        return kind and {"number": number, "kind": kind}

    def start_session(self, kind: str) -> tuple[int, str]:
        """Begin the next session: its number, and the token without which nothing is written into it.

        The same session, begun before, is put aside if anything was recorded, and removed if not.
        """
        with self.lock:
            following = self.next_session()
            if following is None:
                raise Refused(409, "All your sessions are complete. Thank you.")
            if kind != following["kind"]:
                raise Refused(409, f"Your next session is a {following['kind']} one.", **following)
            number = following["number"]
            folder = self.folder / f".session_{number}"
            if folder.exists():
                Session(self, number, folder).put_aside("interrupted")
            folder.mkdir()
            content = {"participant": self.name, "number": number, "kind": kind, "prompt": None, "form": None}
            content |= {"proposals": [], "proposal": None, "study": self.study.identity}
            content |= {"seconds": self.study.seconds, "n_images": self.study.images_per_prompt}
            content |= {"state": "started", "started": now()}
            write_json(content, folder / "session.json")
            return number, _keep_secret(folder / ".token")

    def session(self, number: int, token: str, *, complete: bool = False) -> "Session":
        """The session under way, or with ``complete`` perhaps the complete one, if the token is its own."""
        under_way, done = self.folder / f".session_{number}", self.folder / f"session_{number}"
        folder = under_way if under_way.is_dir() else done
        if not folder.is_dir():
            raise Refused(404, "There is no such session under way.")
        if not token:
            raise Refused(400, "The request does not say which tab of the session it comes from.")
        if not _is_secret(folder / ".token", token):
            raise Refused(409, "This session goes on in another tab.")
        if folder == done and not complete:
            raise Refused(409, "This session is complete.")
        return Session(self, number, folder)


class Session:
    """One session's folder."""

    def __init__(self, participant: Participant, number: int, folder: Path):
        self.participant, self.number, self.folder, self.lock = participant, number, folder, participant.lock
        self.token = self._token()

    def _token(self) -> str:
        path = self.folder / ".token"
        return path.read_text() if path.is_file() else ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The participant's lock, while the session is still the one that was found; otherwise refused, 409."""
        with self.lock:
            if not self.token or self._token() != self.token:
                raise Refused(409, "This session goes on in another tab, or has ended.")
            yield

    def read(self) -> dict[str, Any]:
        """What ``session.json`` says."""
        return read_json(self.folder / "session.json", "Begin the session again.")

    def update(self, **changes: Any) -> None:
        """Change what it says."""
        write_json(self.read() | changes, self.folder / "session.json")

    def recording(self) -> Path | None:
        """The video, if its first chunk has come."""
        paths = [self.folder / f"recording.{ending}" for ending in ENDINGS.values()]
        return next((path for path in paths if path.is_file()), None)

    def append_recording(self, offset: int, data: bytes, mime: str) -> int:
        """Add a chunk at the end of the recording; how many bytes are there now.

        Any other place than the end is refused, 409, with the size; so no chunk gets in twice.
        """
        with self.held():
            path = self.recording()
            size = path.stat().st_size if path else 0
            if offset != size:
                raise Refused(
                    409, f"The recording has {size} bytes here, and this chunk begins at {offset}.", size=size
                )
            if not data:
                return size
            if size + len(data) > LARGEST_RECORDING:
                raise Refused(413, "The recording is too long.")
            if path is None:
                path = self.folder / f"recording.{_ending(mime, data)}"
                self.update(recording_type=mime)
            _append(path, data, size)
            return size + len(data)

    def append_lines(self, name: str, first: int, entries: Sequence[dict[str, Any]]) -> int:
        """Add entries, numbered from ``first``, to ``events.jsonl`` or ``frames.jsonl``; the next number.

        Entries that are there already are ignored if they are the same. Others, and a gap, are refused, 409, with the
        next number.
        """
        entries = [_entry(name, first + place, entry) for place, entry in enumerate(entries)]
        with self.held():
            path = self.folder / f"{name}.jsonl"
            there = path.read_bytes() if path.is_file() else b""
            there = there[: there.rfind(b"\n") + 1]  # a killed server may have left part of a line
            lines = there.splitlines()
            following = len(lines)
            repeated = [json.loads(line) for line in lines[first : first + len(entries)]]
            if first > following:
                raise Refused(409, f"{name} {following} to {first - 1} have not come.", next=following)
            if repeated != entries[: len(repeated)]:
                raise Refused(409, f"Other {name} of these numbers are here already.", next=following)
            new = entries[len(repeated) :]
            data = "".join(json.dumps(entry) + "\n" for entry in new).encode()
            if len(there) + len(data) > LARGEST_LOG:
                raise Refused(413, f"There are too many {name}.")
            if new:
                _append(path, data, len(there))
            return following + len(new)

    def answers(self) -> dict[str, Any]:
        """Surveys (one an image, None where there is none yet) and ranking so far."""
        path = self.folder / "answers.json"
        if path.is_file():
            return read_json(path, "Begin the session again.")
        return {"survey": [None] * self.read()["n_images"], "ranking": None, "ranking_start": None}

    def save_survey(self, image: int, content: dict[str, Any]) -> None:
        """Keep the answers about one image (``SURVEY_KEYS``, perhaps missingElements), in place of earlier ones."""
        survey = _survey(content)
        with self.held():
            answers = self.answers()
            if not 1 <= image <= len(answers["survey"]):
                raise Refused(404, "There is no such image.")
            answers["survey"][image - 1] = survey
            write_json(answers, self.folder / "answers.json")

    def save_ranking(self, content: dict[str, Any]) -> None:
        """Keep the ranking and the order in which its page began; ids from 0, best first."""
        with self.held():
            answers = self.answers()
            ids = list(range(len(answers["survey"])))
            for order in content.values():
                whole = isinstance(order, list) and all(type(each) is int for each in order)
                if not whole or sorted(order) != ids:
                    raise Refused(422, f"ranking and start must have the ids 0 to {ids[-1]} once each.")
            answers |= {"ranking": content["ranking"], "ranking_start": content["start"]}
            write_json(answers, self.folder / "answers.json")

    def missing(self) -> str | None:
        """What is not there yet of a complete session."""
        answers = self.answers()
        unanswered = [place for place, survey in enumerate(answers["survey"], 1) if survey is None]
        if not (self.folder / "images.json").is_file():
            return "images"
        if self.recording() is None:
            return "recording"
        if unanswered:
            return f"survey of image {unanswered[0]}"
        return "ranking" if answers["ranking"] is None else None

    def complete(self, **evidence: Any) -> None:
        """Give the session its final name."""
        self.update(state="complete", ended=now(), **evidence)
        done = self.participant.folder / f"session_{self.number}"
        self.folder.rename(done)
        self.folder = done

    def put_aside(self, state: str) -> None:
        """Rename a session that will not be completed; one with no recording is removed."""
        with self.lock:
            recording = self.recording()
            if recording is None or not recording.stat().st_size or not (self.folder / "session.json").is_file():
                self.remove()
                return
            self.update(state="stopped" if state == "stopped" else "started", ended=now())
            place = 1
            while (target := self.folder.with_name(f".session_{self.number}_{state}_{place}")).exists():
                place += 1
            self.folder = self.folder.rename(target)

    def remove(self) -> None:
        """Delete the session's folder."""
        with self.lock:
            _remove(self.folder, self.participant.folder.parent)


def _remove(folder: Path, recordings: Path) -> None:
    """Delete a folder; from its renaming on, also if the server is killed meanwhile."""
    shutil.rmtree(folder.rename(recordings / f".deleted_{secrets.token_hex(8)}"))


def _append(path: Path, data: bytes, size: int) -> None:
    """Write at the end of what is valid of a file, synced; or leave it as it was."""
    with path.open("r+b" if path.exists() else "xb") as file:
        file.truncate(size)
        try:
            file.seek(size)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def _ending(mime: str, data: bytes) -> str:
    """The ending of a recording's file, from MediaRecorder's type; the first bytes must agree."""
    kind = mime.partition(";")[0].strip().lower()
    if kind not in ENDINGS:
        raise Refused(415, f"A recording must be {', '.join(ENDINGS)}; the first chunk says so with type=.")
    good = data[4:8] in (b"ftyp", b"") if kind == "video/mp4" else data[:4] == EBML[: len(data)]
    if not good:
        raise Refused(415, f"This is not the beginning of {kind}.")
    return ENDINGS[kind]


def _entry(name: str, number: int, entry: Any) -> dict[str, Any]:
    """An event with its number, or a frame, as it is kept; values are plain ones or lists of them."""
    if not is_plain(entry):
        raise Refused(422, f"{name} must be short objects of plain values.")
    if name == "frames":
        if set(entry) != {"captureTime", "presentedFrames"} or not all(
            value is None or _is_number(value) for value in entry.values()
        ):
            raise Refused(422, "A frame has captureTime and presentedFrames, each a number or null.")
        return entry
    if not re.fullmatch("[a-z_]{1,40}", str(entry.get("name"))) or not _is_number(entry.get("time")):
        raise Refused(422, "An event has a name in small letters and a time in milliseconds.")
    if entry.get("number", number) != number:
        raise Refused(422, f"The event in the place of number {number} says another number.")
    return {"number": number} | entry


def is_plain(content: Any) -> bool:
    """Whether this is a short object whose values are numbers, texts, truth values, null, or lists of these."""
    if not isinstance(content, dict):
        return False
    flat = [each for value in content.values() for each in (value if isinstance(value, list) else [value])]
    simple = all(each is None or isinstance(each, str | bool) or _is_number(each) for each in flat)
    return simple and len(json.dumps(content)) <= LONGEST_ENTRY


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15


def _survey(content: dict[str, Any]) -> dict[str, Any]:
    """The answers about one image, as the released ``data.json`` has them, and what the image does not show."""
    for name in RATINGS:
        if type(content[name]) is not int or not 1 <= content[name] <= 7:
            raise Refused(422, "Give every rating, from 1 to 7.", field=name)
    lists = {}
    for name, options in (("issuesList", ISSUES), ("reactionList", EMOTIONS)):
        given = content[name]
        if (
            not isinstance(given, dict)
            or set(given) != set(options)
            or not all(type(v) is bool for v in given.values())
        ):
            raise Refused(422, f"{name} must say true or false for each of {', '.join(options)}.", field=name)
        lists[name] = {option: given[option] for option in options}
    missing = content.get("missingElements", "")
    if not isinstance(missing, str) or len(missing) > 1000:
        raise Refused(422, "missingElements must be a text of at most 1,000 characters.", field="missingElements")
    return {name: content[name] for name in RATINGS} | lists | {"missingElements": missing}
