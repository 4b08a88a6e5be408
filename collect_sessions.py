"""Collect sessions of one's own: prompt, webcam, images, survey, ranking (Section 3.2, Appendix A).

Starts a server on this machine and opens its page in the browser.

Reads   the study's file (--study; without it an example of a study), and what --images names
Writes  recordings/<participant>/consent.json
        recordings/<participant>/session_<n>/    recording, log, images, answers; cut_clips.py goes on from there
Run     python collect_sessions.py
        python collect_sessions.py --study my_study.yaml --images diffusers:CompVis/stable-diffusion-v1-4
Takes   as long as people take part; Ctrl-C ends it, and sessions under way can be done again

Participants sit at this machine, or reach it through a proxy on it that speaks HTTPS (--behind-https). Nothing leaves
this machine, except that prompts go to a server that --images server:URL or --prompt-server names; keys for these come
from the environment variables FERGI_IMAGE_KEY and FERGI_PROMPT_KEY. docs/sessions.md explains everything.
"""

import argparse
import contextlib
import ipaddress
import os
import re
import socket
import webbrowser
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from config import FRAME_LIMITS
from fergi.dataset import Folders
from fergi.files import FergiError
from fergi.recording.study import DEFAULT_STUDY, Study, read_study
from fergi.script import add_device_argument, argument_parser, run

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fergi.recording.camera import CameraCheck
    from fergi.recording.server import Guard, Server

PORT = 8750
IMAGE_SIDE = 512  # pixels, of drawn pictures


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--study", type=Path, metavar="FILE", help="YAML or JSON (default: an example)")
    parser.add_argument("--images", metavar="SOURCE", help="drawn, folder:DIR, server:URL, diffusers:DIR_OR_HUB_NAME")
    parser.add_argument("--prompt-server", metavar="URL", help="a language model's, of OpenAI's form (default: none)")
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument("--behind-https", metavar="HOST", help="its name, where a proxy in front speaks HTTPS")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    add_device_argument(parser)
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.port <= 65535:
        parser.error("--port must be from 0 to 65535")
    if chosen.behind_https and not re.fullmatch(r"[a-z0-9.-]+(:[0-9]{1,5})?", chosen.behind_https):
        parser.error("--behind-https must be a host's name in small letters, such as study.example.org")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    chosen = parse(arguments)
    study = read_study(chosen.study) if chosen.study else DEFAULT_STUDY
    changes = {"images": chosen.images, "prompt_server": chosen.prompt_server}
    study = replace(study, **{name: value for name, value in changes.items() if value is not None})
    listening = listen(chosen.address, chosen.port, chosen.behind_https)
    with listening:
        server = prepare(study, chosen)
        try:
            serve(server, listening, chosen)
        finally:
            server.maker.close()
            server.recordings.close()


def listen(address: str, port: int, behind_https: str | None) -> socket.socket:
    """A socket on this machine.

    Raises
    ------
    FergiError
        If the address is not this machine's alone and no proxy is named, or it is taken.
    """
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        raise FergiError(f"--address must be a number such as 127.0.0.1, not {address}.") from None
    if not number.is_loopback and not behind_https:
        raise FergiError(
            f"{address} can be reached from other machines, and browsers give no camera to pages without HTTPS. Leave "
            "--address out, or put a proxy that speaks HTTPS in front and name it with --behind-https HOST."
        )
    listening = socket.socket(socket.AF_INET6 if number.version == 6 else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        raise FergiError(
            f"Port {port} of {address} cannot be used ({error.strerror}). Choose another with --port, 0 for a free one."
        ) from None
    return listening


def prepare(study: Study, chosen: argparse.Namespace) -> "Server":
    """Load what the server needs, and say what it is."""
    from fergi.recording.images import ImageMaker, open_source
    from fergi.recording.prompts import PromptServer
    from fergi.recording.server import Server
    from fergi.recording.storage import Recordings

    prompt_server = None
    if study.prompt_server:
        if not re.match("https?://[^/]", study.prompt_server):
            raise FergiError(f"--prompt-server must begin with http:// or https://, not be {study.prompt_server}.")
        prompt_server = PromptServer(study.prompt_server, study.prompt_model, os.environ.get("FERGI_PROMPT_KEY"))
    image_key = os.environ.get("FERGI_IMAGE_KEY")
    source = open_source(study.images, study, draw=drawn_image, key=image_key, device=lambda: device(chosen.device))
    camera = camera_check(Folders(chosen.root).pretrained_models)
    recordings = Recordings(Folders(chosen.root), study)
    if not chosen.study:
        print("This is an example of a study. Give your own, with the consent text of your ethics board, by --study.")
    if study.images == "drawn":
        print("Images are drawn pictures, not generated ones. Choose a generator with --images.")
    return Server(study, recordings, ImageMaker(source), prompt_server, camera)


def device(name: str | None) -> str:
    """The device for a diffusion model."""
    from fergi.processes import choose_device

    return str(choose_device(name))


def camera_check(pretrained_models: Path) -> "CameraCheck":
    """The check of a camera's picture, with the detector that clips will be processed with."""
    from fergi.faces.detection import FaceDetector, detector_model
    from fergi.recording.camera import CameraCheck

    detector = FaceDetector(detector_model(pretrained_models)[0])

    def confidence(picture: "np.ndarray") -> float | None:
        face = detector.detect(picture)
        return None if face is None else face.score

    return CameraCheck(confidence, FRAME_LIMITS.minimum_detection_confidence)


def drawn_image(prompt: str, seed: int) -> "Image.Image":
    """A drawn picture, good or bad, of the things that a prompt names, and of others where it names none."""
    import numpy as np

    from synthetic.pictures import COLOURS, FLYING, STANDING, draw_picture, random_scene

    scene = random_scene(np.random.default_rng(zlib.crc32(prompt.encode())))
    for part, kinds in (("standing", STANDING), ("flying", FLYING)):
        named = re.search(rf"(?:\b({'|'.join(COLOURS)}) )?\b({'|'.join(kinds)})", prompt.lower())
        if named:
            things = getattr(scene, part)
            scene = replace(scene, **{part: replace(things, kind=named[2], colour=named[1] or things.colour)})
    random = np.random.default_rng(seed)
    return draw_picture(scene, random.uniform(), random, IMAGE_SIDE).picture


def application(server: "Server", address: str, port: int, behind_https: str | None) -> tuple["Guard", str]:
    """The application and the page's address."""
    from fergi.recording.server import make_app

    if behind_https:
        return make_app(server, [behind_https], "https"), f"https://{behind_https}/"
    name = f"[{address}]" if ":" in address else address
    hosts = [f"{name}:{port}", f"localhost:{port}"]
    return make_app(server, hosts), f"http://{hosts[0]}/"


def serve(server: "Server", listening: socket.socket, chosen: argparse.Namespace) -> None:
    """Answer requests until Ctrl-C."""
    import uvicorn

    app, page = application(server, *listening.getsockname()[:2], chosen.behind_https)
    listening.listen()
    print(f"Sessions go to {server.recordings.folder}. Ctrl-C ends the server.")
    print(f"Page for participants: {page}", flush=True)
    if not chosen.no_browser:
        webbrowser.open(page)
    settings = uvicorn.Config(
        app,
        access_log=False,  # it would hold what participants ask for
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=5,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
    print("The server has ended. Complete sessions are in their folders; others can be done again.")


if __name__ == "__main__":
    run(main)
