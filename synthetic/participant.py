"""A scripted participant: headless Chromium with a film as its camera, who does the sessions of a study.

Buttons and headings are found by the keys of the pages' ``texts.json``. Needs ``playwright`` (requirements-dev.txt) and
Debian's Chromium or another one on the path.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Error, Locator, Page, expect, sync_playwright

import fergi.recording
from fergi.dataset import EMOTIONS, ISSUES
from fergi.files import FergiError, replacing
from synthetic.pictures import Scene

TEXTS = json.loads((Path(fergi.recording.__file__).parent / "static" / "texts.json").read_text(encoding="utf-8"))
PATIENCE = 60_000  # ms for one step, on a busy machine
RATINGS = ("overallRating", "alignmentRating", "fidelityRating")


def write_film(pictures: Iterable[np.ndarray], path: Path) -> None:
    """RGB pictures as the film of Chromium's fake camera, which plays it at 30 FPS, over and over."""
    with replacing(path) as file:
        for picture in pictures:
            _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
            file.write(encoded.tobytes())


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
def participant(film: Path, url: str) -> Iterator["Participant"]:
    """A participant before a camera, in a browser of their own.

    Raises
    ------
    FergiError
        If there is no Chromium (see ``chromium``), or a page does not do what it should.
    """
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = ["--no-sandbox", *camera, f"--use-file-for-fake-video-capture={film.resolve()}"]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
            page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(url)
            yield Participant(page)
            browser.close()
    except (Error, AssertionError) as error:
        raise FergiError(f"The pages do not go on as they should: {str(error).splitlines()[0]}") from error


class Participant:
    """What they do, page by page."""

    def __init__(self, page: Page):
        self.page = page

    def button(self, key: str, **values: object) -> Locator:
        """The button with a text of the pages."""
        return self.page.get_by_role("button", name=TEXTS[key].format(**values), exact=True)

    def wait_for(self, key: str, **values: object) -> None:
        """Wait for the page with this heading."""
        found = self.page.get_by_role("heading", name=TEXTS[key].format(**values), exact=True)
        expect(found).to_be_visible(timeout=PATIENCE)

    def agree(self, *, sharing: bool) -> None:
        """The two permissions."""
        self.page.get_by_label(TEXTS["consent_recording_yes"]).check()
        self.page.get_by_label(TEXTS["consent_sharing_yes" if sharing else "consent_sharing_no"]).check()
        self.button("consent_agree").click()

    def do_session(self, number: int, kind: str, scene: Scene, n_images: int, random: np.random.Generator) -> None:
        """One session, from the camera check or the end of the session before; answers are drawn at random."""
        if number > 1:
            self.button("done_next", number=number).click()
        self.button("camera_turn_on").click()
        self.button("continue").click()
        if kind == "structured":
            self._fill_in_form(scene)
        else:
            self.page.get_by_label(TEXTS["prompt_label"]).fill(scene.prompt)
        self.button("prompt_go").click()
        self.button("ready_start").click()
        for image in range(1, 1 + n_images):
            self._answer(image, n_images, random)
        self._rank(random.permutation(n_images).tolist())
        self.wait_for("done_title", number=number)

    def _fill_in_form(self, scene: Scene) -> None:
        """One inanimate object and the place, then the proposal as it comes."""
        self.button("add_inanimate").click()
        row = self.page.locator('[data-section="inanimate"] .row')
        things = scene.standing
        for name, text in (("name", things.kind), ("quantity", things.number), ("characteristics", things.colour)):
            row.locator(f'[name="{name}"]').fill(str(text))
        self.page.locator('[name="location"]').fill(f"on {scene.ground}")
        self.button("prompt_generate").click()

    def _answer(self, image: int, n_images: int, random: np.random.Generator) -> None:
        self.wait_for("survey_title", image=image, n=n_images)
        for name in RATINGS:
            rating = self.page.get_by_role("group", name=TEXTS[name]).get_by_role(
                "radio", name=str(random.integers(1, 8))
            )
            rating.check()
        for option in (*ISSUES, *EMOTIONS):
            if random.random() < 0.2:
                self.page.get_by_label(TEXTS[option], exact=True).check()
        self.button("survey_last" if image == n_images else "survey_next").click()

    def _rank(self, order: list[int]) -> None:
        """Drag the images into this order of ids."""
        self.wait_for("ranking_title")
        items = self.page.locator(".ranking li")
        start = self._shown(items)
        for place, wanted in enumerate(order):
            now = self._shown(items)
            if now[place] != wanted:
                items.nth(now.index(wanted)).locator("img").drag_to(items.nth(place).locator("img"))
                self.page.wait_for_function(
                    "([place, id]) => document.querySelectorAll('.ranking li')[place].dataset.id == id",
                    arg=[place, wanted],
                )
        self.button("ranking_finish").click()
        if order == start:  # nothing was moved: the page asks once more
            expect(self.page.get_by_role("alert")).to_have_text(TEXTS["ranking_untouched"])
            self.button("ranking_finish").click()

    def _shown(self, items: Locator) -> list[int]:
        """The ids of the ranking's images, as they stand."""
        return [int(item.get_attribute("data-id")) for item in items.all()]
