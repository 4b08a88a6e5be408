"""What blendshapes tell of drawn faces: the numbers of their map to AUs, and how well it does on other people.

Reads   pretrained_models/face_landmarker.task
Run     python -m benchmarks.blendshapes
        python -m benchmarks.blendshapes --fitted 3 --held-out 2        (a first look)
Takes   about ten minutes on two cores.

The numbers are those of ``fergi.action_units.blendshapes.MAP``: for each AU the response of its blendshapes on people
at rest, and by how much it grows with each intensity (least squares within a person, the median over people). Drawn
brows are higher than those of real faces, so the zeros of AU1, AU2 and AU4 lie in the middle between drawn people and
two portraits that come with scikit-image and Matplotlib.

The figures are for people whom no number was fitted to: the demo's reactions, filmed, from pictures to activation
values (eq. 2) over valid clips, beside the injected ones. A second set of clips moves three AUs at a time, whichever.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from skimage.data import astronaut
from torch.utils.data import Dataset
from tqdm import tqdm

import config
from fergi.action_units.blendshapes import MAP, NAMES, Blendshapes, intensities, logit
from fergi.activation import clip_activation
from fergi.faces.detection import FaceDetector, detector_model
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, ClipFeatures, valid_frames
from fergi.processes import items_from_workers
from fergi.script import add_workers_argument, default_root
from fergi.weights import FACE_LANDMARKER
from synthetic.cohort import (
    FRAMES_PER_SECOND,
    LABELLED_OPPONENTS,
    REACTION,
    CohortSettings,
    Take,
    bump,
    participants,
    plan_sessions,
    stream,
)
from synthetic.expressions import UNIT, Actor, View, find_actor

FITTED, HELD_OUT = 31, 32  # seeds of the people
AT_REST = [View(x=x, y=y, roll=roll) for x, y, roll in ((0, 0, 0), (-6, 3, 2), (6, -3, -2))]
BROWS = (1, 2, 4)


@dataclass(frozen=True)
class Responses(Dataset):
    """Item by item a person's responses: shape (12 AUs, 6 intensities, n_views, n_names), blendshapes by ``NAMES``."""

    n_people: int
    model: Path

    def __len__(self) -> int:
        return self.n_people

    def __getitem__(self, index: int) -> np.ndarray:
        actor, noise = find_actor(stream(FITTED, "person", index)), stream(FITTED, "noise", index)
        landmarker, detector = Blendshapes(self.model), FaceDetector(detector_model(Path())[0])
        found = np.full((len(ACTION_UNITS), 6, len(AT_REST), len(NAMES)), np.nan)
        for unit, intensity, view in np.ndindex(found.shape[:3]):
            picture = actor.frame(np.eye(len(ACTION_UNITS))[unit] * intensity, AT_REST[view], noise)
            face = detector.detect(picture)
            blendshapes = landmarker.blendshapes(picture, face.box) if face else None
            if blendshapes:
                found[unit, intensity, view] = [blendshapes[name] for name in NAMES]
        return found


@dataclass(frozen=True)
class Clips(Dataset):
    """Item by item a held-out person's activation values, shape (n_clips, 2 kinds of value, 13): injected, estimated.

    The last column has AU4 injected and read from the logit of browDown alone. NaN where a clip is not valid.
    """

    settings: CohortSettings
    n_people: int
    model: Path
    mixed: bool  # three AUs a clip, any of them, in place of the demo's reactions

    def __len__(self) -> int:
        return self.n_people

    def __getitem__(self, index: int) -> np.ndarray:
        who = participants(self.settings)[index]
        aligner, landmarker = FaceAligner(AlignmentSettings(Path(), "facemesh")), Blendshapes(self.model)
        actor, noise = find_actor(stream(HELD_OUT, "person", index)), stream(HELD_OUT, "noise", index, self.mixed)
        takes = [
            image.takes[REACTION]
            for participant, _, session in plan_sessions(self.settings)
            for image in session.images
            if participant == who
        ]
        if self.mixed:
            takes = [_mixed(take, stream(HELD_OUT, "mixed", index, place)) for place, take in enumerate(takes)]
        return np.array([_activation(actor, take, noise, aligner, landmarker) for take in takes])


