"""A scripted participant: headless Chromium with a film as its camera, and what people do on the pages of a study.

``agree``, ``pass_camera``, ``write_prompt`` or ``fill_in_form``, ``start_recording``, for each image ``answer``, then
``rank``; ``do_session`` does all but the first. Buttons and headings are found by the keys of the pages'
``texts.json``. Needs ``playwright`` (requirements-dev.txt) and Debian's Chromium or another one on the path.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

import fergi.recording
from fergi.dataset import EMOTIONS, ISSUES
from fergi.files import FergiError, replacing
from synthetic.pictures import Scene

TEXTS = json.loads((Path(fergi.recording.__file__).parent / "static" / "texts.json").read_text(encoding="utf-8"))
PATIENCE = 60_000  # ms for one step, on a busy machine
RATINGS = ("overallRating", "alignmentRating", "fidelityRating")


def write_film(pictures: Iterable[np.ndarray], path: Path) -> Path:
    """RGB pictures as the film of Chromium's fake camera, which plays it at 30 FPS, over and over; ``path``."""
    with replacing(path) as file:
        for picture in pictures:
            _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
            file.write(encoded.tobytes())
    return path


def chromium() -> str:
    """Where the browser is.

    Raises
    ------
    FergiError
        If there is none.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise FergiError("There is no Chromium on the path. On Debian: apt-get install chromium.")
    return found


@contextlib.contextmanager
def open_browser(film: Path) -> Iterator[Browser]:
    """Headless Chromium whose camera shows a film and may be used without asking.

    Raises
    ------
    FergiError
        If there is no Chromium (see ``chromium``).
    """
    expect.set_options(timeout=PATIENCE)
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = ["--no-sandbox", *camera, f"--use-file-for-fake-video-capture={film.resolve()}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


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


@contextlib.contextmanager
def participant(film: Path, url: str) -> Iterator[Page]:
    """The study's page before a participant with a camera, in a browser of their own.

    Raises
    ------
    FergiError
        If there is no Chromium (see ``chromium``), or a page does not do what it should.
    """
    try:
        with open_browser(film) as browser:
            yield open_page(browser, url)
    except (Error, AssertionError) as error:
        raise FergiError(f"The pages do not go on as they should: {str(error).splitlines()[0]}") from error


# What people do, page by page ----------------------------------------------------------------------------------------


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


def write_prompt(page: Page, prompt: str) -> None:
    """The prompt of a free session."""
    page.get_by_label(text("prompt_label")).fill(prompt)
    button(page, "prompt_go").click()


def fill_in_form(page: Page, scene: Scene) -> None:
    """The prompt of a structured session: one inanimate object and the place, and the proposal as it comes."""
    button(page, "add_inanimate").click()
    row = page.locator('[data-section="inanimate"] .row')
    things = scene.standing
    for name, value in (("name", things.kind), ("quantity", things.number), ("characteristics", things.colour)):
        row.locator(f'[name="{name}"]').fill(str(value))
    page.locator('[name="location"]').fill(f"on {scene.ground}")
    button(page, "prompt_generate").click()
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
    for name, rating in zip(RATINGS, ratings, strict=True):
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
    if list(order or start) == start:  # nothing was moved: the page asks once more
        expect(page.get_by_role("alert")).to_have_text(text("ranking_untouched"))
        button(page, "ranking_finish").click()
    return start


def do_session(page: Page, number: int, kind: str, scene: Scene, n_images: int, random: np.random.Generator) -> None:
    """One session, from the camera check or the end of the session before; answers are drawn at random."""
    if number > 1:
        button(page, "done_next", number=number).click()
    pass_camera(page)
    if kind == "structured":
        fill_in_form(page, scene)
    else:
        write_prompt(page, scene.prompt)
    start_recording(page)
    for image in range(1, 1 + n_images):
        ticked = [option for option in (*ISSUES, *EMOTIONS) if random.random() < 0.2]
        answer(page, image, n_images, ratings=random.integers(1, 8, len(RATINGS)).tolist(), ticked=ticked)
    rank(page, random.permutation(n_images).tolist())
    heading(page, "done_title", number=number)
