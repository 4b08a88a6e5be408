"""The pages of a study in a browser, with a drawn person before the camera: what people do, and what goes wrong."""

import hashlib
import json
import re
from pathlib import Path

import av
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import SessionServer, camera, write_prompt
from playwright.sync_api import Locator, Page, expect

from fergi.dataset import EMOTIONS, ISSUES
from synthetic.participant import (
    TEXTS,
    agree,
    answer,
    button,
    heading,
    open_page,
    pass_camera,
    rank,
    shown_order,
    start_recording,
    text,
)

__all__ = ["camera"]  # a fixture
pytestmark = pytest.mark.xdist_group("browser")  # one process has the browser and the servers
PAGES = Path(__file__).parent.parent / "fergi/recording/static"
OPTIONS = (*ISSUES, *EMOTIONS)
LONG_PROMPT = "a red bird looking at a very old flower in the light of a late summer evening, " * 5
# A page may ask for anything of these; what it gave stays in window.given.
OWN_CAMERA = """
window.failures = [];
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  window.asked = wanted;
  if (window.failures.length) throw new DOMException("", window.failures.shift());
  return (window.given = await real(wanted));
};
let state = "visible";
Object.defineProperty(document, "visibilityState", { get: () => state });
window.slowness = 1;
const callback = HTMLVideoElement.prototype.requestVideoFrameCallback;
HTMLVideoElement.prototype.requestVideoFrameCallback = function (then) {
  return callback.call(this, (now, { captureTime, presentedFrames: n }) =>
    then(now, { captureTime: window.noTimes ? undefined : captureTime, presentedFrames: n / window.slowness }));
};
window.setVisibility = (value) => { state = value; document.dispatchEvent(new Event("visibilitychange")); };
"""


@pytest.fixture(scope="module")
def server(camera, tmp_path_factory):
    """A study with one structured and two free sessions of four images, whose survey is shuffled."""
    study = {"sessions": {"structured": 1, "free": 2}, "images_per_prompt": 4, "shuffle_survey": True}
    with SessionServer(tmp_path_factory.mktemp("long"), **study) as server:
        yield server


@pytest.fixture(scope="module")
def short(camera, tmp_path_factory):
    """A study with free sessions of two images, and some words of its own."""
    own = {"language": "en-GB", "declined_text": "{nothing} was stored."}
    with SessionServer(tmp_path_factory.mktemp("short"), sessions={"structured": 0, "free": 3}, texts=own) as server:
        yield server


def check_accessible(page: Page) -> None:
    """No violation of axe's rules on the page as it is, not even a minor one."""
    violations = Axe().run(page).response["violations"]
    assert not [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations]


def events_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def decoded_times(folder: Path) -> list[float]:
    """The times of all frames of the recording, seconds, each decoded."""
    (path,) = folder.glob("recording.*")
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def participant_of(page: Page) -> str:
    return page.evaluate("JSON.parse(localStorage.getItem('fergi-participant')).participant")


def fill_form(page: Page) -> None:
    """A structured session's form: a bird that looks at a flower, and a sleeping cat."""
    for section, name, activity in (
        ("animate", "bird", ""),
        ("animate", "cat", "sleeping"),
        ("inanimate", "flower", ""),
    ):
        button(page, f"add_{section}").click()
        row = page.locator(f"[data-section={section}] .row").last
        row.get_by_label(text("field_name")).fill(name)
        if activity:
            row.get_by_label(text("field_activity")).fill(activity)
    button(page, "add_interactional").click()
    first, second = page.get_by_role("combobox").all()
    assert first.locator("option").all_inner_texts() == [text("select"), "bird"]  # the cat has an activity
    first.select_option(label="bird")
    assert second.locator("option").all_inner_texts() == [text("select"), "flower"]  # and the bird a relation
    second.select_option(label="flower")


# Whole sessions ----------------------------------------------------------------------------------------------------