def _mixed(take: Take, random: np.random.Generator) -> Take:
    """The same head, undisturbed, and three AUs."""
    moved = np.zeros_like(take.intensities)
    for unit in random.choice(len(ACTION_UNITS), 3, replace=False):
        moved[:, unit] = random.uniform(1, 5) * bump(random, len(moved))
    for one, other in LABELLED_OPPONENTS:
        if moved[:, ACTION_UNITS.index(one)].any():
            moved[:, ACTION_UNITS.index(other)] = 0
    return replace(take, intensities=moved, disturbance=np.zeros_like(take.disturbance))


def _activation(actor: Actor, take: Take, noise: np.random.Generator, aligner: FaceAligner, landmarker: Blendshapes):
    """One clip's activation values; see ``Clips``."""
    n_frames = len(take.intensities)
    values = np.full((n_frames, 17), -1.0)
    values[:, 0], values[:, 1], values[:, 2] = np.arange(1, n_frames + 1), np.arange(n_frames) / FRAMES_PER_SECOND, 0
    alone = np.zeros(n_frames)
    for frame, injected in enumerate(take.intensities):
        head = {name: float(course[frame]) for name, course in take.head.items()}
        head |= {"x": UNIT * head["x"], "y": UNIT * head["y"]}
        picture = actor.frame(injected, View(**head | ({"cover": "eyes"} if take.disturbance[frame] else {})), noise)
        (face,) = aligner.align([picture])
        blendshapes = landmarker.blendshapes(picture, face.box) if face else None
        if blendshapes:
            values[frame, 2:5] = face.score, face.pitch_ratio, face.yaw_ratio
            values[frame, 5:] = np.nan_to_num(intensities(blendshapes))
            alone[frame] = np.mean([logit(blendshapes[f"browDown{side}"]) for side in ("Left", "Right")])

    def activation(courses: np.ndarray) -> np.ndarray:
        clip = ClipFeatures(np.array([0, n_frames]), np.concatenate([values[:, :5], courses], axis=1))
        valid = valid_frames(clip, config.FRAME_LIMITS)
        found = clip_activation(clip, valid, config.WINDOW_SECONDS)
        return found.values[0] if found.valid_share[0] >= config.MINIMUM_VALID_SHARE else np.full(12, np.nan)

    injected, estimated, by_logit = (
        activation(each) for each in (take.intensities, values[:, 5:], np.tile(alone[:, None], 12))
    )
    return np.array([[*injected, injected[ACTION_UNITS.index(4)]], [*estimated, by_logit[0]]])


def fitted_numbers(responses: np.ndarray, portraits: Mapping[str, np.ndarray]) -> list[dict]:
    """Zero and step of every row of the map, as they are there and as they follow from these people."""
    by_name = {name: responses[..., index] for index, name in enumerate(NAMES)}  # people, AU, intensity, view
    rows = []
    for unit, row in MAP.items():
        found = np.nanmean(row.response(by_name), axis=-1)
        at_rest = np.median(np.nanmean(found[:, :, 0], axis=1))
        levels = np.arange(6) - 2.5
        steps = found[:, ACTION_UNITS.index(unit)] @ levels / (levels @ levels)
        zero = (at_rest + np.mean(row.response(portraits))) / 2 if unit in BROWS else at_rest
        others = [
            (np.median(found[:, place, 5] - found[:, place, 0]) / (5 * np.median(steps)), other)
            for place, other in enumerate(ACTION_UNITS)
            if other != unit
        ]
        most = max(others, key=lambda each: abs(each[0]))
        levels_at_rest, of_portraits = (
            (each - row.zero) / row.step for each in (np.nanmean(found[:, :, 0], axis=1), row.response(portraits))
        )
        rows.append(
            {
                "AU": unit,
                "zero": f"{zero:.3g}",
                "in MAP": f"{row.zero:.3g}",
                "step": f"{np.median(steps):.3g} [{steps.min():.3g}, {steps.max():.3g}]",
                "in MAP ": f"{row.step:.3g}",
                "intensity of drawn people at rest": f"{np.median(levels_at_rest):.1f} ± {np.std(levels_at_rest):.1f}",
                "of the portraits": ", ".join(f"{each:.1f}" for each in of_portraits),
                "other AU that moves it most": f"AU{most[1]}, by {most[0]:.2f} a step",
            }
        )
    return rows


