"""The session server through its addresses: a whole session, who is let in, what is refused, restarts, a full disk."""

import asyncio
import contextlib
import fcntl
import http.client
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from conftest import CHECKOUT, snapshot
from PIL import Image
from small_disk import largest_file

import collect_sessions
from fergi.dataset import EMOTIONS, ISSUES, Folders
from fergi.files import FergiError
from fergi.recording.camera import CameraCheck
from fergi.recording.images import Drawn, Folder, ImageMaker
from fergi.recording.prompts import PromptServer
from fergi.recording.server import HEADERS, Server, make_app
from fergi.recording.storage import Recordings
from fergi.recording.study import Study

N_IMAGES = 2
STUDY = Study(
    title="A study",
    version="1",
    contact="somebody@example.org",
    consent={"version": "2026-11", "paragraphs": ["What happens.", "Voluntary."]},
    sessions={"structured": 1, "free": 2},
    images_per_prompt=N_IMAGES,
    seconds={"baseline": 1, "image": 1},
)
FORM = {
    "animate": [{"name": "cat", "quantity": 2, "activity": "", "characteristics": ["black"]}],
    "inanimate": [{"name": "sofa", "quantity": 1, "characteristics": []}],
    "interactional": [{"first": "animate 1", "relation": "scratching", "second": "inanimate 1"}],
    "positional": [],
    "location": "a living room",
    "style": "oil painting",
    "keywords": ["warm light"],
}
SURVEY = {
    **{"overallRating": 5, "alignmentRating": 4, "fidelityRating": 7},
    "issuesList": dict.fromkeys(ISSUES, False) | {"blurry": True},
    "reactionList": dict.fromkeys(EMOTIONS, False) | {"amused": True},
    "missingElements": "the sofa",
}
FINISH = {"camera": {"label": "A camera", "settings": {"width": 640}}, "browser": "A browser"}


def drawn(prompt: str, seed: int) -> Image.Image:
    """A picture of one colour that the seed gives."""
    return Image.new("RGB", (32, 32), (seed % 256, 100, 50))


@dataclass
class Browser:
    """What a page sends."""

    address: str  # http://127.0.0.1:…
    headers: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def send(self, method: str, path: str, **options) -> httpx.Response:
        """A request with the headers that the page has."""
        headers = {"Origin": self.address} | self.headers | options.pop("headers", {})
        return httpx.request(method, self.address + path, headers=headers, timeout=60, **options)

    def to_session(self, method: str, path: str, **options) -> httpx.Response:
        """A request about the session under way."""
        return self.send(method, f"/api/sessions/{self.number}/{path}", **options)

    def join(self, sharing: bool = True, version: str = "2026-11") -> str:
        """Consent; the participant's name."""
        content = {"recording": True, "sharing": sharing, "consent_version": version}
        answer = self.send("POST", "/api/participants", json=content)
        assert answer.status_code == 201, answer.text
        self.headers = {"X-Participant": answer.json()["participant"], "X-Key": answer.json()["key"]}
        return answer.json()["participant"]

    def start(self, kind: str = "structured") -> None:
        """Begin the next session."""
        answer = self.send("POST", "/api/sessions", json={"kind": kind})
        assert answer.status_code == 201, answer.text
        self.number, self.headers["X-Session-Token"] = answer.json()["number"], answer.json()["token"]

    def make_images(self, prompt: str = "two cats", form: dict | None = FORM) -> None:
        """Ask for the images and wait until they are there."""
        assert self.to_session("POST", "images", json={"prompt": prompt, "form": form}).status_code == 202
        for _ in range(600):
            state = self.to_session("GET", "images").json()
            if state["state"] in ("ready", "failed"):
                break
            time.sleep(0.02)
        assert state == {"state": "ready", "done": N_IMAGES, "total": N_IMAGES, "note": None}

    def chunk(self, offset: int, data: bytes, kind: str = "video/x-matroska;codecs=avc1") -> httpx.Response:
        """A chunk of the recording."""
        options = {"params": {"offset": offset, "type": kind}, "headers": {"Content-Type": "application/octet-stream"}}
        return self.to_session("POST", "recording", content=data, **options)

    def state(self) -> dict:
        """What the server knows of the participant."""
        return self.send("GET", "/api/me").json()


@contextlib.contextmanager
def serving(root: Path, study: Study = STUDY, *, camera: CameraCheck | None = None, **options):
    """A browser at a server over a root, in a thread; ``options`` are a source of images and a prompt server."""
    recordings = Recordings(Folders(root), study)
    maker = ImageMaker(options.get("source") or Drawn(drawn))
    camera = camera or CameraCheck(lambda picture: 0.95, 0.9)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = "{}:{}".format(*listening.getsockname())
        app = make_app(Server(study, recordings, maker, options.get("prompt_server"), camera), [host])
        # Without a configuration of logging, which would close handlers that libraries opened on captured output.
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="critical", ws="none", lifespan="off"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Browser(f"http://{host}")
        finally:
            running.should_exit = True
            thread.join()
            maker.close()
            recordings.close()


