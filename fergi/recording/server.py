"""The server of a study: its addresses, who may ask what, and how requests are read.

It is meant for this machine alone, or for a proxy on it that speaks HTTPS. Every request must name this server as its
host; what changes something must come from its own pages.
"""

import contextlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fergi.files import FergiError
from fergi.recording.camera import CameraCheck
from fergi.recording.images import ImageMaker
from fergi.recording.prompts import LONGEST_PROMPT, FormError, PromptServer, check_form, propose
from fergi.recording.storage import DISK_FULL, SURVEY_KEYS, Participant, Recordings, Refused, Session, is_plain
from fergi.recording.study import KINDS, Study
from fergi.recording.synchronisation import evidence, read_log

PAGES = Path(__file__).parent / "static"
LARGEST_CHUNK = 8 << 20  # bytes of a recording
LARGEST_PICTURE = 2 << 20  # of a camera check
LARGEST_JSON = 1 << 20
LONGEST_NAME = 1000  # characters, of a camera or a browser
MOST_PROPOSALS = 2  # attempts at generating a prompt (Appendix A.2.1)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Guard:
    """Lets through what names this server as its host and, where it changes something, as its origin.

    ``hosts`` are the values of the header Host that mean this server, ``origins`` those of Origin. Every answer gets
    the security headers.
    """

    app: ASGIApp
    hosts: Sequence[str]
    origins: Sequence[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["type"] != "http":
            return _error(400, "There is nothing but HTTP here.")
        given: dict[str, list[str]] = {"host": [], "origin": []}
        for name, value in scope["headers"]:
            if name.decode("latin-1") in given:
                given[name.decode("latin-1")].append(value.decode("latin-1").lower())
        if len(given["host"]) != 1 or given["host"][0] not in self.hosts:
            return _error(421, "This server has another name. Open the address that it printed.")
        writes = scope["method"] not in ("GET", "HEAD")
        if any(origin not in self.origins for origin in given["origin"]) or len(given["origin"]) > 1:
            return _error(403, "The request comes from another site.")
        if writes and not given["origin"]:
            return _error(403, "The request does not say which site it comes from.")
        return None


def _error(status: int, sentence: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": sentence} | more, status)


# Reading a request -------------------------------------------------------------------------------------------------


async def read_body(request: Request, kind: str, largest: int) -> bytes:
    """The body, if it is of the kind (Content-Type) and not larger than so many bytes."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Refused(415, f"The request must be {kind}.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "The request must not be compressed.")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > largest:
                raise Refused(413, f"The request is larger than {largest:,} bytes.")
    except ClientDisconnect:
        raise Refused(400, "The request broke off.") from None
    return bytes(body)


async def read_object(request: Request, *keys: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """A body that is a JSON object with these keys and no others."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    body = await read_body(request, "application/json", LARGEST_JSON)
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=refuse)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # finds half characters
    except (ValueError, RecursionError):
        raise Refused(400, "The request is not JSON.") from None
    if not isinstance(content, dict) or not set(keys) <= set(content) <= {*keys, *optional}:
        names = ", ".join([*keys, *(f"perhaps {key}" for key in optional)])
        raise Refused(422, f"The request must be an object with {names}.")
    return content


def _number(request: Request, name: str) -> int:
    """A whole number in the query."""
    text = request.query_params.get(name, "")
    if not re.fullmatch("[0-9]{1,15}", text):
        raise Refused(422, f"{name} must be a whole number.")
    return int(text)


# The addresses -----------------------------------------------------------------------------------------------------


class Server:
    """What the addresses do; each method of the first part answers one of them."""

    def __init__(
        self,
        study: Study,
        recordings: Recordings,
        maker: ImageMaker,
        prompt_server: PromptServer | None,
        camera: CameraCheck,
    ):
        self.study, self.recordings, self.maker = study, recordings, maker
        self.prompt_server, self.camera = prompt_server, camera

    def participant(self, request: Request) -> Participant:
        """Who asks."""
        return self.recordings.participant(request.headers.get("x-participant", ""), request.headers.get("x-key", ""))

    def session(self, request: Request, *, complete: bool = False) -> Session:
        """The session that the address names, if the token is its own."""
        token = request.headers.get("x-session-token", "")
        return self.participant(request).session(request.path_params["number"], token, complete=complete)

    async def page(self, request: Request) -> Response:
        """``GET /``."""
        return FileResponse(PAGES / "index.html")

    async def describe(self, request: Request) -> dict:
        """``GET /api/study``."""
        return self.study.for_page(self.maker.source.note, self.prompt_server and self.prompt_server.note)

    async def add_participant(self, request: Request) -> tuple[int, dict]:
        """``POST /api/participants``."""
        given = await read_object(request, "recording", "sharing", "consent_version")
        if type(given["sharing"]) is not bool or type(given["recording"]) is not bool:
            raise Refused(422, "recording and sharing must be true or false.")
        if not given["recording"]:
            raise Refused(422, "Without your permission to record you cannot take part.", field="recording")
        if given["consent_version"] != self.study.consent["version"]:
            raise Refused(409, "The consent text has changed. Load the page again and read it.")
        name, key = await run_in_threadpool(self.recordings.add_participant, sharing=given["sharing"])
        return 201, {"participant": name, "key": key}

    async def me(self, request: Request) -> dict:
        """``GET /api/me``."""
        participant = self.participant(request)
        following = participant.next_session()
        if following:
            prompts = self.maker.source.prompts
            following |= {"prompt": prompts[following["number"] - 1] if prompts else None}
        return {"participant": participant.name, "sessions": participant.sessions(), "next": following}

    async def withdraw(self, request: Request) -> dict:
        """``DELETE /api/me``."""
        participant = self.participant(request)
        self.camera.forget(participant.name)
        places = await run_in_threadpool(self.recordings.withdraw, participant)
        _report(f"Participant {participant.name} withdrew: their data are deleted, in {places} places.")
        return {"participant": participant.name}

    async def check_camera(self, request: Request) -> dict:
        """``POST /api/camera-check``."""
        participant = self.participant(request)
        picture = await read_body(request, "image/jpeg", LARGEST_PICTURE)
        try:
            return await run_in_threadpool(self.camera.look, participant.name, picture)
        except ValueError as error:
            raise Refused(422, f"The picture cannot be used: {error}.") from None

    async def start(self, request: Request) -> tuple[int, dict]:
        """``POST /api/sessions``."""
        participant = self.participant(request)
        kind = (await read_object(request, "kind"))["kind"]
        if kind not in KINDS:
            raise Refused(422, f"kind must be {' or '.join(KINDS)}.")
        number, token = await run_in_threadpool(participant.start_session, kind)
        return 201, {"number": number, "token": token}

    async def propose(self, request: Request) -> dict:
        """``POST /api/sessions/<n>/proposal``."""
        session = self.session(request)
        form = _checked_form((await read_object(request, "form"))["form"])
        content = session.read()
        if content["kind"] != "structured":
            raise Refused(409, "This session has no form.")
        _check_attempts(content)
        text, by, note = await propose(form, self.prompt_server)
        left = await run_in_threadpool(_keep_proposal, session, form, {"text": text, "by": by})
        return {"text": text, "by": by, "note": note, "attempts_left": left}

    async def ask_images(self, request: Request) -> tuple[int, dict]:
        """``POST /api/sessions/<n>/images``."""
        session = self.session(request)
        given = await read_object(request, "prompt", "form")
        prompt, form, prompts = given["prompt"], given["form"], self.maker.source.prompts
        if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > LONGEST_PROMPT or "\0" in prompt:
            raise Refused(422, f"Write a prompt of at most {LONGEST_PROMPT:,} characters.", field="prompt")
        if prompts and prompt != prompts[session.number - 1]:
            raise Refused(422, "The prompt of this session is fixed.", field="prompt")
        if form is not None:
            form = _checked_form(form)
        elif session.read()["kind"] == "structured" and not prompts:
            raise Refused(422, "The prompt of this session is made with the form.", field="form")
        await run_in_threadpool(self.maker.ask, session, prompt if prompts else prompt.strip(), form)
        return 202, self.maker.state(session)

    async def image_state(self, request: Request) -> dict:
        """``GET /api/sessions/<n>/images``."""
        return self.maker.state(self.session(request))

    async def image(self, request: Request) -> Response:
        """``GET /api/sessions/<n>/images/<i>``."""
        session, number = self.session(request), request.path_params["image"]
        path = session.folder / "images" / f"image{number}.png"
        if not (session.folder / "images.json").is_file() or not path.is_file():
            raise Refused(404, "There is no such image, or not yet.")
        return FileResponse(path, media_type="image/png")

    async def append_recording(self, request: Request) -> dict:
        """``POST /api/sessions/<n>/recording?offset=BYTES``."""
        session, offset = self.session(request), _number(request, "offset")
        data = await read_body(request, "application/octet-stream", LARGEST_CHUNK)
        if not (session.folder / "images.json").is_file():
            raise Refused(409, "The recording starts when the images are ready.")
        kind = request.query_params.get("type", "")[:200]
        return {"size": await run_in_threadpool(session.append_recording, offset, data, kind)}

    async def append_lines(self, request: Request) -> dict:
        """``POST /api/sessions/<n>/events`` and ``…/frames``."""
        session, name = self.session(request), request.url.path.rpartition("/")[2]
        given = await read_object(request, "first", name)
        first, entries = given["first"], given[name]
        if type(first) is not int or not 0 <= first < 10**9 or not isinstance(entries, list):
            raise Refused(422, f"first must be a number from 0, and {name} a list.")
        return {"next": await run_in_threadpool(session.append_lines, name, first, entries)}

    async def save_survey(self, request: Request) -> dict:
        """``PUT /api/sessions/<n>/survey/<i>``."""
        session = self.session(request)
        content = await read_object(request, *SURVEY_KEYS, optional=["missingElements"])
        await run_in_threadpool(session.save_survey, request.path_params["image"], content)
        return {}

    async def save_ranking(self, request: Request) -> dict:
        """``PUT /api/sessions/<n>/ranking``."""
        session = self.session(request)
        await run_in_threadpool(session.save_ranking, await read_object(request, "ranking", "start"))
        return {}

    async def finish(self, request: Request) -> dict:
        """``POST /api/sessions/<n>/finish``; asked again, the same answer."""
        session = self.session(request, complete=True)
        given = await read_object(request, "camera", "browser")
        camera, browser = given["camera"], given["browser"]
        if not isinstance(camera, dict) or set(camera) != {"label", "settings"} or not is_plain(camera["settings"]):
            raise Refused(422, "camera must have label, a text, and settings, a short object of plain values.")
        if not all(isinstance(text, str) and len(text) <= LONGEST_NAME for text in (camera["label"], browser)):
            raise Refused(422, f"browser and the camera's label must be texts of at most {LONGEST_NAME} characters.")
        return {"evidence": await run_in_threadpool(self._finish, session, given)}

    def _finish(self, session: Session, given: dict[str, Any]) -> dict[str, Any]:
        with session.held():
            if not session.folder.name.startswith("."):
                return session.read()["evidence"]
            if missing := session.missing():
                raise Refused(409, f"The session is not complete: the {missing} is missing.", missing=missing)
            found = _evidence(session) | {"load_average": [round(load, 2) for load in os.getloadavg()]}
            session.complete(camera=given["camera"], browser=given["browser"], evidence=found)
        _report(f"Participant {session.participant.name}, session {session.number}: complete. {_in_words(found)}")
        return found

    async def stop(self, request: Request) -> dict:
        """``POST /api/sessions/<n>/stop``."""
        session = self.session(request)
        keep = (await read_object(request, "keep"))["keep"]
        if type(keep) is not bool:
            raise Refused(422, "keep must be true or false.")
        await run_in_threadpool(session.put_aside, "stopped") if keep else await run_in_threadpool(session.remove)
        return {"kept": keep}

    def routes(self) -> list[Route | Mount]:
        """Every address with its method."""
        session = "/api/sessions/{number:int}"
        table: list[tuple[str, str, Callable]] = [
            ("GET", "/api/study", self.describe),
            ("POST", "/api/participants", self.add_participant),
            ("GET", "/api/me", self.me),
            ("DELETE", "/api/me", self.withdraw),
            ("POST", "/api/camera-check", self.check_camera),
            ("POST", "/api/sessions", self.start),
            ("POST", f"{session}/proposal", self.propose),
            ("POST", f"{session}/images", self.ask_images),
            ("GET", f"{session}/images", self.image_state),
            ("GET", session + "/images/{image:int}", self.image),
            ("POST", f"{session}/recording", self.append_recording),
            ("POST", f"{session}/events", self.append_lines),
            ("POST", f"{session}/frames", self.append_lines),
            ("PUT", session + "/survey/{image:int}", self.save_survey),
            ("PUT", f"{session}/ranking", self.save_ranking),
            ("POST", f"{session}/finish", self.finish),
            ("POST", f"{session}/stop", self.stop),
        ]
        routes: list[Route | Mount] = [Route("/", self.page, methods=["GET"])]
        routes += [Route(path, _answering(do), methods=[method]) for method, path, do in table]
        return [*routes, Mount("/static", StaticFiles(directory=PAGES, check_dir=False))]


def _evidence(session: Session) -> dict[str, Any]:
    """How far the recording's times can be trusted."""
    content = session.read()
    try:
        events, frames = (read_log(session.folder / f"{name}.jsonl") for name in ("events", "frames"))
    except FergiError as error:
        return {"problem": str(error)}
    return evidence(session.recording(), events, frames, content["n_images"], content["seconds"])


def _in_words(found: dict[str, Any]) -> str:
    """The evidence in a sentence, so that a poor recording is noticed while the study runs."""
    if "problem" in found:
        return found["problem"]
    matched = found["matched_share"]
    confirmed = "no captureTime to confirm them" if matched is None else f"{100 * matched:.0f} % confirmed"
    repeated = f"at most {100 * found['repeated_share']:.0f} % repeated in a clip"
    return f"{found['recorded_frames']} frames: {confirmed}, {repeated}, {found['gaps']} gaps."


def _check_attempts(content: dict[str, Any]) -> None:
    if len(content["proposals"]) >= MOST_PROPOSALS:
        raise Refused(409, "There are no attempts left. Change the text yourself.")


def _keep_proposal(session: Session, form: dict[str, Any], proposal: dict[str, str]) -> int:
    """Keep a proposal and the form it was made from; how many attempts are left."""
    with session.held():
        content = session.read()
        _check_attempts(content)  # another request may have taken the last one meanwhile
        kept = [*content["proposals"], proposal | {"form": form}]
        session.update(form=form, proposals=kept, proposal=proposal)
    return MOST_PROPOSALS - len(kept)


def _checked_form(form: Any) -> dict[str, Any]:
    try:
        return check_form(form)
    except FormError as error:
        raise Refused(422, error.sentence, field=error.field) from None


def _answering(do: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """An address's method as Starlette wants it: what it gives is JSON, perhaps with a status, unless a response."""

    async def answer(request: Request) -> Response:
        given = await do(request)
        if isinstance(given, Response):
            return given
        status, content = given if isinstance(given, tuple) else (200, given)
        return JSONResponse(content, status)

    return answer


async def _refused(request: Request, error: Refused) -> Response:
    if error.__cause__:
        _report(f"{request.method} {request.url.path}: {error.__cause__}")
    return _error(error.status, error.sentence, **error.more)


async def _not_there(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, f"{error.detail}.")


async def _not_written(request: Request, error: OSError | FergiError) -> Response:
    """Errors of the disk; what the request would have changed is as it was, and it can be sent again."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in DISK_FULL:
        _report("The disk is full; participants' browsers try again.")
        return _error(507, "The study's computer has no room left. Please tell the researcher.")
    _report(f"{request.method} {request.url.path}: {error}")
    return _error(500, "The study's computer cannot read or write its files. Please tell the researcher.")


def _report(sentence: str) -> None:
    """Tell the researcher on the terminal, unless that is a file on the full disk."""
    with contextlib.suppress(OSError):
        print(sentence, flush=True)


async def _failed(request: Request, error: Exception) -> Response:
    return _error(500, "Something went wrong in the study's computer. Please tell the researcher.")


def make_app(server: Server, hosts: Sequence[str], scheme: str = "http") -> Guard:
    """The application; ``hosts`` are the names, with ports, under which browsers reach it by ``scheme``."""
    handlers = {Refused: _refused, HTTPException: _not_there, OSError: _not_written, FergiError: _not_written}
    app = Starlette(routes=server.routes(), exception_handlers={**handlers, Exception: _failed})
    return Guard(app, hosts, [f"{scheme}://{host}" for host in hosts])
