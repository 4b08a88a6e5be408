"""Captions of faces that have none, from their expression and their AUs."""

from collections.abc import Sequence

from fergi.features import ACTION_UNITS

PHRASES = {  # what the Facial Action Coding System says of each AU, as a picture shows it
    1: "raised inner brows", 2: "raised outer brows", 4: "lowered brows", 5: "wide open eyes", 6: "raised cheeks",
    9: "a wrinkled nose", 12: "mouth corners pulled up", 15: "mouth corners pulled down", 17: "a raised chin",
    20: "stretched lips", 25: "parted lips", 26: "a dropped jaw",
}  # fmt: skip
FROM, CLEAR = 1.0, 3.0  # intensities from which an AU is named, and named without "slightly"


def caption(intensities: Sequence[float], expression: str = "") -> str:
    """A sentence such as "a portrait of a happy person with raised cheeks, slightly parted lips".

    Parameters
    ----------
    intensities : sequence of float
        Of ``ACTION_UNITS``, 0–5; NaN where one is not known.
    expression : str
        A word such as happy; empty if it is not known.
    """
    told = dict(zip(ACTION_UNITS, intensities, strict=True))
    named = [_graded(PHRASES[unit], value >= CLEAR) for unit, value in told.items() if value >= FROM]
    known = all(value == value for value in told.values())
    article = "an" if expression[:1].lower() in ("a", "e", "i", "o", "u") else "a"
    person = f"a portrait of {article} {expression} person".replace("  ", " ")
    if named:
        return f"{person} with {', '.join(named)}"
    return f"{person} with a neutral face" if known and not expression else person


def _graded(phrase: str, clear: bool) -> str:
    if clear:
        return phrase
    article = "a " if phrase.startswith("a ") else ""
    return f"{article}slightly {phrase.removeprefix('a ')}"
