"""A browser with a film as its camera, a server of sessions, and a participant who takes part in a study.

How to use it::

    film = write_film(pictures, tmp_path / "camera.mjpeg")         # RGB pictures, played at 30 FPS, over and over
    with open_browser(film) as browser, SessionServer(tmp_path / "root", images_per_prompt=3) as server:
        page = open_page(browser, server.url)                      # a participant's own tab
        take_part(page, prompt="two red mushrooms", order=[2, 0, 1])
        server.recordings / "001" / "session_1"                    # what came of it

``SessionServer`` takes keys of the study's file; one free session of two images, a second for baseline and image, is
what it asks for unless told otherwise. The fixture ``camera`` is the browser with a drawn face before it, one for all.
The steps of ``take_part``, one by one, are in ``synthetic/participant.py``.
Tests are skipped where there is no Chromium.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from fergi.files import FergiError
from synthetic import participant
from synthetic.expressions import Actor, View, expression, find_actor
from synthetic.participant import (
    agree,
    answer,
    button,
    heading,
    open_browser,
    pass_camera,
    rank,
    start_recording,
    write_film,
)

CODE = Path(__file__).parent.parent
PROMPT = "two red mushrooms under a yellow star"
STUDY = {
    "title": "A study of images",
    "version": "1",
    "contact": "researcher@example.org",
    "consent": {"version": "1", "paragraphs": ["You look at images.", "Your face is recorded."]},
    "sessions": {"structured": 0, "free": 1},
    "images_per_prompt": 2,
    "seconds": {"baseline": 1, "image": 1},
}


# Camera and browser ------------------------------------------------------------------------------------------------


def drawn_face(n_frames: int = 60) -> Iterator[np.ndarray]:
    """A person who smiles and moves a little, 640 × 480, RGB."""
    actor: Actor = find_actor(np.random.default_rng(12), CODE / "pretrained_models")
    noise = np.random.default_rng(3)
    for turn in np.linspace(0, 2 * np.pi, n_frames, endpoint=False):
        smile, shift = 2 - 2 * np.cos(turn), 4 * np.sin(turn)
        yield cv2.resize(actor.frame(expression(AU12=smile), View(x=shift), noise), (640, 480))


def chromium() -> str:
    """Where the browser is; without it the test is skipped."""
    try:
        return participant.chromium()
    except FergiError as error:
        pytest.skip(f"the session's pages are not tested: {error}")


@pytest.fixture(scope="module")  # Playwright can be started once at a time
def camera(tmp_path_factory) -> Iterator[Browser]:
    """A browser before whose camera a drawn person sits."""
    chromium()
    with open_browser(write_film(drawn_face(), tmp_path_factory.mktemp("camera") / "face.mjpeg")) as browser:
        yield browser


# Server ------------------------------------------------------------------------------------------------------------


class SessionServer:
    """``collect_sessions.py`` in a process of its own, for a ``with`` block; ``study`` are keys of the study's file."""

    def __init__(self, root: Path, *options: str, **study: Any):
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.options, self.port = root, options, 0
        self.recordings = root / "recordings"
        (root / "study.json").write_text(json.dumps(STUDY | study))

    def __enter__(self) -> "SessionServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, again at the same port if it ran before, and wait until it answers."""
        log = self.root / "server.log"
        command = [sys.executable, "collect_sessions.py", "--no-browser", "--root", self.root, "--port", str(self.port)]
        command += ["--study", self.root / "study.json", *self.options]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=CODE, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
        deadline = time.monotonic() + 120
        while "Page for participants: " not in log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        self.url = log.read_text().split("Page for participants: ")[1].split()[0]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


# A participant -----------------------------------------------------------------------------------------------------


def write_prompt(page: Page, prompt: str = PROMPT) -> None:
    """The prompt of a free session."""
    participant.write_prompt(page, prompt)


def take_part(
    page: Page,
    *,
    number: int = 1,
    n: int = 2,
    prompt: str = PROMPT,
    sharing: bool = True,
    answers: Callable[[int], Mapping[str, Any]] = lambda image: {},
    order: Sequence[int] | None = None,
) -> list[int]:
    """One free session of ``n`` images to its end, from the consent or from the end of the session before.

    ``answers`` gives for an image what ``answer`` takes; ``order`` are ids from 0, best first. Returns the order in
    which the ranking page started.
    """
    if number == 1:
        agree(page, sharing=sharing)
    else:
        button(page, "done_next", number=number).click()
    pass_camera(page)
    write_prompt(page, prompt)
    start_recording(page)
    for image in range(1, n + 1):
        answer(page, image, n, **answers(image))
    start = rank(page, order)
    heading(page, "done_title", number=number)
    return start