def film(captures: np.ndarray) -> bytes:
    """A matroska recording whose frames have these times, ms."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, moment in enumerate(captures):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 250, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(moment), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def whole_session(browser: Browser, kind: str = "structured") -> dict:
    """From the prompt to the end, as the page does it; the evidence."""
    browser.start(kind)
    browser.make_images("two cats", FORM if kind == "structured" else None)
    captures = 1000 + 40 + np.arange(150) * 1000 / 30
    video = film(captures - captures[0])
    cuts = [0, 1, 700, len(video) // 2, len(video)]
    for begin, end in itertools.pairwise(cuts):
        assert browser.chunk(begin, video[begin:end]).json() == {"size": end}
    events = [{"name": "recorder_starting", "time": 1000.0}]
    for image, start in ((1, 1100.0), (2, 3300.0)):
        marks = (("baseline_shown", 0), ("image_shown", 1000), ("image_hidden", 2000))
        events += [{"name": name, "time": start + later, "image": image} for name, later in marks]
    events += [{"name": "ranking_shown", "time": 5600.5, "order": [1, 0]}]
    frames = [{"captureTime": time, "presentedFrames": n} for n, time in enumerate(captures, 5)]
    assert browser.to_session("POST", "events", json={"first": 0, "events": events}).json() == {"next": len(events)}
    assert browser.to_session("POST", "frames", json={"first": 0, "frames": frames}).json() == {"next": 150}
    for image in (1, 2):
        assert browser.to_session("PUT", f"survey/{image}", json=SURVEY).status_code == 200
    assert browser.to_session("PUT", "ranking", json={"ranking": [1, 0], "start": [0, 1]}).status_code == 200
    answer = browser.to_session("POST", "finish", json=FINISH)
    assert answer.status_code == 200, answer.text
    return answer.json()["evidence"]


def test_a_whole_session(tmp_path, capsys):
    """What is on disk after it, and the evidence of a recording whose every frame the log confirms."""
    with serving(tmp_path) as browser:
        assert browser.join(sharing=False) == "001"
        evidence = whole_session(browser)
        assert evidence["matched_share"] == 1.0 and evidence["gaps"] == 0 and evidence["zero"] == 1040.0
        again = browser.to_session("POST", "finish", json=FINISH)
        assert again.json()["evidence"] == evidence
        assert browser.to_session("PUT", "ranking", json={"ranking": [0, 1], "start": [0, 1]}).status_code == 409
        state = browser.state()
    assert state["sessions"] == [{"number": 1, "kind": "structured", "state": "complete"}]
    assert state["next"] == {"number": 2, "kind": "free", "prompt": None}
    folder = tmp_path / "recordings" / "001"
    consent = json.loads((folder / "consent.json").read_text())
    assert (consent["sharing"], consent["recording"], consent["withdrawn"]) == (False, True, False)
    session = json.loads((folder / "session_1" / "session.json").read_text())
    assert (session["state"], session["kind"], session["prompt"]) == ("complete", "structured", "two cats")
    assert session["evidence"] == evidence and len(evidence["load_average"]) == 3
    answers = json.loads((folder / "session_1" / "answers.json").read_text())
    assert answers == {"survey": [SURVEY, SURVEY], "ranking": [1, 0], "ranking_start": [0, 1]}
    images = json.loads((folder / "session_1" / "images.json").read_text())
    for image in (1, 2):
        seed = images[image - 1]["seed"]
        picture = Image.open(folder / "session_1" / "images" / f"image{image}.png")
        assert picture.getpixel((0, 0)) == (seed % 256, 100, 50)
    assert not list(folder.glob(".session*"))
    said = "Participant 001, session 1: complete. 150 frames: 100 % confirmed, at most 0 % repeated in a clip, 0 gaps."
    assert capsys.readouterr().out.splitlines() == [said]


@pytest.mark.parametrize("logged", [True, False])
def test_a_session_whose_recording_cannot_be_judged_is_complete_and_says_so(tmp_path, logged):
    """A video that cannot be opened; no log at all. Cutting decides what becomes of it."""
    with serving(tmp_path) as browser:
        browser.join()
        browser.start()
        browser.make_images()
        browser.chunk(0, b"\x1a\x45\xdf\xa3 and no video")
        for name, entry in (("events", {"name": "recorder_starting", "time": 5}), ("frames", FRAME)) if logged else ():
            assert browser.to_session("POST", name, json={"first": 0, name: [entry]}).status_code == 200
        for image in (1, 2):
            browser.to_session("PUT", f"survey/{image}", json=SURVEY)
        missing = browser.to_session("POST", "finish", json=FINISH)
        assert (missing.status_code, missing.json()["missing"]) == (409, "ranking")
        browser.to_session("PUT", "ranking", json=RANKING)
        evidence = browser.to_session("POST", "finish", json=FINISH).json()["evidence"]
        assert ("recording.mkv is not a video" if logged else "Cannot read") in evidence["problem"]
        assert browser.state()["sessions"][0]["state"] == "complete"


# Who is let in, and what is refused ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    """A root, and two participants with a session under way; the first has begun to record and to answer."""
    root = tmp_path_factory.mktemp("study") / "root"
    with serving(root) as first:
        second = Browser(first.address)
        for browser in (first, second):
            browser.join()
            browser.start()
            browser.make_images()
        assert first.chunk(0, film(np.arange(5) * 33)[:500]).status_code == 200
        assert first.to_session("POST", "events", json={"first": 0, "events": [EVENT, EVENT]}).status_code == 200
        yield root, first, second


EVENT, FRAME = {"name": "visible", "time": 1.5}, {"captureTime": 7.5, "presentedFrames": 3}
OCTETS = {"Content-Type": "application/octet-stream"}
JPEG = {"Content-Type": "image/jpeg"}
JSON = {"Content-Type": "application/json"}
MATROSKA = "?offset=0&type=video/x-matroska"
S = "/api/sessions/1"


def events(first: object, *entries: object) -> bytes:
    """A body for ``…/events``."""
    return json.dumps({"first": first, "events": entries}).encode()


def changed(content: dict, **changes: object) -> bytes:
    """A body that is content with some changes."""
    return json.dumps(content | changes).encode()


def picture(kind: str, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    Image.new("RGB", size, (90, 120, 150)).save(file, kind)
    return file.getvalue()


CONSENT = {"recording": True, "sharing": True, "consent_version": "2026-11"}
IMAGES = {"prompt": "two cats", "form": FORM}
RANKING = {"ranking": [0, 1], "start": [0, 1]}
# Status, method, path, headers that are other than a page's (None: missing), body.
HOSTILE = [
    # other names of this server, other sites
    (421, "GET", "/", {"Host": "evil.example"}, b""),
    (421, "GET", "/api/study", {"Host": "127.0.0.1"}, b""),
    (421, "GET", "/static/app.js", {"Host": "evil.example"}, b""),
    (421, "POST", "/api/participants", {"Host": "evil.example:80", "Origin": "http://evil.example:80"}, b"{}"),
    (403, "GET", "/api/me", {"Origin": "http://evil.example"}, b""),
    (403, "POST", "/api/participants", {"Origin": "http://evil.example", **JSON}, json.dumps(CONSENT).encode()),
    (403, "POST", "/api/participants", {"Origin": "null", **JSON}, json.dumps(CONSENT).encode()),
    (403, "POST", "/api/participants", {"Origin": None, **JSON}, json.dumps(CONSENT).encode()),
    (403, "POST", "/api/participants", {"Origin": "http://127.0.0.1:1", **JSON}, json.dumps(CONSENT).encode()),
    (403, "DELETE", "/api/me", {"Origin": "https://127.0.0.1"}, b""),
    (403, "PUT", f"{S}/ranking", {"Origin": None, **JSON}, json.dumps(RANKING).encode()),
    # other people
    (401, "GET", "/api/me", {"X-Participant": None, "X-Key": None}, b""),
    (401, "GET", "/api/me", {"X-Key": None}, b""),
    (401, "GET", "/api/me", {"X-Key": "a" * 43}, b""),
    (401, "GET", "/api/me", {"X-Participant": "002"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "999"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "../recordings/001"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "001/../001"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "001/.session_1"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "1"}, b""),
    (401, "GET", "/api/me", {"X-Participant": "0\xb91"}, b""),
    (401, "DELETE", "/api/me", {"X-Participant": "002"}, b""),
    (401, "GET", f"{S}/images/1", {"X-Key": None}, b""),
    (401, "POST", "/api/camera-check", {"X-Participant": ".", **JPEG}, picture("JPEG")),
    # another tab, another session
    (400, "POST", f"{S}/recording?offset=500", {"X-Session-Token": None, **OCTETS}, b"more"),
    (409, "POST", f"{S}/recording?offset=500", {"X-Session-Token": "b" * 43, **OCTETS}, b"more"),
    (409, "GET", f"{S}/images/1", {"X-Session-Token": "second's"}, b""),
    (404, "POST", "/api/sessions/2/events", JSON, events(0, EVENT)),
    (404, "POST", "/api/sessions/99999999999999999999999999/events", JSON, events(0, EVENT)),
    # paths
    (404, "GET", "/static/../server.py", {}, b""),
    (404, "GET", "/static/%2e%2e/server.py", {}, b""),
    (404, "GET", "/static/..%2f..%2f__init__.py", {}, b""),
    (404, "GET", "/static//etc/passwd", {}, b""),
    (404, "GET", "/static/%2fetc%2fpasswd", {}, b""),
    (404, "GET", "/static/..%5c..%5cserver.py", {}, b""),
    (404, "GET", "/static/app.js%00.css", {}, b""),
    (404, "GET", "/recordings/001/consent.json", {}, b""),
    (404, "GET", "/../recordings/001/consent.json", {}, b""),
    (404, "POST", "/api/sessions/-1/events", JSON, events(0, EVENT)),
    (404, "POST", "/api/sessions/1%2f..%2f..%2f002/events", JSON, events(0, EVENT)),
    (404, "POST", "/api/sessions/..%2f..%2f002%2f.session_1/events", JSON, events(0, EVENT)),
    (404, "GET", f"{S}/images/..%2f..%2fsession.json", {}, b""),
    (404, "GET", f"{S}/images/3", {}, b""),
    (404, "PUT", f"{S}/survey/0", JSON, json.dumps(SURVEY).encode()),
    (404, "PUT", f"{S}/survey/3", JSON, json.dumps(SURVEY).encode()),
    # methods
    (405, "DELETE", "/api/study", {}, b""),
    (405, "PUT", "/", {}, b""),
    (405, "POST", "/static/app.js", {}, b""),
    (405, "PATCH", "/api/me", JSON, b"{}"),
    (405, "OPTIONS", "/api/participants", {}, b""),
    (405, "GET", f"{S}/finish", {}, b""),
    # chunks
    (413, "POST", f"{S}/recording?offset=500", OCTETS, bytes((8 << 20) + 1)),
    (409, "POST", f"{S}/recording?offset=501", OCTETS, b"ahead"),
    (409, "POST", f"{S}/recording?offset=0&type=video/x-matroska", OCTETS, b"\x1a\x45\xdf\xa3again"),
    (409, "POST", f"{S}/recording?offset=499", OCTETS, b"overlap"),
    (422, "POST", f"{S}/recording?offset=-1", OCTETS, b"more"),
    (422, "POST", f"{S}/recording?offset=5e2", OCTETS, b"more"),
    (422, "POST", f"{S}/recording", OCTETS, b"more"),
    (415, "POST", f"{S}/recording?offset=500", JSON, b"more"),
    (415, "POST", f"{S}/recording?offset=500", {"Content-Type": None}, b"more"),
    (415, "POST", f"{S}/recording?offset=500", {"Content-Encoding": "gzip", **OCTETS}, b"more"),
    (415, "second", f"{S}/recording{MATROSKA}", OCTETS, b"<script>alert(1)</script>"),
    (415, "second", f"{S}/recording?offset=0&type=text/html", OCTETS, b"\x1a\x45\xdf\xa3"),
    (415, "second", f"{S}/recording?offset=0&type=video/mp4", OCTETS, b"\x1a\x45\xdf\xa3 not mp4"),
    (415, "second", f"{S}/recording?offset=0", OCTETS, b"\x1a\x45\xdf\xa3"),
    (415, "second", f"{S}/recording?offset=0&type=../../mkv", OCTETS, b"\x1a\x45\xdf\xa3"),
    # bodies that are not what they say
    (400, "POST", "/api/participants", JSON, b"{"),
    (400, "POST", "/api/participants", JSON, b""),
    (400, "POST", "/api/participants", JSON, b'{"recording": NaN, "sharing": true, "consent_version": "2026-11"}'),
    (400, "POST", "/api/participants", JSON, b"\xff\xfe{}"),
    (400, "POST", "/api/participants", JSON, b"[" * 100_000),
    (400, "POST", "/api/participants", JSON, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    (400, "POST", f"{S}/images", JSON, b'{"prompt": "\\ud800", "form": null}'),
    (413, "POST", "/api/participants", JSON, b'"' + b"a" * (1 << 20) + b'"'),
    (415, "POST", "/api/participants", {"Content-Type": "text/plain"}, json.dumps(CONSENT).encode()),
    (415, "POST", "/api/participants", {"Content-Type": "application/x-www-form-urlencoded"}, b"recording=true"),
    (422, "POST", "/api/participants", JSON, b"[]"),
    (422, "POST", "/api/participants", JSON, changed(CONSENT, participant="../x")),
    (422, "POST", "/api/participants", JSON, changed(CONSENT, recording=False)),
    (422, "POST", "/api/participants", JSON, changed(CONSENT, sharing="yes")),
    (409, "POST", "/api/participants", JSON, changed(CONSENT, consent_version="2025-01")),
    (422, "POST", "/api/sessions", JSON, b'{"kind": "../structured"}'),
    (422, "POST", "/api/sessions", JSON, b'{"kind": ["structured"]}'),
    (409, "POST", "/api/sessions", JSON, b'{"kind": "free"}'),
    (422, "POST", f"{S}/proposal", JSON, b'{"form": [1, 2]}'),
    (422, "POST", f"{S}/proposal", JSON, changed({}, form={**FORM, "interactional": [{"first": "animate 9"}]})),
    (422, "POST", f"{S}/images", JSON, changed(IMAGES, prompt=" ")),
    (422, "POST", f"{S}/images", JSON, changed(IMAGES, prompt="a" * 1001)),
    (422, "POST", f"{S}/images", JSON, changed(IMAGES, prompt={"$gt": ""})),
    (422, "POST", f"{S}/images", JSON, changed(IMAGES, form=None)),
    (409, "POST", f"{S}/images", JSON, changed(IMAGES, prompt="two dogs")),
    (422, "POST", "/api/camera-check", JPEG, b"\xff\xd8\xff\xe0 not a picture"),
    (422, "POST", "/api/camera-check", JPEG, picture("PNG")),
    (422, "POST", "/api/camera-check", JPEG, picture("JPEG")[:400]),
    (422, "POST", "/api/camera-check", JPEG, picture("JPEG", (4097, 8))),
    (413, "POST", "/api/camera-check", JPEG, picture("JPEG") + bytes(2 << 20)),
    (415, "POST", "/api/camera-check", {"Content-Type": "image/png"}, picture("PNG")),
    # logs and answers
    (409, "POST", f"{S}/events", JSON, events(3, EVENT)),
    (409, "POST", f"{S}/events", JSON, events(1, {"name": "hidden", "time": 1.5})),
    (422, "POST", f"{S}/events", JSON, events(-1, EVENT)),
    (422, "POST", f"{S}/events", JSON, events(True, EVENT)),
    (422, "POST", f"{S}/events", JSON, events(2.0, EVENT)),
    (422, "POST", f"{S}/events", JSON, b'{"first": 2, "events": {"0": 1}}'),
    (422, "POST", f"{S}/events", JSON, b'{"first": 2, "events": [{"name": "visible", "time": 1e999}]}'),
    (422, "POST", f"{S}/events", JSON, events(2, EVENT | {"time": 10**400})),
    (422, "POST", f"{S}/events", JSON, events(2, EVENT | {"name": "../../x"})),
    (422, "POST", f"{S}/events", JSON, events(2, EVENT | {"number": 7})),
    (422, "POST", f"{S}/events", JSON, events(2, EVENT | {"more": {"deep": [1]}})),
    (422, "POST", f"{S}/events", JSON, events(2, EVENT | {"more": "a" * 5000})),
    (422, "POST", f"{S}/frames", JSON, b'{"first": 0, "frames": [{"captureTime": "1", "presentedFrames": 1}]}'),
    (422, "POST", f"{S}/frames", JSON, events(0, EVENT)),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, overallRating=8)),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, fidelityRating=0)),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, alignmentRating=True)),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, issuesList={"blurry": True})),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, reactionList=SURVEY["reactionList"] | {"x": True})),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, missingElements=["a"])),
    (422, "PUT", f"{S}/survey/1", JSON, changed(SURVEY, other=1)),
    (422, "PUT", f"{S}/ranking", JSON, changed(RANKING, ranking=[1, 2])),
    (422, "PUT", f"{S}/ranking", JSON, changed(RANKING, ranking=[0, 0])),
    (422, "PUT", f"{S}/ranking", JSON, changed(RANKING, start=[True, False])),
    (422, "PUT", f"{S}/ranking", JSON, changed(RANKING, start="01")),
    (409, "POST", f"{S}/finish", JSON, json.dumps(FINISH).encode()),
    (422, "POST", f"{S}/finish", JSON, changed(FINISH, camera={"label": "A", "settings": [[[1]]]})),
    (422, "POST", f"{S}/finish", JSON, changed(FINISH, browser="a" * 1001)),
    (422, "POST", f"{S}/stop", JSON, b'{"keep": "no"}'),
]


@pytest.mark.parametrize(("status", "method", "path", "headers", "body"), HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_refused_and_nothing_written(besieged, status, method, path, headers, body):
    """Every file below the root and beside it stays as it was, and the answer says no more than a sentence."""
    root, browser, second = besieged
    if method == "second":
        method, browser = "POST", second
    given = {"Host": browser.address.removeprefix("http://"), "Origin": browser.address} | browser.headers | headers
    if given["X-Session-Token"] == "second's":
        given["X-Session-Token"] = second.headers["X-Session-Token"]
    before = snapshot(root.parent)
    connection = http.client.HTTPConnection(given["Host"] if "Host" not in headers else browser.address[7:], timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {**given, "Content-Length": str(len(body))}.items():
        if value is not None:
            connection.putheader(name, value)
    with contextlib.suppress(ConnectionError):  # it may answer before it has read everything
        connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert (answer.status, next(iter(json.loads(text)))) == (status, "error"), text
    assert "Traceback" not in text and str(root) not in text
    assert {name: answer.getheader(name) for name in HEADERS} == HEADERS
    assert snapshot(root.parent) == before


def test_a_request_with_two_names_or_an_address_is_refused(besieged):
    """Requests that no client library sends."""
    root, browser, _ = besieged
    host = browser.address.removeprefix("http://")
    before = snapshot(root.parent)
    for lines in (
        ["GET /api/study HTTP/1.1", f"Host: {host}", "Host: evil.example"],
        ["GET http://evil.example/api/study HTTP/1.1", "Host: evil.example"],
        ["GET /api/study HTTP/1.0"],
        [
            "POST /api/participants HTTP/1.1",
            f"Host: {host}",
            f"Origin: {browser.address}",
            "Origin: http://evil.example",
        ],
        ["POST /api/participants HTTP/1.1", f"Host: {host}", "Content-Length: 5", "Content-Length: 50"],
        ["not HTTP at all"],
    ):
        with socket.create_connection(host.split(":"), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            status = connection.makefile("rb").readline().split()
        assert status[1] in (b"400", b"403", b"421"), (lines, status)
    assert snapshot(root.parent) == before


def test_answers_name_no_other_site_and_pages_take_nothing_from_one(besieged):
    """Neither CORS headers, nor a policy or a page with another site's address."""
    _, browser, _ = besieged
    for path in ("/", "/api/study", "/static/app.js"):
        answer = browser.send("GET", path)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "http" not in HEADERS["Content-Security-Policy"] and "unsafe" not in HEADERS["Content-Security-Policy"]
    assert not re.findall(r"(?:src|href)=.?(?:https?:)?//", browser.send("GET", "/").text)


