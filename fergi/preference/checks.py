"""Whether the content of a JSON file has the form that it must have."""

import math
from typing import Any


def check(content: Any, form: Any, where: str) -> None:
    """Compare content with a form, strictly.

    A form is a dict (exactly these keys, each of its form), a tuple (the shape of nested lists of finite numbers, ()
    for a single number), or a type (object: anything).

    Raises
    ------
    ValueError
        Naming the first place that differs, such as "parameters.weights.AU4".
    """
    if isinstance(form, dict):
        if not isinstance(content, dict):
            raise ValueError(f"{where} is not an object")
        for name in form:
            if name not in content:
                raise ValueError(f"{where} has no {name}")
        for name in content:
            if name not in form:
                raise ValueError(f"{where} has an unknown {name}")
            check(content[name], form[name], f"{where}.{name}")
    elif isinstance(form, tuple):
        _check_numbers(content, form, where)
    elif form is not object and type(content) is not form:
        raise ValueError(f"{where} is {content!r}, not of type {form.__name__}")


def _check_numbers(content: Any, shape: tuple[int, ...], where: str) -> None:
    if not shape:
        if type(content) not in (int, float) or not math.isfinite(content):
            raise ValueError(f"{where} is {content!r}, not a finite number")
        return
    if not isinstance(content, list) or len(content) != shape[0]:
        raise ValueError(f"{where} is not a list of {shape[0]}")
    for number, each in enumerate(content):
        _check_numbers(each, shape[1:], f"{where}[{number}]")
