"""Which scorers there are. A new one is a module beside this one and a line here.

Needs neither PyTorch nor any scorer's module, so that stages 9 and 10 stay quick.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fergi.files import FergiError, read_json

if TYPE_CHECKING:
    from fergi.scorers.interface import Scorer


@dataclass(frozen=True)
class RegisteredScorer:
    """Where a scorer is and how the analysis uses its scores."""

    module: str  # below ``fergi.scorers``
    class_name: str
    column: str  # in the image tables
    paper: bool = True  # one of the paper's six (Section 6.2.3)
    in_ensemble: bool = False  # of the paper's, those trained on preferences make the ensemble (eq. 7)
    # Where the median of images under their own prompts lies, and the least standard deviation over images.
    expected: tuple[float, float, float] | None = None


# Name → where it is; the six of the paper in the order of their columns, then others. The expected ranges are wide: any
# trained scorer lies far inside, whatever the images. Training pulls matching pairs together, so that the median of
# cosines is clearly above 0; without training it is near 0 or the same for all. PickScore is a cosine times 100;
# Aesthetic learned ratings from 1 to 10; ImageReward is standardised to mean 0 and standard deviation 1.
SCORERS = {
    "CLIP": RegisteredScorer("clip", "Clip", "CLIP_score", expected=(0.1, 0.6, 0.005)),
    "Aesthetic": RegisteredScorer("aesthetic", "Aesthetic", "Aesthetic_score", expected=(1.0, 10.0, 0.05)),
    "BLIP": RegisteredScorer("blip", "Blip", "BLIP_score", expected=(0.1, 0.9, 0.005)),
    "ImageReward": RegisteredScorer(
        "image_reward", "ImageReward", "ImageReward_score", in_ensemble=True, expected=(-2.5, 2.5, 0.1)
    ),
    "PickScore": RegisteredScorer("pick_score", "PickScore", "PickScore", in_ensemble=True, expected=(10.0, 40.0, 0.1)),
    "HPSv2": RegisteredScorer("hps", "HpsV2", "HPS_V2_score", in_ensemble=True, expected=(0.1, 0.6, 0.002)),
    "HPSv2.1": RegisteredScorer("hps", "HpsV21", "HPS_V2_1_score", paper=False, expected=(0.1, 0.6, 0.002)),
    "SocialReward": RegisteredScorer("social_reward", "SocialReward", "SocialReward_score", paper=False),
    "CycleReward": RegisteredScorer("cycle_reward", "CycleReward", "CycleReward_score", paper=False),
}
TUNED = "+"  # between a scorer's name and its tuning
PAPER_SCORERS = tuple(name for name, scorer in SCORERS.items() if scorer.paper)


def scorer_class(name: str) -> "type[Scorer]":
    """The scorer's class; this imports its module and PyTorch.

    ``<name>+<file>`` is a scorer with the tuned values in a file of ``finetune_scorer.py``.

    Raises
    ------
    FergiError
        If there is no such scorer, or the file is not one of it.
    """
    plain, plus, file = name.partition(TUNED)
    if plain not in SCORERS or (plus and not file):
        raise FergiError(f"There is no scorer {name!r}. There are {', '.join(SCORERS)}, and each with +FILE, if tuned.")
    scorer = SCORERS[plain]
    found = getattr(import_module(f"fergi.scorers.{scorer.module}"), scorer.class_name)
    if not plus:
        return found
    from fergi.scorers.adapters import tuned_scorer

    return tuned_scorer(found, Path(file))


def column(name: str) -> str:
    """The column of the image tables for a scorer's name; a tuned scorer's is that of the scorer and ``+<tuning>``."""
    plain, plus, tuning = name.partition(TUNED)
    return SCORERS[plain].column + plus + tuning


def read_layouts(path: Path) -> dict[str, dict[str, Any]]:
    """Layouts of scorers that are not the official ones; their values are for the libraries to judge.

    The file is JSON: scorer → its sizes, all of them, under the names in its ``official_layout``.

    Raises
    ------
    FergiError
        If the file is not that, or names an unknown scorer, an unknown size, or too few of them.
    """
    advice = "Write an object with a scorer's name and its sizes, as fergi/scorers/ has them, or name no layouts."
    content = read_json(path, advice)
    if not isinstance(content, dict):
        raise FergiError(f"{path} holds no object of scorers and their sizes. {advice}")
    unknown = [name for name in content if name not in SCORERS]
    if unknown:
        raise FergiError(
            f"{len(unknown)} of {len(content)} scorers in {path} are not known (first: {unknown[0]}); "
            f"there are {', '.join(SCORERS)}. {advice}"
        )
    for name, sizes in content.items():
        problem = _misnamed(sizes, scorer_class(name).official_layout)
        if problem:
            raise FergiError(f"{path} has an unusable layout of {name}: {problem}. {advice}")
    return content


def _misnamed(sizes: Any, official: Any, within: str = "") -> str | None:
    """The first size that is missing or unknown, if any."""
    if not isinstance(official, dict):
        return None
    if not isinstance(sizes, dict):
        return f"{within.rstrip('.') or 'it'} must be an object, not {sizes!r}"
    for name in {**official, **sizes}:
        if name not in official or name not in sizes:
            return f"{within}{name} is {'missing' if name in official else 'not known'}"
    return next(filter(None, (_misnamed(sizes[name], official[name], f"{within}{name}.") for name in official)), None)