# Interruptions ------------------------------------------------------------------------------------------------------


def test_a_second_tab_takes_the_session_over(tmp_path):
    """The first tab's writes are refused, and what it recorded is kept under another name, not mixed."""
    with serving(tmp_path) as first:
        name = first.join()
        first.start()
        first.make_images()
        video = film(np.arange(10) * 33)
        first.chunk(0, video)
        second = Browser(first.address, dict(first.headers))
        second.start()
        assert second.number == 1
        refused = first.chunk(len(video), b"more")
        assert (refused.status_code, refused.json()) == (409, {"error": "This session goes on in another tab."})
        assert first.to_session("GET", "images").status_code == 409
        second.make_images("three dogs")
        assert second.state()["sessions"] == [{"number": 1, "kind": "structured", "state": "interrupted"}]
        assert second.state()["next"]["number"] == 1
        third = Browser(first.address, dict(first.headers))
        third.start()  # the second had recorded nothing
    folder = tmp_path / "recordings" / name
    assert sorted(path.name for path in folder.glob(".session_*")) == [".session_1", ".session_1_interrupted_1"]
    assert (folder / ".session_1_interrupted_1" / "recording.mkv").read_bytes() == video
    assert [path.name for path in (folder / ".session_1").iterdir() if path.name[0] != "."] == ["session.json"]