def test_session_by_mouse(camera, server):
    """Structured, sharing refused; every option of the survey ends under its own key."""
    page = open_page(camera, server.url, OWN_CAMERA)
    asked, n = [], 4
    page.on("request", lambda request: asked.append(request.url))
    heading(page, "consent_title")
    check_accessible(page)
    button(page, "consent_agree").click()
    expect(page.get_by_role("alert")).to_have_text(text("consent_recording_missing"))
    page.get_by_label(text("consent_recording_yes")).check()
    button(page, "consent_agree").click()
    expect(page.get_by_role("alert")).to_have_text(text("consent_sharing_missing"))
    agree(page, sharing=False)
    heading(page, "camera_title")
    check_accessible(page)
    button(page, "camera_turn_on").click()
    expect(page.locator("#sign")).to_have_text(text("camera_on"))
    expect(page.locator("#verdict")).to_have_text(text("check_good"))
    assert page.locator("video").is_visible() and page.evaluate("window.asked.audio") is False
    check_accessible(page)
    button(page, "continue").click()

    fill_form(page)
    button(page, "prompt_generate").click()  # without what the bird does
    expect(page.get_by_role("alert")).to_have_text("Say what the relation is.")
    expect(page.get_by_label(text("field_relation"))).to_be_focused()
    check_accessible(page)
    page.get_by_label(text("field_relation")).fill("looking at")
    for left in (1, 0):
        button(page, "prompt_generate").click()
        expect(page.locator("#attempts")).to_have_text(text("prompt_attempts", left=left))
    expect(button(page, "prompt_generate")).to_be_disabled()
    prompt = page.get_by_label(text("prompt_label"))
    assert "bird looking at a flower" in prompt.input_value() and "cat sleeping" in prompt.input_value()
    prompt.fill("a bird and a flower")
    button(page, "prompt_go").click()
    heading(page, "ready_title")
    check_accessible(page)
    start_recording(page)
    for image in range(1, n + 1):
        heading(page, "baseline_title", image=image, n=n)
        assert text("baseline_status") in page.locator("main").inner_text()
        assert "a bird and a flower" in page.locator("main").inner_text()
        expect(page.locator("#sign")).to_have_text(text("recording"))
        assert not page.locator("video").count()
        heading(page, "image_title", image=image, n=n)
        assert page.locator("#sign").inner_text() == text("recording") and not page.locator("video").count()
        heading(page, "survey_title", image=image, n=n)
        if image == 1:
            check_accessible(page)
            button(page, "survey_next").click()
            expect(page.get_by_role("alert")).to_have_text(text("rating_needed"))
        ticked = [
            option for place, option in enumerate(OPTIONS, 1) if place >> (image - 1) & 1
        ]  # a code of its own each
        answer(page, image, n, ratings=(image, 8 - image, 7), ticked=ticked, missing="wings" if image == 2 else "")
        expect(page.locator("#sign")).to_have_text(text("recording"))
    heading(page, "ranking_title")
    check_accessible(page)
    start = rank(page, order=[2, 0, 3, 1])
    heading(page, "done_title", number=1)
    check_accessible(page)
    assert "seconds of video" in page.locator(".list").inner_text()
    assert page.evaluate("window.given.getTracks().map((track) => track.readyState)") == ["ended"]
    assert all(url.startswith((server.url, f"blob:{server.url}")) for url in asked)

    folder = server.recordings / participant_of(page) / "session_1"
    assert json.loads((folder.parent / "consent.json").read_text())["sharing"] is False
    answers = json.loads((folder / "answers.json").read_text())
    assert (answers["ranking"], answers["ranking_start"]) == ([2, 0, 3, 1], start)
    for image, survey in enumerate(answers["survey"], 1):
        assert [survey[f"{name}Rating"] for name in ("overall", "alignment", "fidelity")] == [image, 8 - image, 7]
        assert tuple(survey["issuesList"]) == ISSUES and tuple(survey["reactionList"]) == EMOTIONS
        for place, option in enumerate(OPTIONS, 1):
            assert (survey["issuesList"] | survey["reactionList"])[option] is bool(place >> (image - 1) & 1), option
    assert [survey["missingElements"] for survey in answers["survey"]] == ["", "wings", "", ""]
    session = json.loads((folder / "session.json").read_text())
    assert session["prompt"] == "a bird and a flower" and len(session["proposals"]) == 2
    assert session["camera"]["label"].endswith("face.mjpeg") and "Chrome" in session["browser"]
    check_recording(folder, n, start)


