"""What a study asks of its participants: a YAML or JSON file, read strictly."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fergi.dataset import EMOTIONS, ISSUES
from fergi.files import FergiError

RATINGS = ("overallRating", "alignmentRating", "fidelityRating")  # 1–7 each (Appendix A.3.1)
KINDS = ("structured", "free")
# What a file may say, by key: the kind of value and, for numbers, the smallest and the largest.
COUNT, SECONDS, TEXT, OPTIONAL_TEXT = "a whole number", "a number", "a text", "a text or null"
FORM: dict[str, Any] = {
    "title": (TEXT,),
    "version": (TEXT,),
    "contact": (TEXT,),
    "consent": {"version": (TEXT,), "paragraphs": ("a list of texts",)},
    "sessions": {"structured": (COUNT, 0, 100), "free": (COUNT, 0, 100)},
    "participants": (COUNT, 1, 100_000),
    "images_per_prompt": (COUNT, 2, 9),
    "seconds": {"baseline": (SECONDS, 1, 60), "image": (SECONDS, 1, 60)},
    "images": (TEXT,),
    "image_model": (OPTIONAL_TEXT,),
    "image_steps": (COUNT, 1, 1000),
    "image_guidance": (SECONDS, 0, 100),
    "image_size": (COUNT, 64, 2048),
    "prompt_server": (OPTIONAL_TEXT,),
    "prompt_model": (TEXT,),
    "shuffle_survey": ("true or false",),
    "texts": ("texts by key",),
}
TEXTS = Path(__file__).parent / "static" / "texts.json"  # the pages' own words
REQUIRED = ("title", "version", "contact", "consent")


@dataclass(frozen=True)
class Study:
    """One study; the defaults are the paper's where it gives a value (Sections 3.2.3 and A.2)."""

    title: str
    version: str
    contact: str
    consent: dict[str, Any]  # version (text) and paragraphs (texts)
    sessions: dict[str, int] = field(default_factory=lambda: {"structured": 10, "free": 10})  # per participant
    participants: int = 1000  # more than so many are not let in
    images_per_prompt: int = 5
    seconds: dict[str, float] = field(default_factory=lambda: {"baseline": 5, "image": 5})
    images: str = "drawn"  # see ``fergi.recording.images``
    image_model: str | None = None  # its name at an image server
    image_steps: int = 50
    image_guidance: float = 7.5
    image_size: int = 512  # pixels a side
    prompt_server: str | None = None
    prompt_model: str = "gpt-3.5-turbo"  # the paper's
    shuffle_survey: bool = False
    texts: dict[str, str] = field(default_factory=dict)  # in place of the pages' own words

    @property
    def identity(self) -> dict[str, str]:
        """Title, version, and SHA-256 of everything the study says, for the record of each session."""
        content = json.dumps(asdict(self), sort_keys=True)
        return {
            "title": self.title,
            "version": self.version,
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }

    def kind_of(self, session: int) -> str | None:
        """The kind of a participant's n-th session, from 1; None beyond the last.

        The kinds take turns, structured first, until one is used up.
        """
        left = dict(self.sessions)
        for number in range(1, session + 1):
            kind = KINDS[(number - 1) % 2]
            kind = kind if left[kind] else KINDS[number % 2]
            if not left[kind]:
                return None
            left[kind] -= 1
        return kind

    def for_page(self, image_note: str | None, prompt_note: str | None) -> dict[str, Any]:
        """What the pages need to know."""
        return {
            "title": self.title,
            "contact": self.contact,
            "consent": self.consent,
            "sharing_asked": True,
            "sessions": self.sessions,
            "images_per_prompt": self.images_per_prompt,
            "seconds": self.seconds,
            "texts": self.texts,
            "survey": {
                "ratings": RATINGS,
                "issues": ISSUES,
                "emotions": EMOTIONS,
                "shuffle": self.shuffle_survey,
            },
            "image_source_note": image_note,
            "prompt_note": prompt_note,
            "drawn": self.images == "drawn",
        }


