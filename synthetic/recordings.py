"""The synthetic cohort on disk, in the formats of the real data sets, with the truth about it beside them.

Below one root::

    FER_datasets/DISFA/      Videos_{Left,Right}Camera/, ActionUnit_Labels/
    FER_datasets/DISFAPlus/  Images/, Labels/
    data/<participant>/session_<n>/    data.json, image<i>.png, {baseline,reaction}_clip_<i>.mp4
    data/synthetic.json      the settings; where this file is, every page and figure says that the data are synthetic
    preparation/valid_sessions.json
    truth/images.csv         quality and preference of each image, and whether the face shows the preference
    truth/<participant>/session_<n>/{baseline,reaction}_clip_<i>.csv    injected AUs, frame by frame
    truth/people.png         the participants and what their faces do
"""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from fergi.dataset import CLIP_KEY, EMOTIONS, ISSUES, Folders, SessionData, Survey, write_session_data
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, keep_settings, replacing, write_json, write_table
from fergi.processes import items_from_workers
from fergi.script import add_workers_argument, argument_parser, run
from synthetic.claim import claim
from synthetic.cohort import (
    DISTURBANCES,
    FRAMES_PER_SECOND,
    UNREADABLE_ISSUES,
    CohortSettings,
    PlannedImage,
    PlannedSession,
    Take,
    Truth,
    disfa_subjects,
    participants,
    plan_labelled,
    plan_sessions,
    stream,
)
from synthetic.expressions import HEIGHT, UNIT, WIDTH, Actor, View, contact_sheet, find_actor
from synthetic.pictures import SIDE, draw_picture

CAMERAS = {"Left": -7.0, "Right": 7.0}  # yaw of each camera of the mini DISFA, degrees
TRIALS = ("A1_FrownSmile", "B2_Mixed")
TRUE_COLUMNS = ["participant", *CLIP_KEY, "quality", "match", "fidelity", "preference", "black", "telling"]


def data_sets(root: Path) -> tuple[Path, Path]:
    """The folders of the mini DISFA and the mini DISFA+."""
    return root / "FER_datasets" / "DISFA", root / "FER_datasets" / "DISFAPlus"


def write_cohort(root: Path, settings: CohortSettings, *, workers: int) -> None:
    """Draw and write everything in worker processes; existing films stay, so that an interrupted run resumes.

    Raises
    ------
    FergiError
        If ``claim`` refuses the folder, it cannot be written, or it holds a cohort of other settings.
    """
    folders = Folders(root)
    claim(root)
    what = {"synthetic": "drawn faces and pictures, no real people"}
    keep_settings(what | asdict(settings), folders.synthetic_truth, "Choose another --root.")
    sessions = {who: list(range(1, settings.n_sessions + 1)) for who in participants(settings)}
    write_json(sessions, folders.valid_sessions)
    rows = [row for plan in plan_sessions(settings) for row in _write_session(folders, settings, *plan)]
    write_table(pd.DataFrame(rows, columns=TRUE_COLUMNS), Truth(root).images)

    films = Films(root, settings)
    with items_from_workers(films, min(workers, len(films))) as filmed:
        if not Truth(root).people.is_file():
            actors = {who: _drawn_when_needed(root, settings, who)() for who in participants(settings)}
            _save_png(Image.fromarray(contact_sheet(actors)), Truth(root).people)
        for error in tqdm(filmed, total=len(films), unit="person", desc="filming", disable=None):
            if error:
                raise error


# What was asked and answered ---------------------------------------------------------------------------------------