def check_recording(folder: Path, n: int, start: list[int]) -> None:
    """The log has every mark in its order, and the recording every frame that the server counted."""
    events = events_of(folder)
    each_image = ["baseline_shown", "image_shown", "image_hidden", "survey_shown", "survey_answered"]
    marks = [event for event in events if event["name"] in ("recorder_starting", "recorder_started", *each_image)
             or event["name"] in ("ranking_shown", "ranking_done", "recorder_stopped")]  # fmt: skip
    names = [
        "recorder_starting",
        "recorder_started",
        *(n * each_image),
        "ranking_shown",
        "ranking_done",
        "recorder_stopped",
    ]
    assert [mark["name"] for mark in marks] == names
    assert [mark["time"] for mark in marks] == sorted(mark["time"] for mark in marks)
    times = {(mark["name"], mark["image"]): mark["time"] for mark in marks if "image" in mark}
    for image in range(1, n + 1):
        baseline, shown, hidden = (times[name, image] for name in each_image[:3])
        assert shown - baseline >= 999 and hidden - shown >= 999
    rendered = {event["image"]: event["renderTime"] for event in events if event["name"] == "image_rendered"}
    assert [image for image in rendered if rendered[image] >= times["image_shown", image]] == list(range(1, n + 1))
    orders = [event for event in events if event["name"] == "survey_shown"]
    assert all(sorted(event["issues"]) == sorted(ISSUES) for event in orders)
    assert len({tuple(event["issues"]) for event in orders}) > 1  # shuffled
    assert next(event["order"] for event in events if event["name"] == "ranking_shown") == start

    frames = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    assert frames[0]["captureTime"] < marks[0]["time"] and frames[-1]["captureTime"] > times["survey_answered", n]
    evidence = json.loads((folder / "session.json").read_text())["evidence"]
    decoded = decoded_times(folder)
    assert len(decoded) == evidence["recorded_frames"] > 30 * 2 * n * 0.5
    assert decoded == sorted(set(decoded)) and evidence["matched_share"] > 0.7


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(100):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"The keyboard does not reach {target}.")


def press(page: Page, target: Locator, *keys: str) -> None:
    """Go to the target with Tab and press keys there."""
    expect(target).to_be_enabled()
    tab_to(page, target)
    for key in keys:
        page.keyboard.press(key)


