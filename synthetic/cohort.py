"""Plans of the synthetic study: who takes part, what they see, and how their faces move. Nothing is drawn here.

The planted effect: the more a person likes an image, the more it raises AU12 (with AU6), the less, the more it raises
AU4. Some reactions do not show it. All faces also move at random, and at strength 0 they do nothing else. A person's
preference is the picture's latent quality plus their own taste, which no scorer can know.

One seed gives one cohort. People, pictures, preferences and random movements are the same at every strength, so that
cohorts of two strengths differ in the effect alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fergi.dataset import CLIP_KINDS
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from synthetic.pictures import Scene, random_scene

FRAMES_PER_SECOND = 30
# AUs that exclude each other, such as lips pulled up and down. The first of a pair stays.
LABELLED_OPPONENTS = ((12, 15), (1, 4), (12, 20), (9, 1))
REACTING_OPPONENTS = ((4, 1), (4, 2), (12, 15), (12, 20))
TASTE = 0.12  # standard deviation of a person's preference around the picture's quality
BASELINE, REACTION = CLIP_KINDS
AT_REST = 0.4  # size of random movements in baseline clips, relative to reaction clips
# The first is in ``config.UNRELIABLE_ISSUES``, no other is.
IDENTIFIERS = tuple(f"{number:03d}" for number in range(8, 40))
UNREADABLE_ISSUES = IDENTIFIERS[0]
UNSTEADY = IDENTIFIERS[2]  # the one whose AU4 moves at rest
# Why a frame cannot be used, by the number in ``Take.disturbance``; 0 is a good frame.
DISTURBANCES = ("", "turned away", "head raised", "eyes covered", "mouth covered", "dark")


@dataclass(frozen=True)
class CohortSettings:
    """Size of the cohort and of the effect.

    Raises
    ------
    FergiError
        If there can be no such cohort, naming the setting.
    """

    seed: int = 0  # of all random numbers
    strength: float = 4.0  # intensity by which the best image raises AU12 and the worst one AU4; 0: no effect
    n_participants: int = 9  # of the mini FERGI
    n_sessions: int = 2  # of each participant
    n_images: int = 5  # of a session
    baseline_seconds: float = 1.5
    reaction_seconds: float = 3.0
    telling_share: float = 0.45  # of the reactions that show the preference
    n_black: int = 2  # images that come out black
    n_disfa: int = 36  # people of the mini DISFA
    n_disfa_plus: int = 6  # how many of them are in the mini DISFA+ as well
    n_disfa_frames: int = 32  # of each person and camera or trial

    def __post_init__(self) -> None:
        for name, least, most in (
            ("seed", 0, np.inf),
            ("strength", 0, 5),
            ("telling_share", 0, 1),
            ("n_participants", 4, len(IDENTIFIERS)),
            ("n_sessions", 1, np.inf),
            ("n_images", 2, np.inf),
            ("baseline_seconds", 0.5, 60),
            ("reaction_seconds", 0.5, 60),
            ("n_black", 0, self.n_participants * self.n_sessions),
            ("n_disfa_plus", 1, self.n_disfa),
            ("n_disfa_frames", 1, np.inf),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                limits = f"{least} or more" if most == np.inf else f"from {least} to {most}"
                raise FergiError(f"Such a cohort cannot be made: {name} must be {limits}, not {value}.")


@dataclass(frozen=True)
class Take:
    """What a camera records of a person, frame by frame."""

    intensities: np.ndarray  # shape (n_frames, 12): AUs in the order of ``ACTION_UNITS``, 0–5
    # x, y (inter-ocular distances), roll, yaw, pitch (degrees), scale, brightness (factors) → shape (n_frames,)
    head: Mapping[str, np.ndarray]
    disturbance: np.ndarray  # int, shape (n_frames,): place in ``DISTURBANCES``


@dataclass(frozen=True)
class PlannedImage:
    """One image, what it is worth, and the two clips that go with it."""

    quality: float  # latent, 0–1; what the picture is drawn from
    preference: float  # how much its participant likes it: quality and taste
    black: bool
    telling: bool  # whether the face shows the preference
    takes: Mapping[str, Take]  # of the baseline and the reaction clip


@dataclass(frozen=True)
class PlannedSession:
    """One prompt and its images."""

    scene: Scene
    images: tuple[PlannedImage, ...]

    @property
    def ranking(self) -> list[int]:
        """Places of the images from 0, the one liked best first, black ones last."""
        order = [(image.black, -image.preference, place) for place, image in enumerate(self.images)]
        return [place for *_, place in sorted(order)]


@dataclass(frozen=True)
class Truth:
    """Where the truth about a synthetic cohort lies."""

    root: Path

    @property
    def people(self) -> Path:
        """Picture of the participants."""
        return self.root / "truth" / "people.png"

    @property
    def images(self) -> Path:
        """One row an image."""
        return self.root / "truth" / "images.csv"

    def course(self, participant: str, session: int, kind: str, image: int) -> Path:
        """Injected AUs of one clip."""
        return self.root / "truth" / participant / f"session_{session}" / f"{kind}_clip_{image}.csv"


def stream(seed: int, *purpose: int | str) -> np.random.Generator:
    """Random numbers for one purpose, independent of all others."""
    words = [part if isinstance(part, int) else int.from_bytes(part.encode(), "big") for part in purpose]
    return np.random.default_rng([seed, *words])


def participants(settings: CohortSettings) -> tuple[str, ...]:
    """Their identifiers."""
    return IDENTIFIERS[: settings.n_participants]


def disfa_subjects(settings: CohortSettings) -> tuple[str, ...]:
    """The people of the mini DISFA; the first ``n_disfa_plus`` are those of the mini DISFA+."""
    return tuple(f"SN{number:03d}" for number in range(1, settings.n_disfa + 1))


def plan_sessions(settings: CohortSettings) -> Iterator[tuple[str, int, PlannedSession]]:
    """Every participant's sessions: participant, number of the session from 1, and the plan."""
    sessions = [(who, number) for who in participants(settings) for number in range(1, settings.n_sessions + 1)]
    with_black = stream(settings.seed, "black").permutation(len(sessions))[: settings.n_black]
    for place, (who, number) in enumerate(sessions):
        yield who, number, _plan_session(settings, who, number, place in with_black)


