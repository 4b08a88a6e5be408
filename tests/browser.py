"""A browser with a film as its camera, a server of sessions, and a participant who takes part in a study.

How to use it::

    film = write_film(tmp_path / "camera.mjpeg", pictures)         # RGB pictures, played at 30 FPS, over and over
    with open_browser(film) as browser, SessionServer(tmp_path / "root", images_per_prompt=3) as server:
        page = open_page(browser, server.url)                      # a participant's own tab
        take_part(page, prompt="two red mushrooms", order=[2, 0, 1])
        server.recordings / "001" / "session_1"                    # what came of it

``SessionServer`` takes keys of the study's file; one free session of two images, a second for baseline and image, is
what it asks for unless told otherwise. The fixture ``camera`` is the browser with a drawn face before it, one for all.
The steps of ``take_part`` can be called one by one: ``agree``, ``pass_camera``, ``write_prompt``, ``start_recording``,
and for each image ``answer``, then ``rank``. Buttons and headings are found by the keys of ``texts.json``.
Tests are skipped where there is no Chromium.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from synthetic.expressions import Actor, View, expression, find_actor

CODE = Path(__file__).parent.parent
TEXTS = json.loads((CODE / "fergi/recording/static/texts.json").read_text())
PATIENCE = 30_000  # ms for one step, on a busy machine
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
expect.set_options(timeout=PATIENCE)


# Camera and browser ------------------------------------------------------------------------------------------------


def write_film(path: Path, pictures: Iterable[np.ndarray], quality: int = 90) -> Path:
    """RGB pictures as the film of Chromium's fake camera: JPEGs one after the other."""
    with path.open("wb") as file:
        for picture in pictures:
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            file.write(cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1].tobytes())
    return path


def drawn_face(n_frames: int = 60) -> Iterator[np.ndarray]:
    """A person who smiles and moves a little, 640 × 480, RGB."""
    actor: Actor = find_actor(np.random.default_rng(12), CODE / "pretrained_models")
    noise = np.random.default_rng(3)
    for turn in np.linspace(0, 2 * np.pi, n_frames, endpoint=False):
        smile, shift = 2 - 2 * np.cos(turn), 4 * np.sin(turn)
        yield cv2.resize(actor.frame(expression(AU12=smile), View(x=shift), noise), (640, 480))


def chromium() -> str:
    """Where the browser is; without it the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed, so the session's pages are not tested (apt-get install chromium)")
    return found


@contextmanager
def open_browser(film: Path) -> Iterator[Browser]:
    """Headless Chromium whose camera shows a film and may be used without asking."""
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film.resolve()}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def camera(tmp_path_factory) -> Iterator[Browser]:
    """A browser before whose camera a drawn person sits."""
    chromium()
    with open_browser(write_film(tmp_path_factory.mktemp("camera") / "face.mjpeg", drawn_face())) as browser:
        yield browser


def open_page(browser: Browser, url: str, script: str = "", **context: Any) -> Page:
    """The study's page in a browser profile of its own; ``script`` runs before the page's own scripts."""
    options = {"viewport": {"width": 1280, "height": 720}} | context
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())
    if script:
        page.add_init_script(script)
    page.goto(url)
    return page


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


def text(key: str, **values: Any) -> str:
    """A sentence of the pages."""
    return TEXTS[key].format(**values)


def button(page: Page, key: str, **values: Any) -> Locator:
    """The button with a text of the pages."""
    return page.get_by_role("button", name=text(key, **values), exact=True)


def heading(page: Page, key: str, **values: Any) -> Locator:
    """Wait for the page with this heading."""
    found = page.get_by_role("heading", name=text(key, **values), exact=True)
    expect(found).to_be_visible()
    return found


def agree(page: Page, *, sharing: bool = True) -> None:
    """Consent to the recording, and to sharing or not."""
    page.get_by_label(text("consent_recording_yes")).check()
    page.get_by_label(text("consent_sharing_yes" if sharing else "consent_sharing_no")).check()
    button(page, "consent_agree").click()


def pass_camera(page: Page) -> None:
    """Turn the camera on and go on when every check is passed."""
    button(page, "camera_turn_on").click()
    button(page, "continue").click()


def write_prompt(page: Page, prompt: str = PROMPT) -> None:
    """The prompt of a free session."""
    page.get_by_label(text("prompt_label")).fill(prompt)
    button(page, "prompt_go").click()


def start_recording(page: Page) -> None:
    """Start when all images are made."""
    button(page, "ready_start").click()


def answer(
    page: Page, image: int, n: int, *, ratings: Sequence[int] = (4, 4, 4), ticked: Sequence[str] = (), missing: str = ""
) -> None:
    """Wait for the survey on an image and fill it in; ratings in the page's order, ``ticked`` issues and emotions."""
    heading(page, "survey_title", image=image, n=n)
    page.get_by_label(text("survey_missing")).fill(missing)
    for name, rating in zip(("overallRating", "alignmentRating", "fidelityRating"), ratings, strict=True):
        group = page.get_by_role("group", name=text(name))
        group.get_by_role("radio", name=str(rating), exact=True).check()
    for option in ticked:
        page.get_by_label(text(option), exact=True).check()
    button(page, "survey_last" if image == n else "survey_next").click()


def shown_order(page: Page) -> list[int]:
    """The ids of the ranking page's images, as they stand."""
    return [int(item.get_attribute("data-id")) for item in page.locator(".ranking li").all()]


def rank(page: Page, order: Sequence[int] | None = None) -> list[int]:
    """Drag the images into an order of ids (default: the present one) and finish; the order in which they started."""
    heading(page, "ranking_title")
    start = shown_order(page)
    for place, wanted in enumerate(order or start):
        now = shown_order(page)
        if now[place] != wanted:
            items = page.locator(".ranking li")
            items.nth(now.index(wanted)).locator("img").drag_to(items.nth(place).locator("img"))
            page.wait_for_function(
                "([place, id]) => document.querySelectorAll('.ranking li')[place].dataset.id == id", arg=[place, wanted]
            )
    button(page, "ranking_finish").click()
    if list(order or start) == start:  # nothing was moved: asked once more
        expect(page.get_by_role("alert")).to_have_text(text("ranking_untouched"))
        button(page, "ranking_finish").click()
    return start


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
