"""Which scorers there are. A new one is a module beside this one and a line here."""

from importlib import import_module

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
