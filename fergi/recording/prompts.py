"""Prompts of structured sessions: the form's rules, a template, and a language model's server (Appendix A.2.1)."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx

SECTIONS = ("animate", "inanimate", "interactional", "positional", "location", "style", "keywords")
LONGEST_TEXT = 200  # characters of one field
MOST_ENTRIES = 10  # of one list
MOST_OF_A_THING = 100
LONGEST_PROMPT = 1000
NUMBERS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
IRREGULAR = {
    **{"man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "goose": "geese"},
    **{"foot": "feet", "tooth": "teeth", "ox": "oxen", "leaf": "leaves", "knife": "knives", "wolf": "wolves"},
    **{"shelf": "shelves", "elf": "elves", "dwarf": "dwarves", "sheep": "sheep", "fish": "fish", "deer": "deer"},
}
INSTRUCTION = (
    "You write one prompt for an image generator from a filled-in form. Mention every object with its quantity and "
    "characteristics, every activity and relation, the location and the style, and nothing else. Write one or two "
    "plain English sentences, then the keywords, separated by commas. Answer with the prompt only."
)


class FormError(Exception):
    """A form breaks a rule; ``field`` is the path of the field, such as ``animate.1.name``."""

    def __init__(self, field: str, sentence: str):
        super().__init__(sentence)
        self.field, self.sentence = field, sentence


def check_form(form: Any) -> dict[str, Any]:
    """The form with its texts stripped and its empty entries of lists removed, if it keeps the rules.

    Every object has a name and a quantity; an animate object with an activity takes part in no relation; every object
    takes part in one relation at most, with another object; in an interactional relation the first is animate.

    Raises
    ------
    FormError
        Naming the first field that breaks a rule.
    """
    if not isinstance(form, dict) or set(form) != set(SECTIONS):
        raise FormError("form", f"The form must have exactly {', '.join(SECTIONS)}.")
    checked: dict[str, Any] = {
        "animate": _objects(form, "animate", ("name", "quantity", "activity", "characteristics")),
        "inanimate": _objects(form, "inanimate", ("name", "quantity", "characteristics")),
    }
    if not checked["animate"] and not checked["inanimate"]:
        raise FormError("animate", "Name at least one object.")
    partners: dict[str, str] = {}
    for section in ("interactional", "positional"):
        checked[section] = [
            _relation(entry, section, f"{section}.{place}", checked, partners)
            for place, entry in enumerate(_list(form[section], section), 1)
        ]
    checked |= {name: _text(form[name], name) for name in ("location", "style")}
    return checked | {"keywords": _texts(form["keywords"], "keywords")}


def _list(value: Any, field: str) -> list:
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
        raise FormError(field, f"This must be a list of at most {MOST_ENTRIES}.")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise FormError(field, f"This must be one line of at most {LONGEST_TEXT} characters.")
    return value.strip()


def _texts(value: Any, field: str) -> list[str]:
    texts = [_text(entry, f"{field}.{place}") for place, entry in enumerate(_list(value, field), 1)]
    return [text for text in texts if text]


def _objects(form: dict[str, Any], section: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    checked = []
    for place, entry in enumerate(_list(form[section], section), 1):
        field = f"{section}.{place}"
        if not isinstance(entry, dict) or set(entry) != set(keys):
            raise FormError(field, f"An object must have exactly {', '.join(keys)}.")
        thing: dict[str, Any] = {"name": _text(entry["name"], f"{field}.name"), "quantity": entry["quantity"]}
        if not thing["name"]:
            raise FormError(f"{field}.name", "Give the object a name.")
        if type(thing["quantity"]) is not int or not 1 <= thing["quantity"] <= MOST_OF_A_THING:
            raise FormError(f"{field}.quantity", f"Give a quantity from 1 to {MOST_OF_A_THING}.")
        if "activity" in keys:
            thing["activity"] = _text(entry["activity"], f"{field}.activity")
        checked.append(thing | {"characteristics": _texts(entry["characteristics"], f"{field}.characteristics")})
    return checked


def _relation(entry: Any, section: str, field: str, objects: dict, partners: dict[str, str]) -> dict[str, str]:
    """One relation; ``partners`` has the objects that earlier ones involve, and gets these."""
    if not isinstance(entry, dict) or set(entry) != {"first", "relation", "second"}:
        raise FormError(field, "A relation must have exactly first, relation and second.")
    relation = _text(entry["relation"], f"{field}.relation")
    if not relation:
        raise FormError(f"{field}.relation", "Say what the relation is.")
    for side in ("first", "second"):
        thing = entry[side]
        found = _named(thing, objects)
        if found is None:
            raise FormError(f"{field}.{side}", "Choose one of the objects named above.")
        if section == "interactional" and side == "first" and not thing.startswith("animate "):
            raise FormError(f"{field}.{side}", "The first object must be an animate one.")
        if found.get("activity"):
            raise FormError(f"{field}.{side}", f"“{found['name']}” has an activity, so it cannot be in a relation.")
        if thing in partners:
            raise FormError(f"{field}.{side}", f"“{found['name']}” is in a relation already; one is allowed.")
        partners[thing] = field
    return {"first": entry["first"], "relation": relation, "second": entry["second"]}


def _named(reference: Any, objects: dict[str, list]) -> dict[str, Any] | None:
    """The object that a text like ``animate 1`` stands for."""
    section, _, place = reference.partition(" ") if isinstance(reference, str) else ("", "", "")
    if section not in ("animate", "inanimate") or not (place.isascii() and place.isdecimal() and len(place) < 4):
        return None
    return objects[section][int(place) - 1] if 1 <= int(place) <= len(objects[section]) else None


def from_template(form: dict[str, Any]) -> str:
    """A prompt from a checked form, without a model: objects and relations, location, style, keywords at the end."""
    relations = [*form["interactional"], *form["positional"]]
    related = {each[side] for each in relations for side in ("first", "second")}
    parts = [
        f"{_phrase(_named(each['first'], form))} {each['relation']} {_phrase(_named(each['second'], form))}"
        for each in relations
    ]
    for section in ("animate", "inanimate"):
        for place, thing in enumerate(form[section], 1):
            if f"{section} {place}" not in related:
                parts.append(" ".join(filter(None, (_phrase(thing), thing.get("activity")))))
    scene = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    if form["location"]:
        location = form["location"]
        scene += f" {location}" if _begins_with_place(location) else f", {location}"
    return ", ".join([scene, *filter(None, [form["style"]]), *form["keywords"]])[:LONGEST_PROMPT]


def _begins_with_place(location: str) -> bool:
    first = location.split()[0].lower()
    return first in {"in", "on", "at", "under", "inside", "outside", "near", "beside", "above", "by", "over"}


def _phrase(thing: dict[str, Any]) -> str:
    """An object with its quantity and characteristics: “two black, fluffy cats”."""
    number, name = thing["quantity"], thing["name"]
    words = ", ".join(thing["characteristics"])
    described = f"{words} {name if number == 1 else _plural(name)}".strip()
    if number == 1:
        return f"{'an' if described[0].lower() in 'aeio' else 'a'} {described}"
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {described}"


def _plural(name: str) -> str:
    """The usual plural of an English noun, of the last word of a name; a name that is a plural already stays."""
    rest, last = name[: name.rfind(" ") + 1], name.split(" ")[-1]
    low = last.lower()
    if low in IRREGULAR or low in IRREGULAR.values():
        return rest + IRREGULAR.get(low, last)
    if low.endswith(("ss", "x", "ch", "sh", "z")):
        return f"{name}es"
    if low.endswith("s"):
        return name
    return f"{name[:-1]}ies" if low.endswith("y") and low[-2:-1] not in set("aeiou") else f"{name}s"


@dataclass(frozen=True)
class PromptServer:
    """A server with the chat interface of OpenAI's form (``<url>/chat/completions``)."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    seconds: float = 20.0  # how long an answer may take

    @property
    def note(self) -> str:
        """What a participant should know of where the form goes."""
        return f"Your form is sent to {httpx.URL(self.url).host}, where a language model makes a prompt of it."

    async def ask(self, form: dict[str, Any]) -> str:
        """The prompt that the model makes of a checked form; ValueError, with the reason, if there is none."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        content = {
            "model": self.model,
            "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": in_words(form)}],
            "max_tokens": 300,
        }
        try:
            async with asyncio.timeout(self.seconds), httpx.AsyncClient(timeout=self.seconds) as client:
                answer = await client.post(f"{self.url.rstrip('/')}/chat/completions", json=content, headers=headers)
            answer.raise_for_status()
            text = answer.json()["choices"][0]["message"]["content"]
        except (TimeoutError, httpx.TimeoutException):
            raise ValueError(f"did not answer within {self.seconds:g} seconds") from None
        except httpx.HTTPStatusError as error:
            raise ValueError(f"answered with status {error.response.status_code}") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise ValueError("cannot be reached") from None
        except (ValueError, LookupError, TypeError):
            raise ValueError("gave an answer of another form") from None
        text = " ".join(str(text or "").split()).strip('"“” ')
        if not text or len(text) > LONGEST_PROMPT:
            raise ValueError("gave an empty answer" if not text else "gave too long an answer")
        return text


def in_words(form: dict[str, Any]) -> str:
    """A checked form as lines of text, for a language model."""

    def name(reference: str) -> str:
        return _named(reference, form)["name"]

    lines = []
    for section in ("animate", "inanimate"):
        for thing in form[section]:
            more = [", ".join(thing["characteristics"]), thing.get("activity", "")]
            lines.append(f"{section} object: {thing['quantity']} {thing['name']}; " + "; ".join(filter(None, more)))
    for section in ("interactional", "positional"):
        lines += [f"{section} relation: {name(r['first'])} {r['relation']} {name(r['second'])}" for r in form[section]]
    lines += [f"{key}: {form[key]}" for key in ("location", "style") if form[key]]
    return "\n".join([*lines, *([f"keywords: {', '.join(form['keywords'])}"] if form["keywords"] else [])])


async def propose(form: dict[str, Any], server: PromptServer | None) -> tuple[str, str, str | None]:
    """A prompt from a checked form, who made it (model or template), and a note for the participant."""
    if server is None:
        return from_template(form), "template", None
    try:
        return await server.ask(form), "model", None
    except ValueError as error:
        note = f"The language model {error}, so this text was put together from your form. You can change it."
        return from_template(form), "template", note