def test_session_by_keyboard_alone(camera, server):
    """At 4K in the dark: structured session, stop asked and dismissed, ranking with arrow keys."""
    size = {"width": 3840, "height": 2160}
    page = open_page(camera, server.url, viewport=size, screen=size, color_scheme="dark", reduced_motion="reduce")
    n = 4

    def on_page(key: str, **values) -> None:
        expect(heading(page, key, **values)).to_be_focused()

    on_page("consent_title")
    check_accessible(page)
    press(page, page.get_by_label(text("consent_recording_yes")), "Space")
    press(page, page.get_by_label(text("consent_sharing_yes")), "Space")
    press(page, button(page, "consent_agree"), "Enter")
    on_page("camera_title")
    press(page, button(page, "camera_turn_on"), "Enter")
    press(page, button(page, "continue"), "Enter")
    on_page("prompt_title_structured")
    press(page, button(page, "add_animate"), "Enter")
    expect(page.get_by_label(text("field_name"))).to_be_focused()
    page.keyboard.type("robot")
    press(page, button(page, "prompt_generate"), "Enter")
    expect(page.get_by_label(text("prompt_label"))).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.type(", blue")
    check_accessible(page)
    press(page, button(page, "prompt_go"), "Enter")
    on_page("ready_title")
    press(page, button(page, "ready_start"), "Enter")
    for image in range(1, n + 1):
        on_page("baseline_title", image=image, n=n)
        on_page("survey_title", image=image, n=n)
        if image == 1:
            check_accessible(page)
            press(page, button(page, "stop"), "Enter")
            expect(page.get_by_role("dialog")).to_be_visible()
            check_accessible(page)
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()
        for name in ("overallRating", "alignmentRating", "fidelityRating"):
            first = page.get_by_role("group", name=text(name)).get_by_role("radio").first
            press(page, first, "Space", *(image * ["ArrowRight"]))
        press(page, page.get_by_label(text("amused"), exact=True), "Space")
        press(page, button(page, "survey_last" if image == n else "survey_next"), "Enter")
    on_page("ranking_title")
    start = shown_order(page)
    moving = start[0]
    worse = page.get_by_role("button", name=text("ranking_worse", image=moving + 1))
    tab_to(page, worse)
    for place in (2, 3):
        page.keyboard.press("ArrowRight")
        expect(page.locator("#live")).to_have_text(text("ranking_moved", image=moving + 1, place=place, n=n))
        expect(worse).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # the button itself moves too
    wanted = [start[1], start[2], moving, start[3]]
    assert shown_order(page) == wanted
    check_accessible(page)
    press(page, button(page, "ranking_finish"), "Enter")
    on_page("done_title", number=1)
    check_accessible(page)

    folder = server.recordings / participant_of(page) / "session_1"
    answers = json.loads((folder / "answers.json").read_text())
    assert (answers["ranking"], answers["ranking_start"]) == (wanted, start)
    assert [survey["overallRating"] for survey in answers["survey"]] == [2, 3, 4, 5]
    assert all(
        survey["reactionList"]["amused"] and sum(survey["reactionList"].values()) == 1 for survey in answers["survey"]
    )
    assert json.loads((folder / "session.json").read_text())["form"]["animate"][0]["name"] == "robot"
    assert [event["name"] for event in events_of(folder) if event["name"].startswith("stop")] == [
        "stop_asked",
        "stop_dismissed",
    ]