@pytest.mark.parametrize("keep", [True, False])
def test_stopped(tmp_path, keep):
    """A session that is stopped is kept aside or gone; the next one is the same again."""
    with serving(tmp_path) as browser:
        folder = tmp_path / "recordings" / browser.join()
        browser.start()
        browser.make_images()
        browser.chunk(0, film(np.arange(10) * 33))
        assert browser.to_session("POST", "stop", json={"keep": keep}).json() == {"kept": keep}
        assert browser.to_session("POST", "events", json={"first": 0, "events": []}).status_code == 404
        stopped = [{"number": 1, "kind": "structured", "state": "stopped"}]
        assert browser.state()["sessions"] == (stopped if keep else [])
        assert browser.state()["next"]["number"] == 1
        left = [path for path in folder.rglob("recording.mkv")]
        assert left == ([folder / ".session_1_stopped_1" / "recording.mkv"] if keep else [])
        whole_session(browser)
        assert browser.state()["sessions"] == [{"number": 1, "kind": "structured", "state": "complete"}]


def test_withdrawn(tmp_path):
    """Nothing of the participant is left, others stay, and the name is not given again."""
    with serving(tmp_path) as browser:
        other = Browser(browser.address)
        assert (other.join(), browser.join()) == ("001", "002")
        whole_session(browser)
        clips = tmp_path / "data" / "002"  # as after cutting
        (clips / "session_1").mkdir(parents=True)
        (tmp_path / "preparation").mkdir()
        (tmp_path / "preparation" / "valid_sessions.json").write_text('{"001": [1], "002": [1]}')
        before = snapshot(tmp_path / "recordings" / "001")
        with (tmp_path / "data" / ".cutting").open("w") as cutting:
            fcntl.flock(cutting, fcntl.LOCK_EX)
            assert browser.send("DELETE", "/api/me").status_code == 503 and clips.is_dir()
        assert browser.send("DELETE", "/api/me").status_code == 200
        assert json.loads((tmp_path / "preparation" / "valid_sessions.json").read_text()) == {"001": [1]}
        assert browser.send("GET", "/api/me").status_code == 401
        assert not [path for path in tmp_path.rglob("*") if "002" in path.name or ".deleted" in path.name]
        assert snapshot(tmp_path / "recordings" / "001") == before
        assert browser.join() == "003"