def portraits(model: Path) -> dict[str, np.ndarray]:
    """The blendshapes of Eileen Collins and Grace Hopper, both in the public domain."""
    landmarker, detector = Blendshapes(model), FaceDetector(detector_model(Path())[0])
    hopper = np.asarray(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    found = [landmarker.blendshapes(picture, detector.detect(picture).box) for picture in (astronaut(), hopper)]
    return {name: np.array([each[name] for each in found]) for name in NAMES}


def correlation(pairs: np.ndarray) -> float:
    """Between injected and estimated values, shape (n_clips, 2); NaN if the AU never moves."""
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    return float(np.corrcoef(pairs.T)[0, 1]) if len(pairs) > 2 and np.ptp(pairs[:, 0]) > 0 else np.nan


def per_person(activation: np.ndarray) -> list[dict]:
    """A row an AU: the correlations of each person's clips, sorted."""
    columns = {"AU12": ACTION_UNITS.index(12), "AU4": ACTION_UNITS.index(4), "AU4, browDown's logit alone": -1}
    rows = []
    for name, column in columns.items():
        found = np.sort([correlation(person[:, :, column]) for person in activation])
        each = " ".join(f"{value:.2f}" for value in found)
        rows.append({"": name, "median": f"{np.nanmedian(found):.3f}", "each person's, sorted": each})
    return rows


def over_all(activation: np.ndarray) -> list[dict]:
    """A row an AU: all people's clips together, where the AU moves and where it does not."""
    rows = []
    for unit in MAP:
        pairs = np.concatenate(activation)[:, :, ACTION_UNITS.index(unit)]
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        moves = pairs[:, 0] > 0.5
        rows.append(
            {
                "AU": unit,
                "clips in which it moves": np.count_nonzero(moves),
                "correlation": f"{correlation(pairs):.2f}",
                "estimated for each injected": f"{pairs[moves].prod(axis=1).sum() / (pairs[moves, 0] ** 2).sum():.2f}",
                "estimated where it rests: median": f"{np.median(pairs[~moves, 1]):.2f}",
                "90 %": f"{np.quantile(pairs[~moves, 1], 0.9):.2f}",
            }
        )
    return rows


def show(rows: list[dict]) -> None:
    """A table in Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    print("".join("| " + " | ".join(map(str, row.values())) + " |\n" for row in rows), flush=True)


def main() -> None:
    """Fit, then measure, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root(), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--fitted", type=int, default=12, metavar="N", help="people fitted to (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=8, metavar="N", help="other people (default: %(default)s)")
    add_workers_argument(parser, "processes that draw and measure")
    chosen = parser.parse_args()
    model = FACE_LANDMARKER.under(chosen.root)
    Blendshapes(model)

    def collected(dataset: Dataset, what: str) -> np.ndarray:
        with items_from_workers(dataset, min(chosen.workers, len(dataset))) as items:
            return np.array(list(tqdm(items, total=len(dataset), desc=what, disable=None)))

    if chosen.fitted:
        print(f"{chosen.fitted} people for the numbers of the map:\n")
        show(fitted_numbers(collected(Responses(chosen.fitted, model), "fitting"), portraits(model)))
    settings = CohortSettings(
        seed=HELD_OUT,
        n_participants=max(4, chosen.held_out),  # a cohort has at least four
        telling_share=0.8,
        baseline_seconds=0.5,
        reaction_seconds=1.5,
        n_black=0,
    )
    print(f"{chosen.held_out} other people, the demo's reactions: correlation of activation values\n")
    show(per_person(collected(Clips(settings, chosen.held_out, model, mixed=False), "reactions")))
    print("The same people, three AUs a clip; over all clips\n")
    show(over_all(collected(Clips(settings, chosen.held_out, model, mixed=True), "mixed")))


if __name__ == "__main__":
    main()
