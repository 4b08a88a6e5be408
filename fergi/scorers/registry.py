"""Which scorers there are. A new one is a module beside this one and a line here."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fergi.files import FergiError, read_json
from fergi.scorers.interface import Scorer

# Name → module and class; the six of the paper in the order of their columns, then others.
MODULES = {
    "CLIP": ("clip", "Clip"),
    "Aesthetic": ("aesthetic", "Aesthetic"),
    "BLIP": ("blip", "Blip"),
    "ImageReward": ("image_reward", "ImageReward"),
    "PickScore": ("pick_score", "PickScore"),
    "HPSv2": ("hps", "HpsV2"),
    "HPSv2.1": ("hps", "HpsV21"),
}
PAPER_SCORERS = tuple(MODULES)[:6]


def scorer_class(name: str) -> type[Scorer]:
    """The scorer of that name."""
    module, attribute = MODULES[name]
    return getattr(import_module(f"fergi.scorers.{module}"), attribute)


# What must be a whole multiple of what; the names that the libraries give these sizes.
MULTIPLES = {
    "num_attention_heads": "hidden_size",
    "vision_heads": "vision_width",
    "heads": "width",
    "head_width": "width",
    "patch_size": "image_size",
    "patch": "side",
}
ACTIVATIONS = ("gelu", "quick_gelu")


def read_layouts(path: Path) -> dict[str, dict[str, Any]]:
    """Sizes of scorers that are not the official ones, checked.

    Parameters
    ----------
    path : Path
        JSON: scorer → its sizes, all of them, under the names in its ``official_layout``.

    Raises
    ------
    FergiError
        If the file is not that, or networks of such sizes cannot be.
    """
    advice = "Write an object with a scorer's name and its sizes, as fergi/scorers/ has them, or name no layouts."
    content = read_json(path, advice)
    if not isinstance(content, dict):
        raise FergiError(f"{path} holds no object of scorers and their sizes. {advice}")
    unknown = [name for name in content if name not in MODULES]
    if unknown:
        raise FergiError(
            f"{len(unknown)} of {len(content)} scorers in {path} are not known (first: {unknown[0]}); "
            f"there are {', '.join(MODULES)}. {advice}"
        )
    problems = [
        f"{name}: {problem}"
        for name, sizes in content.items()
        for problem in _layout_problems(sizes, scorer_class(name).official_layout())
    ]
    if problems:
        verb = "is" if len(problems) == 1 else "are"
        raise FergiError(f"{len(problems)} of the sizes in {path} {verb} unusable (first: {problems[0]}). {advice}")
    return content


def _layout_problems(sizes: Any, official: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What is wrong with sizes that should have the form of the official ones."""
    if not isinstance(sizes, dict):
        yield f"{within.rstrip('.') or 'its sizes'} must be an object, not {sizes!r}"
        return
    good = {}
    yield from (f"{within}{name} is missing" for name in official if name not in sizes)
    for name, value in sizes.items():
        known = official.get(name)
        if known is None:
            yield f"{within}{name} is not known"
        elif isinstance(known, dict):
            yield from _layout_problems(value, known, f"{within}{name}.")
        elif isinstance(known, str):
            if value not in ACTIVATIONS:
                yield f"{within}{name} must be {' or '.join(ACTIVATIONS)}, not {value!r}"
        elif type(value) is not type(known) or not 0 < value < float("inf"):
            kind = "a whole number" if isinstance(known, int) else "a number"
            yield f"{within}{name} must be {kind} above 0, not {value!r}"
        else:
            good[name] = value
    for part, whole in MULTIPLES.items():
        if part in good and whole in good and good[whole] % good[part]:
            yield f"{within}{whole} must be a multiple of {part}, not {good[whole]} of {good[part]}"