def test_a_full_study(tmp_path):
    """Nobody more than the study takes is let in."""
    with serving(tmp_path, replace(STUDY, participants=1)) as browser:
        assert browser.join() == "001"
        assert browser.send("POST", "/api/participants", json=CONSENT).status_code == 403


def test_two_participants_at_once_and_a_chunk_sent_many_times(tmp_path):
    """Both sessions are whole; of eight equal chunks at the same time one is taken."""
    (tmp_path / "data" / "017").mkdir(parents=True)  # a name that the data have
    with serving(tmp_path) as first, ThreadPoolExecutor(8) as threads:
        second = Browser(first.address)
        assert {first.join(), second.join()} == {"018", "019"}
        evidence = list(threads.map(whole_session, (first, second)))
        assert [each["matched_share"] for each in evidence] == [1.0, 1.0]
        first.start("free")
        first.make_images(form=None)
        video = film(np.arange(60) * 33)
        statuses = list(threads.map(lambda _: first.chunk(0, video).status_code, range(8)))
        assert sorted(statuses) == [200] + 7 * [409]
        assert (tmp_path / "recordings/018/.session_2/recording.mkv").read_bytes() == video


def test_a_full_disk_is_said_and_what_was_refused_can_be_sent_again(tmp_path):
    """Status 507; no part of a chunk, an entry or an answer stays."""
    with serving(tmp_path) as browser:
        browser.join()
        browser.start()
        with largest_file(100):
            assert browser.to_session("POST", "images", json=IMAGES).status_code == 507
        browser.make_images()
        video, entries = film(np.arange(60) * 33), {"first": 0, "events": [EVENT] * 100}
        browser.chunk(0, video[:1000])
        before = snapshot(tmp_path)
        with largest_file(1500):
            refused = browser.chunk(1000, video[1000:])
            assert refused.status_code == 507 and "no room" in refused.json()["error"]
            assert browser.to_session("POST", "events", json=entries).status_code == 507
            assert snapshot(tmp_path) == before | {"recordings/001/.session_1/events.jsonl": b""}
        with largest_file(10):
            assert browser.to_session("PUT", "survey/1", json=SURVEY).status_code == 507
            assert browser.to_session("POST", "finish", json=FINISH).status_code == 409
            assert browser.send("POST", "/api/participants", json=CONSENT).status_code == 507
        assert browser.chunk(1000, video[1000:]).json() == {"size": len(video)}
        assert browser.to_session("POST", "events", json=entries).json() == {"next": 100}
        assert browser.to_session("PUT", "survey/1", json=SURVEY).status_code == 200
        assert Browser(browser.address).join() == "002"
    assert (tmp_path / "recordings/001/.session_1/recording.mkv").read_bytes() == video