def _write_session(
    folders: Folders, settings: CohortSettings, who: str, number: int, session: PlannedSession
) -> list[tuple]:
    """Pictures and ``data.json`` of one session; its rows of the truth about images (``TRUE_COLUMNS``)."""
    folder = folders.session(who, number)
    rows, surveys = [], []
    for place, image in enumerate(session.images):
        random = stream(settings.seed, "picture", int(who), number, place)
        drawing = draw_picture(session.scene, image.quality, random)
        match, fidelity = drawing.match, drawing.fidelity
        picture = Image.new("RGB", (SIDE, SIDE)) if image.black else drawing.picture
        _save_png(picture, folder / f"image{place + 1}.png")
        surveys.append(_survey(image, match, fidelity, random, readable=who != UNREADABLE_ISSUES))
        planned = image.quality, match, fidelity, image.preference, image.black, image.telling
        rows.append((who, number, place + 1, *planned))
    data = SessionData(session.scene.prompt, tuple(session.ranking), tuple(surveys))
    write_session_data(data, folder / "data.json")
    return rows


def _save_png(picture: Image.Image, path: Path) -> None:
    with replacing(path) as file:
        picture.save(file, format="PNG")


def _survey(
    image: PlannedImage, match: float, fidelity: float, random: np.random.Generator, *, readable: bool
) -> Survey:
    """The answers on one image; none on a black one. Unreadable answers on issues are neither yes nor no."""
    chance = random.random(1 + len(EMOTIONS))
    issues = {
        "unmentioned_content": match < 0.4,
        "blurry": fidelity < 0.4,
        "repeated_generation": chance[0] < 0.05,  # no other issue is ever drawn
    }
    by_chance = dict(zip(EMOTIONS, chance[1:], strict=True))
    liked = image.preference
    emotions = {
        "disappointed": liked < 0.3,
        "satisfied": liked > 0.65,
        "surprised": by_chance["surprised"] < 0.15,
        "disgusted": liked < 0.15 and by_chance["disgusted"] < 0.6,
        "amused": liked > 0.8 and by_chance["amused"] < 0.7,
        "scared": by_chance["scared"] < 0.02,
    }
    ratings = tuple(
        0 if image.black else 1 + round(6 * min(max(value, 0.0), 1.0)) for value in (liked, match, fidelity)
    )
    said = tuple(bool(issues.get(name)) and not image.black for name in ISSUES) if readable else None
    return Survey(ratings, said, tuple(bool(emotions[name]) and not image.black for name in EMOTIONS))


# What the cameras saw ----------------------------------------------------------------------------------------------


class Films(Dataset):
    """Item by item all films of one person, made by a worker process; existing films stay.

    An item is None, or the error that stopped it.
    """

    def __init__(self, root: Path, settings: CohortSettings):
        self.root, self.settings = root, settings
        self.people = [(_film_participant, who) for who in participants(settings)]
        self.people += [(_film_subject, subject) for subject in disfa_subjects(settings)]

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, place: int) -> FergiError | None:
        film, who = self.people[place]
        try:
            return film(self.root, self.settings, who)
        except FergiError as error:
            return error


def _drawn_when_needed(root: Path, settings: CohortSettings, who: str) -> Callable[[], Actor]:
    """A function that gives the actor: drawn at the first call, and so not at all if every film exists."""
    return functools.cache(lambda: find_actor(stream(settings.seed, "person", who), Folders(root).pretrained_models))


def _film_participant(root: Path, settings: CohortSettings, who: str) -> None:
    """The missing clips of one participant of the mini FERGI."""
    actor = _drawn_when_needed(root, settings, who)
    for participant, number, session in plan_sessions(settings):
        if participant != who:
            continue
        for place, image in enumerate(session.images):
            for kind, take in image.takes.items():
                path = Folders(root).session(who, number) / f"{kind}_clip_{place + 1}.mp4"
                if path.is_file():
                    continue
                _write_course(take, Truth(root).course(who, number, kind, place + 1))
                noise = stream(settings.seed, "noise", kind, int(who), number, place)
                _write_video(_pictures(actor(), take, noise), path, "mp4v")


def _write_course(take: Take, path: Path) -> None:
    table = pd.DataFrame(take.intensities, columns=[f"AU{unit}" for unit in ACTION_UNITS])
    table.insert(0, "frame", np.arange(1, len(table) + 1))
    table["disturbance"] = [DISTURBANCES[kind] for kind in take.disturbance]
    write_table(table, path)