def _plan_session(settings: CohortSettings, participant: str, number: int, one_black: bool) -> PlannedSession:
    random = stream(settings.seed, "session", int(participant), number)
    n_images = settings.n_images
    # Evenly spread and shuffled, so that every session has good and bad images.
    quality = (random.permutation(n_images) + random.uniform(0.2, 0.8, n_images)) / n_images
    preference = quality + random.normal(0, TASTE, n_images)
    telling = random.random(n_images) < settings.telling_share
    black = np.arange(n_images) == (random.integers(n_images) if one_black else -1)
    expressivity = stream(settings.seed, "expressivity", int(participant)).uniform(0.75, 1.0)
    scene = random_scene(random)
    images = []
    for place in range(n_images):
        valence = np.clip(2 * preference[place] - 1, -1, 1) * (telling[place] and not black[place])
        shown = settings.strength * expressivity * valence
        takes = {
            kind: _plan_take(
                stream(settings.seed, kind, int(participant), number, place),
                round(seconds * FRAMES_PER_SECOND),
                shown if kind == REACTION else 0.0,
                at_rest=kind == BASELINE,
                unsteady=participant == UNSTEADY,
            )
            for kind, seconds in ((BASELINE, settings.baseline_seconds), (REACTION, settings.reaction_seconds))
        }
        worth, liked = float(quality[place]), float(preference[place])
        images.append(PlannedImage(worth, liked, bool(black[place]), bool(telling[place]), takes))
    return PlannedSession(scene, tuple(images))