@pytest.mark.parametrize("size", [(1280, 720), (3840, 2160)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_baseline_and_image_fit_into_the_window(camera, short, size, scheme):
    """The prompt keeps its place, even a long one, and nothing scrolls."""
    size = dict(zip(("width", "height"), size, strict=True))
    page = open_page(camera, short.url, viewport=size, screen=size, color_scheme=scheme)
    heading(page, "consent_title")
    places = []
    for content in ("<p class='status'>Preparing</p>", "<img alt='Image 1' src='/static/icon.svg'>"):
        page.evaluate(
            """async ([prompt, content]) => (await import('/static/pages.js')).show('shown', (page) => {
                 page.querySelector('h1').textContent = 'Title';
                 page.querySelector('.prompt').textContent = prompt;
                 page.querySelector('.show').innerHTML = content;
               })""",
            [LONG_PROMPT, content],
        )
        check_accessible(page)
        root = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert root == [size["width"], size["height"]]
        places.append(page.locator(".prompt").bounding_box())
    picture = page.locator(".show img").bounding_box()
    assert places[0] == places[1] and picture["height"] > 0.4 * size["height"]
    assert picture["y"] + picture["height"] <= size["height"]


def test_random_orders_are_random(camera, short):
    """Each of four images starts each place in about a quarter of 4,000 orders (six standard deviations allowed)."""
    page = open_page(camera, short.url)
    orders = page.evaluate(
        "import('/static/pages.js').then(({shuffled}) => Array.from({length: 4000}, () => shuffled([0, 1, 2, 3])))"
    )
    for place in range(4):
        for image in range(4):
            assert abs(sum(order[place] == image for order in orders) - 1000) < 6 * 27.4
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    pages = page.evaluate(
        """import('/static/answers.js').then(async ({rankingPage}) => {
             const seen = [];
             for (let i = 0; i < 40; i++) {
               const { start } = await rankingPage('a prompt', [0, 1, 2, 3].map(() => new Image()));
               seen.push([start, [...document.querySelectorAll('.ranking li')].map((item) => Number(item.dataset.id))]);
             }
             return seen;
           })"""
    )
    assert all(start == shown for start, shown in pages)
    assert len({tuple(start) for start, _ in pages}) > 10  # of 24


def test_camera_that_cannot_be_used_is_held_back(camera, short):
    """Each finding of the check is said in words, and nobody goes on before all is well."""
    page = open_page(camera, short.url, OWN_CAMERA)
    good = {"face": True, "score": 0.97, "brightness": 0.5, "still": False, "problems": []}
    found = dict(good)
    page.route("**/api/camera-check", lambda route: route.fulfill(json=found))
    agree(page)
    heading(page, "camera_title")
    page.evaluate("Object.defineProperty(MediaStreamTrack.prototype, 'label', { get: () => 'OBS Virtual Camera' })")
    button(page, "camera_turn_on").click()
    expect(page.locator("#verdict")).to_have_text(text("check_good"))
    assert text("check_name_no", name="OBS Virtual Camera") in page.locator("[data-check=name]").inner_text()
    for change, said in (
        ({"face": False, "problems": ["no_face"]}, "check_face_no"),
        ({"problems": ["unsure_face"]}, "check_face_unsure"),
        ({"face": False, "problems": ["blank", "no_face"]}, "check_face_no"),
        ({"still": True, "problems": ["still"]}, "check_still_no"),
        ({"problems": ["too_dark"]}, "check_light_no"),
        ({"problems": ["too_bright"]}, "check_bright_no"),
    ):
        found.update(good | change)
        expect(page.get_by_text(text(said))).to_be_visible()
        expect(page.locator("#verdict")).to_have_text(text("check_bad"))
        expect(button(page, "continue")).to_be_disabled()
    check_accessible(page)
    found.update(good)
    page.evaluate("window.slowness = 2")
    expect(page.get_by_text("; 25 are needed")).to_be_visible()
    expect(button(page, "continue")).to_be_disabled()
    page.evaluate("window.slowness = 1")
    expect(button(page, "continue")).to_be_enabled()


# What goes wrong ---------------------------------------------------------------------------------------------------


def until_survey(page: Page, prompt: str = "a red star") -> None:
    """From the camera page to the first survey of a free session, which is being recorded."""
    pass_camera(page)
    write_prompt(page, prompt)
    start_recording(page)
    heading(page, "survey_title", image=1, n=2)


def test_stop_reload_second_tab_and_withdraw(camera, short):
    page = open_page(camera, short.url)
    agree(page)
    until_survey(page)
    folder = short.recordings / participant_of(page)
    button(page, "stop").click()
    button(page, "stop_delete").click()
    expect(page.get_by_text(text("stopped_deleted"))).to_be_visible()
    assert {path.name for path in folder.iterdir()} == {"consent.json", ".key"}

    button(page, "done_next", number=1).click()
    until_survey(page)
    button(page, "stop").click()
    button(page, "stop_keep").click()
    expect(page.get_by_text(text("stopped_kept"))).to_be_visible()
    assert len(decoded_times(folder / ".session_1_stopped_1")) > 10
    assert events_of(folder / ".session_1_stopped_1")[-1]["name"] == "recorder_stopped"

    button(page, "go_again", number=1).click()
    until_survey(page)
    page.reload()
    expect(page.get_by_text(text("back_interrupted", number=1))).to_be_visible()
    check_accessible(page)
    button(page, "go_again", number=1).click()
    until_survey(page)
    assert len(decoded_times(folder / ".session_1_interrupted_1")) > 10  # a busy machine records fewer than 30 a second

    other = page.context.new_page()
    other.goto(short.url)
    button(other, "go_again", number=1).click()
    pass_camera(other)
    heading(other, "prompt_title_free")
    heading(page, "broken_title")  # with the server's sentence, mostly that it goes on in another tab
    assert page.locator(".lead").inner_text()
    other.close()

    page.reload()
    button(page, "withdraw").click()
    button(page, "withdraw_no").click()
    assert folder.is_dir()
    button(page, "withdraw").click()
    button(page, "withdraw_yes").click()
    heading(page, "withdrawn_title")
    assert not folder.exists() and page.evaluate("localStorage.length") == 0


def test_camera_denied_missing_busy_and_lost(camera, short):
    """Each is told; a camera that is lost in the middle ends the session; what the window did is in the log."""
    page = open_page(camera, short.url, OWN_CAMERA)
    agree(page)
    heading(page, "camera_title")
    page.evaluate("window.failures = ['NotAllowedError', 'NotFoundError', 'NotReadableError']")
    button(page, "camera_turn_on").click()
    for kind in ("denied", "none", "busy"):
        expect(page.locator("#verdict")).to_have_text(f"{text(f'{kind}_title')}. {text(f'{kind}_text')}")
        check_accessible(page)
        button(page, "try_again").click()
    button(page, "continue").click()
    heading(page, "prompt_title_free")
    lose = "window.given.getTracks().forEach((track) => { track.stop(); track.dispatchEvent(new Event('ended')); })"
    page.evaluate(lose)
    expect(page.locator("#verdict")).to_have_text(f"{text('lost_title')}. {text('lost_before')}")
    until_survey(page)
    page.evaluate(
        "window.setVisibility('hidden'); window.setVisibility('visible'); window.dispatchEvent(new Event('blur'))"
    )
    page.evaluate("window.given.getVideoTracks()[0].dispatchEvent(new Event('mute'))")
    page.set_viewport_size({"width": 1400, "height": 800})
    page.wait_for_timeout(200)
    page.evaluate(lose)
    heading(page, "lost_title")
    check_accessible(page)
    button(page, "lost_keep").click()
    heading(page, "stopped_title")
    folder = short.recordings / participant_of(page) / ".session_1_stopped_1"
    assert len(decoded_times(folder)) > 30
    events = events_of(folder)
    names = [event["name"] for event in events if event["name"] not in ("focus", "image_rendered")]
    wanted = ["survey_shown", "hidden", "visible", "blur", "track_muted", "resize", "track_ended", "recorder_stopped"]
    assert names[-len(wanted) :] == wanted
    assert [event["width"] for event in events if event["name"] == "resize"] == [1280, 1400]


def test_server_killed_answers_lost_disk_full_two_at_once(camera, tmp_path):
    """Two people at once on a server that dies; of each recording every byte is there once.

    One browser makes MP4 only, as Safari; the other WebM, without the frames' capture times, as Firefox.
    """
    with SessionServer(tmp_path) as server:
        only = "MediaRecorder.isTypeSupported = (type) => type.startsWith('video/{}');"
        scripts = only.format("mp4"), only.format("webm") + OWN_CAMERA + "window.noTimes = true;"
        pages = [open_page(camera, server.url, script) for script in scripts]
        lost, full = [], []

        def lose_answer(route):  # the server has the chunk, the page does not learn of it
            if len(lost) < 2:
                lost.append(route.fetch().status)
                route.abort()
            else:
                route.continue_()

        def disk_full(route):
            route.continue_() if full else route.fulfill(status=507, json={"error": "The disk is full."})

        pages[0].route("**/recording?*", lose_answer)
        pages[1].route("**/recording?*", disk_full)
        for page in pages:
            agree(page)
        for page in pages:
            until_survey(page)
        expect(pages[1].locator("#trouble")).to_have_text("The disk is full.")
        full.append("no longer")
        for page in pages:
            expect(page.locator("#trouble")).to_be_hidden()
        server.kill()
        for page in pages:
            expect(page.locator("#trouble")).to_have_text(text("server_away"))
            check_accessible(page)
            answer(page, 1, 2)
        server.start()
        for page in pages:
            answer(page, 2, 2)
            expect(page.locator("#trouble")).to_be_hidden()
        for page in pages:
            rank(page)
            heading(page, "done_title", number=1)
        assert lost == [200, 409]  # what was repeated was refused
        folders = [server.recordings / participant_of(page) / "session_1" for page in pages]
        assert len(set(folders)) == 2
        assert (folders[0] / "recording.mp4").is_file() and (folders[1] / "recording.webm").is_file()
        for folder in folders:
            evidence = json.loads((folder / "session.json").read_text())["evidence"]
            assert (evidence["matched_share"] is None) == (folder is folders[1])
            decoded, events = decoded_times(folder), events_of(folder)
            assert decoded == sorted(set(decoded)) and len(decoded) == evidence["recorded_frames"]
            first, last = (
                next(e["time"] for e in events if e["name"] == f"recorder_{what}") for what in ("started", "stopped")
            )
            assert decoded[-1] - decoded[0] > (last - first) / 1000 - 1  # nothing is missing while the server was away
            assert [event["number"] for event in events] == list(range(len(events)))


def test_refusals_of_the_server_are_shown(camera, short):
    page = open_page(camera, short.url)
    agree(page)
    pass_camera(page)
    page.route("**/images", lambda route: route.fulfill(status=422, json={"error": "Not this.", "field": "prompt"}))
    write_prompt(page)
    expect(page.get_by_role("alert")).to_have_text("Not this.")
    expect(page.get_by_label(text("prompt_label"))).to_be_focused()
    page.unroute("**/images")
    page.route("**/images", lambda route: route.fulfill(status=500, json={"error": "It is <b>broken</b>."}))
    button(page, "prompt_go").click()
    heading(page, "broken_title")
    expect(page.get_by_text("It is <b>broken</b>.")).to_be_visible()
    assert page.locator("#sign").is_hidden()
    check_accessible(page)
    page.unroute("**/images")
    button(page, "try_again").click()
    heading(page, "back_title")

    button(page, "go_again", number=1).click()
    pass_camera(page)
    failed = {"state": "failed", "done": 0, "total": 2, "note": "The model is away."}
    page.route(
        "**/images", lambda route: route.fulfill(json=failed) if route.request.method == "GET" else route.continue_()
    )
    write_prompt(page)
    expect(page.locator("#made")).to_have_text(f"{text('waiting_failed')} The model is away.")
    check_accessible(page)
    page.unroute("**/images")
    button(page, "try_again").click()
    heading(page, "ready_title")


def test_decline_in_the_study_s_own_words(camera, short):
    page = open_page(camera, short.url)
    button(page, "consent_decline").click()
    heading(page, "declined_title")
    expect(page.get_by_text("{nothing} was stored.")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "en-GB" and page.evaluate("localStorage.length") == 0


def test_phones_and_old_browsers_cannot_take_part(camera, short):
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    for reason, script, context in (
        ("unfit_small", "", phone),
        ("unfit_browser", "delete window.MediaRecorder", {}),
        ("unfit_address", "Object.defineProperty(window, 'isSecureContext', { value: false })", {}),
    ):
        page = open_page(camera, short.url, script, **context)
        heading(page, "unfit_title")
        expect(page.get_by_text(text(reason))).to_be_visible()
        check_accessible(page)


# The files ---------------------------------------------------------------------------------------------------------


def test_vendored_files_are_as_published():
    vendor = PAGES / "vendor"
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| \S+ \| (\S+) \| ([0-9a-f]{64}) \|$", (vendor / "README.md").read_text(), re.M
    )
    assert {file for _, _, file, _ in rows} == {
        path.relative_to(vendor).as_posix() for path in vendor.glob("*/*") if path.is_file()
    }
    for library, version, file, digest in rows:
        assert file.startswith(f"{library.lower()}-{version}/")
        assert hashlib.sha256((vendor / file).read_bytes()).hexdigest() == digest


def test_every_text_is_used_and_every_used_text_is_there():
    html = (PAGES / "index.html").read_text()
    code = html + "".join(path.read_text() for path in PAGES.glob("*.js"))
    used = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', html)) | set(re.findall(r'\bsay\("(\w+)"', code))
    assert used <= set(TEXTS), used - set(TEXTS)
    built = "step|state|sr|check|denied|none|busy|field|add|animate|inanimate|interactional|positional|.*Rating"
    unused = {key for key in TEXTS if not re.search(rf"\b{key}\b", code)} - set(OPTIONS)
    assert not {key for key in unused if not re.fullmatch(rf"({built})(_\w+)?", key)}
    assert not re.search(r"<style|style=|\son\w+=|https?://", html)