DEFAULT_STUDY = Study(
    title="Reactions to generated images",
    version="example",
    contact="Name and address of the researcher in charge go here.",
    consent={
        "version": "example",
        "paragraphs": [
            "THIS IS AN EXAMPLE, NOT A CONSENT FORM. Replace it, in the file given with --study, by the text that "
            "your ethics board approved.",
            "In each session you write a prompt for an image generator and look at the images made from it. A page "
            "with your prompt is shown for a few seconds, then an image for a few seconds; then you answer questions "
            "about the image. At the end you rank the images. A session takes about ten minutes.",
            "From “Start recording” to the end of the ranking your webcam records a video of your face, without sound. "
            "The video, your prompts and your answers are stored on the computer that runs this study.",
            "Taking part is voluntary. You can stop at any time, without giving a reason and without disadvantage, "
            "and decide then whether what was recorded is kept or deleted.",
            "Image generators can make pictures that are disturbing or offensive. Please do not ask for such pictures.",
        ],
    },
)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for number, key in enumerate(keys) if key in keys[:number]]
        if twice:
            raise yaml.constructor.ConstructorError(problem=f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep)


def read_study(path: Path) -> Study:
    """A study's file; ``.json`` is read as JSON, everything else as YAML.

    Raises
    ------
    FergiError
        If the file cannot be read, or a key is missing, unknown or has a wrong value; it names the first.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except OSError as error:
        raise FergiError(f"Cannot read {path}: {error.strerror}. Name a study's file with --study.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FergiError(f"{path} is neither YAML nor JSON that can be read ({reason}). Correct it.") from error
    try:
        study = Study(**_checked(content, FORM, "", REQUIRED))
        known = json.loads(TEXTS.read_text(encoding="utf-8"))
        if unknown := [key for key in study.texts if key not in known]:
            raise ValueError(f"texts.{unknown[0]} is not known; {TEXTS.name} beside the pages has every key")
        return study
    except ValueError as error:
        raise FergiError(f"{path}: {error}. docs/sessions.md explains every key.") from None


def _checked(content: Any, form: dict[str, Any], inside: str, required: tuple[str, ...]) -> dict[str, Any]:
    """A mapping whose keys and values are as the form says; ValueError names the first that is not."""
    if not isinstance(content, dict):
        raise ValueError(f"{inside.rstrip('.') or 'the file'} must have keys with values, not be {content!r}")
    unknown = [key for key in content if key not in form]
    if unknown:
        raise ValueError(f"{inside}{unknown[0]} is not known here; there are {', '.join(form)}")
    missing = [key for key in required if key not in content]
    if missing:
        raise ValueError(f"{inside}{missing[0]} is missing")
    for key, value in content.items():
        if isinstance(form[key], dict):
            _checked(value, form[key], f"{inside}{key}.", tuple(form[key]))
        elif not _fits(value, *form[key]):
            kind, *limits = form[key]
            extent = " from {:,} to {:,}".format(*limits) if limits else ""
            raise ValueError(f"{inside}{key} must be {kind}{extent}, not {value!r}")
    if inside == "sessions." and not any(content.values()):
        raise ValueError("sessions must be at least one")
    return content


def _fits(value: Any, kind: str, smallest: float = 0, largest: float = 0) -> bool:
    match kind:
        case "a whole number":
            return type(value) is int and smallest <= value <= largest
        case "a number":
            return type(value) in (int, float) and smallest <= value <= largest
        case "a text" | "a text or null":
            return (value is None and kind == OPTIONAL_TEXT) or (isinstance(value, str) and bool(value.strip()))
        case "a list of texts":
            return isinstance(value, list) and bool(value) and all(_fits(entry, TEXT) for entry in value)
        case "texts by key":
            return isinstance(value, dict) and all(_fits(entry, TEXT) for pair in value.items() for entry in pair)
    return isinstance(value, bool)