def _plan_take(random: np.random.Generator, n_frames: int, shown: float, *, at_rest: bool, unsteady: bool) -> Take:
    """A clip: smile or frown of the planted strength, random movements, head motion, disturbed frames."""
    intensities = np.zeros((n_frames, len(ACTION_UNITS)))

    def move(units: tuple[int, ...], peak: float, share: tuple[float, ...]) -> None:
        course = peak * bump(random, n_frames)
        for unit, part in zip(units, share, strict=True):
            intensities[:, ACTION_UNITS.index(unit)] += part * course

    # The same numbers are drawn whatever the strength is.
    if shown >= 0:
        move((12, 6), shown, (1.0, 0.6))
    else:
        move((4, 9), -shown, (1.0, 0.15))
    for units, share, chance, peaks in (
        ((4,), (1.0,), 0.08, (0.2, 0.8)),
        ((12,), (1.0,), 0.10, (0.2, 1.0)),
        ((1, 2), (1.0, 0.8), 0.12, (0.5, 3.0)),
        ((25, 26), (1.0, 0.5), 0.12, (0.5, 3.0)),
        ((17,), (1.0,), 0.08, (0.5, 2.0)),
        ((15,), (1.0,), 0.05, (0.5, 2.0)),
        ((20,), (1.0,), 0.05, (0.5, 2.0)),
    ):
        peak = random.uniform(*peaks) * (random.random() < chance)
        move(units, peak * (AT_REST if at_rest else 1), share)
    move((4,), random.uniform(2.5, 4.0) * (unsteady and random.random() < 0.6), (1.0,))
    for one, other in REACTING_OPPONENTS:  # in the whole clip, so that no movement stops suddenly
        if intensities[:, ACTION_UNITS.index(one)].any():
            intensities[:, ACTION_UNITS.index(other)] = 0
    return Take(intensities.clip(0, 5), _head_motion(random, n_frames), _disturbance(random, n_frames))


def bump(random: np.random.Generator, n_frames: int) -> np.ndarray:
    """A movement from 0 to 1 and back, shape (n_frames,); the first frames are 0."""
    seconds = np.arange(n_frames) / FRAMES_PER_SECOND
    length = n_frames / FRAMES_PER_SECOND
    onset = random.uniform(0.12, 0.3) * length
    rise, fall = random.uniform(0.3, 0.5), random.uniform(0.3, 0.6)
    stay = random.uniform(0.2, 0.35) * length
    ramps = ((seconds - onset) / rise).clip(0, 1), ((seconds - onset - rise - stay) / fall).clip(0, 1)
    up, down = (ramp**2 * (3 - 2 * ramp) for ramp in ramps)  # smooth at both ends
    return up - down


def _head_motion(random: np.random.Generator, n_frames: int, size: float = 1.0) -> dict[str, np.ndarray]:
    """Slow random motion of a head before a screen; see ``Take.head``."""
    seconds = np.arange(n_frames)[:, None] / FRAMES_PER_SECOND

    def sway(most: float) -> np.ndarray:
        periods, phases = random.uniform(1.5, 5.0, 2), random.uniform(0, 2 * np.pi, 2)
        waves = np.sin(2 * np.pi * seconds / periods + phases) * random.uniform(0.2, 0.5, 2)
        return size * most * (random.uniform(-0.5, 0.5) + waves.sum(axis=1))

    return {
        "x": sway(0.08),
        "y": sway(0.04),
        "roll": sway(2.0),
        "yaw": sway(2.2),
        "pitch": sway(1.4),
        "scale": 1 + sway(0.02),
        "brightness": 1 + sway(0.04),
    }


def _disturbance(random: np.random.Generator, n_frames: int) -> np.ndarray:
    """Disturbed frames: none in most clips, a tenth in some, and too many for a valid clip in one of fifteen."""
    kind, fate, place = random.integers(1, len(DISTURBANCES)), random.random(), random.random()
    share = 0.35 if fate < 1 / 15 else 0.1 if fate < 0.2 else 0.0
    n_disturbed = round(share * n_frames)
    first = round(place * (n_frames - n_disturbed))
    disturbance = np.zeros(n_frames, int)
    disturbance[first : first + n_disturbed] = kind
    return disturbance


def plan_labelled(settings: CohortSettings, subject: str, part: str) -> Take:
    """One recording of a person of the mini DISFA, in which AUs are independent and take every intensity.

    ``part`` names the recording. Intensities are whole numbers, as the labels are.
    """
    random = stream(settings.seed, "labelled", subject, part)
    n_frames = settings.n_disfa_frames
    shares = [0.5 if unit in (4, 12) else 0.25 for unit in ACTION_UNITS]  # of the frames in which it is not 0
    shape = n_frames, len(ACTION_UNITS)
    intensities = random.integers(1, 6, shape) * (random.random(shape) < shares)
    for one, other in LABELLED_OPPONENTS:
        intensities[intensities[:, ACTION_UNITS.index(one)] > 0, ACTION_UNITS.index(other)] = 0
    head = {name: random.permutation(course) for name, course in _head_motion(random, n_frames, size=1.6).items()}
    return Take(intensities.astype(float), head, np.zeros(n_frames, int))