def _film_subject(root: Path, settings: CohortSettings, subject: str) -> None:
    """The missing recordings of one person of the mini DISFA, and of the mini DISFA+ if they are in it; labels."""
    disfa, disfa_plus = data_sets(root)
    actor = _drawn_when_needed(root, settings, subject)
    take = plan_labelled(settings, subject, "DISFA")
    for camera, yaw in CAMERAS.items():
        path = disfa / f"Videos_{camera}Camera" / f"{camera}Video{subject}_comp.avi"
        if not path.is_file():
            noise = stream(settings.seed, "noise", camera, subject)
            _write_video(_pictures(actor(), take, noise, camera_yaw=yaw), path, "MJPG")
    frames = range(1, len(take.intensities) + 1)
    for unit, column in zip(ACTION_UNITS, take.intensities.T.astype(int), strict=True):
        lines = "".join(f"{frame},{intensity}\n" for frame, intensity in zip(frames, column, strict=True))
        _write(lines.encode(), disfa / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt")

    if subject not in disfa_subjects(settings)[: settings.n_disfa_plus]:
        return
    for trial in TRIALS:
        take = plan_labelled(settings, subject, trial)
        names = [f"{frame:03d}.jpg" for frame in frames]
        pictures = [disfa_plus / "Images" / subject / trial / name for name in names]
        if not all(path.is_file() for path in pictures):
            noise = stream(settings.seed, "noise", trial, subject)
            for path, picture in zip(pictures, _pictures(actor(), take, noise), strict=True):
                _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                _write(encoded.tobytes(), path)
        for unit, column in zip(ACTION_UNITS, take.intensities.T.astype(int), strict=True):
            lines = "".join(f"{name}     {intensity}\n" for name, intensity in zip(names, column, strict=True))
            path = disfa_plus / "Labels" / subject / trial / f"AU{unit}.txt"
            _write(f"AU{unit}\nframe     intensity\n{lines}".encode(), path)


def _write(content: bytes, path: Path) -> None:
    with replacing(path) as file:
        file.write(content)


def _pictures(actor: Actor, take: Take, noise: np.random.Generator, *, camera_yaw: float = 0.0) -> Iterator[np.ndarray]:
    """The frames of a take, RGB."""
    disturbed = {
        "turned away": {"yaw": 30.0 * noise.choice((-1.0, 1.0))},
        "head raised": {"pitch": 26.0},
        "eyes covered": {"cover": "eyes"},
        "mouth covered": {"cover": "mouth"},
        "dark": {"brightness": 0.04},
    }
    for frame, (intensities, kind) in enumerate(zip(take.intensities, take.disturbance, strict=True)):
        head = {name: float(course[frame]) for name, course in take.head.items()}
        head["x"], head["y"], head["yaw"] = UNIT * head["x"], UNIT * head["y"], head["yaw"] + camera_yaw
        yield actor.frame(intensities, View(**head | disturbed.get(DISTURBANCES[kind], {})), noise)


def _write_video(pictures: Iterable[np.ndarray], path: Path, codec: str) -> None:
    """A video at 30 FPS, whole or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*codec), FRAMES_PER_SECOND, (WIDTH, HEIGHT))
        for picture in pictures:
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        writer.release()
        _write(temporary.read_bytes(), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the cohort that the arguments ask for."""
    parser = argument_parser(__doc__, "python -m synthetic cohort")
    for field in fields(CohortSettings):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=field.type, default=field.default, help="default: %(default)s")
    add_workers_argument(parser, "processes that draw")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    settings = CohortSettings(**{field.name: getattr(chosen, field.name) for field in fields(CohortSettings)})
    write_cohort(root, settings, workers=chosen.workers)
    print(f"Wrote {root}.")


if __name__ == "__main__":
    run(main)