def start_script(root: Path, *options: str) -> tuple[subprocess.Popen, Browser]:
    """``collect_sessions.py`` and a browser at the address that it prints."""
    script = subprocess.Popen(
        [sys.executable, CHECKOUT / "collect_sessions.py", "--no-browser", "--port", "0", "--root", root, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for line in script.stdout:
        if found := re.search("http://[^ ]*(?=/$)", line.strip()):
            return script, Browser(found[0])
    raise AssertionError(f"the server ended with code {script.wait()}")


def test_a_killed_server_keeps_what_it_confirmed_and_ends_with_ctrl_c(tmp_path):
    """Key and token go on working, the rest of the chunks fits, images that were not made can be asked for again."""
    study = tmp_path / "study.yaml"
    study.write_text(
        "title: A study\nversion: '1'\ncontact: somebody\nimages_per_prompt: 2\nseconds: {baseline: 1, image: 1}\n"
        "sessions: {structured: 0, free: 2}\nconsent: {version: 2026-11a, paragraphs: [What happens.]}\n"
    )
    script, browser = start_script(tmp_path, "--study", str(study))
    browser.join(version="2026-11a")
    browser.start("free")
    browser.make_images(form=None)
    video, entries = film(np.arange(60) * 33), [EVENT | {"time": time} for time in range(50)]
    browser.chunk(0, video[:700])
    browser.to_session("POST", "events", json={"first": 0, "events": entries[:30]})
    browser.to_session("PUT", "survey/1", json=SURVEY)
    before = snapshot(tmp_path / "recordings")
    script.kill()
    script.wait()
    assert snapshot(tmp_path / "recordings") == before
    log = tmp_path / "recordings/001/.session_1/events.jsonl"
    log.write_bytes(log.read_bytes() + b'{"number": 30, "na' + 9000 * b"m")  # what it was about to write

    script, again = start_script(tmp_path, "--study", str(study))
    browser.address = again.address
    assert browser.state()["sessions"] == [{"number": 1, "kind": "free", "state": "interrupted"}]
    assert browser.chunk(0, video[:700]).json()["size"] == 700
    assert browser.chunk(700, video[700:]).json() == {"size": len(video)}
    assert browser.to_session("POST", "events", json={"first": 20, "events": entries[20:]}).json() == {"next": 50}
    assert [json.loads(line)["time"] for line in log.read_text().splitlines()] == list(range(50))
    answers = json.loads((log.parent / "answers.json").read_text())
    assert answers["survey"] == [SURVEY, None]
    assert log.with_name("recording.mkv").read_bytes() == video
    second = subprocess.run(
        [sys.executable, CHECKOUT / "collect_sessions.py", "--no-browser", "--port", "0", "--root", tmp_path],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1 and "Another server collects sessions in" in second.stderr
    script.send_signal(signal.SIGINT)
    assert script.wait(timeout=60) == 0
    said = script.stdout.read()
    assert "The server has ended" in said and "Traceback" not in said


# Prompts, images, camera, command line ------------------------------------------------------------------------------


def test_what_the_page_is_told_of_the_study(tmp_path):
    """The options in the order of the released columns."""
    with serving(tmp_path, prompt_server=PromptServer("http://127.0.0.1:9", "m", "secret-key")) as browser:
        told = browser.send("GET", "/api/study").json()
    assert told["survey"] == {
        **{"ratings": ["overallRating", "alignmentRating", "fidelityRating"], "issues": list(ISSUES)},
        **{"emotions": list(EMOTIONS), "shuffle": False},
    }
    assert (told["images_per_prompt"], told["seconds"], told["drawn"]) == (2, {"baseline": 1, "image": 1}, True)
    assert told["consent"] == STUDY.consent and told["sharing_asked"] is True
    assert "127.0.0.1" in told["prompt_note"] and told["image_source_note"] is None
    assert "secret-key" not in json.dumps(told)


def test_two_attempts_at_a_prompt_and_what_is_kept_of_them(tmp_path):
    """Form, proposals and final text; a form that breaks a rule takes no attempt."""
    with serving(tmp_path) as browser:
        browser.join()
        browser.start()
        wrong = browser.to_session("POST", "proposal", json={"form": FORM | {"style": 5}})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "style")
        second_form = FORM | {"style": "a photo"}
        answers = [browser.to_session("POST", "proposal", json={"form": form}) for form in (FORM, second_form, FORM)]
        assert [answer.status_code for answer in answers] == [200, 200, 409]
        first, second = (answer.json() for answer in answers[:2])
        assert (first["attempts_left"], second["attempts_left"], first["by"], first["note"]) == (1, 0, "template", None)
        assert "two black cats scratching a sofa" in first["text"] and "a photo" in second["text"]
        browser.make_images("two happy cats", second_form)
    session = json.loads((tmp_path / "recordings/001/.session_1/session.json").read_text())
    assert [each["text"] for each in session["proposals"]] == [first["text"], second["text"]]
    assert session["proposal"] == {"text": second["text"], "by": "template"}
    assert (session["form"], session["prompt"]) == (second_form, "two happy cats")


class Slow(Drawn):
    """Waits before each image until it may go on; the prompt "none" has no images."""

    def __init__(self) -> None:
        super().__init__(drawn)
        self.may_go_on = threading.Semaphore(0)

    def make(self, prompt, number, check):
        if prompt == "none":
            raise ValueError("there are none")
        for made in super().make(prompt, number, check):
            self.may_go_on.acquire(timeout=60)
            yield made


def image_state(browser: Browser, **wanted: object) -> dict:
    """The state of a session's images, when it is as wanted."""
    for _ in range(1000):
        state = browser.to_session("GET", "images").json()
        if wanted.items() <= state.items():
            return state
        time.sleep(0.01)
    raise AssertionError(state)


def test_images_are_made_one_prompt_after_another(tmp_path):
    """A session that ends meanwhile gets none, and one whose images failed may ask again."""
    source = Slow()
    with serving(tmp_path, source=source) as first:
        second = Browser(first.address)
        for browser in (first, second):
            browser.join()
            browser.start()
            assert browser.to_session("GET", "images").json()["state"] == "waiting"
            assert browser.to_session("POST", "images", json=IMAGES).status_code == 202
        image_state(first, state="making", done=0)
        image_state(second, state="waiting")
        source.may_go_on.release()
        image_state(first, state="making", done=1)
        assert first.to_session("GET", "images/1").status_code == 404
        assert first.chunk(0, film(np.arange(3) * 33)).status_code == 409  # the recording comes after the images
        assert first.to_session("POST", "stop", json={"keep": True}).status_code == 200
        source.may_go_on.release(5)
        image_state(second, state="ready")
        assert second.to_session("GET", "images/2").headers["content-type"] == "image/png"
        assert not list((tmp_path / "recordings/001").glob(".session*"))
        first.start()
        assert first.to_session("POST", "images", json=IMAGES | {"prompt": "none"}).status_code == 202
        state = image_state(first, state="failed")
        assert state["note"] == "The images could not be made: there are none."
        source.may_go_on.release(5)
        assert first.to_session("POST", "images", json=IMAGES).status_code == 202
        image_state(first, state="ready")
    assert not list((tmp_path / "recordings").glob("*/.session_1_*"))


def test_a_fixed_study_gives_the_prompt(tmp_path):
    """By ``--images folder:DIR``; another prompt is refused."""
    (tmp_path / "pictures").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / name)
    listed = [{"prompt": f"prompt {n}", "images": ["1.png", "2.png"]} for n in (1, 2, 3)]
    (tmp_path / "pictures" / "prompts.json").write_text(json.dumps(listed))
    with serving(tmp_path / "root", source=Folder(tmp_path / "pictures", STUDY)) as browser:
        browser.join()
        assert browser.state()["next"] == {"number": 1, "kind": "structured", "prompt": "prompt 1"}
        browser.start()
        refused = browser.to_session("POST", "images", json={"prompt": "prompt 2", "form": None})
        assert refused.status_code == 422
        browser.make_images("prompt 1", None)
    images = json.loads((tmp_path / "root/recordings/001/.session_1/images.json").read_text())
    assert [(each["image"], each["file"], each["black"]) for each in images] == [(1, "1.png", True), (2, "2.png", True)]


def test_the_camera_s_picture_is_compared_with_the_participant_s_last_one(tmp_path):
    """And not with another participant's."""
    with serving(tmp_path) as first:
        second = Browser(first.address)
        found = []
        for browser in (first, second, second):
            if not browser.headers:
                browser.join()
            sent = browser.send("POST", "/api/camera-check", content=picture("JPEG"), headers=JPEG)
            found.append(sent.json()["problems"])
    assert found == [["blank"], ["blank"], ["blank", "still"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "0.0.0.0"], "0.0.0.0 can be reached from other machines"),
        (["--address", "192.168.1.5"], "with --behind-https HOST"),
        (["--address", "localhost"], "--address must be a number such as 127.0.0.1, not localhost"),
        (["--study", "none.yaml"], "Cannot read none.yaml"),
        (["--prompt-server", "example.org/v1"], "--prompt-server must begin with http:// or https://"),
        (["--images", "nothing"], "There is no image source 'nothing'"),
        (["--port", "{taken}"], "Choose another with --port, 0 for a free one."),
    ],
)
def test_a_server_that_cannot_start(tmp_path, options, said):
    """One sentence; nothing is written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [option.format(taken=taken.getsockname()[1]) for option in options]
        defaults = [] if "--port" in options else ["--port", "0"]
        with pytest.raises(FergiError, match=re.escape(said)):
            collect_sessions.main(["--no-browser", "--root", str(tmp_path), *defaults, *given])
    assert snapshot(tmp_path) == {}


def test_behind_a_proxy_only_its_name_counts(tmp_path):
    """The address of this machine is then another site."""
    maker, recordings = ImageMaker(Drawn(drawn)), Recordings(Folders(tmp_path), STUDY)
    server = Server(STUDY, recordings, maker, None, CameraCheck(lambda picture: 0.95, 0.9))
    app, page = collect_sessions.application(server, "127.0.0.1", 8750, "study.example.org")
    assert page == "https://study.example.org/"

    async def ask(host: str, origin: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return (await client.post("/api/participants", json=CONSENT, headers={"Origin": origin})).status_code

    for host, origin, status in (
        ("study.example.org", "https://study.example.org", 201),
        ("study.example.org", "http://study.example.org", 403),
        ("127.0.0.1:8750", "http://127.0.0.1:8750", 421),
    ):
        assert asyncio.run(ask(host, origin)) == status
    recordings.close()
