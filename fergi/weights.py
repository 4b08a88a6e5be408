"""Files of network weights: which there are, reading them safely, and loading all of one or nothing.

A file is read with PyTorch's reader for plain weights, which runs no code from it. A module takes a state
dict only if every entry has its place and its shape; what is deliberately left aside is named by the caller.
Random weights never come from here: whoever wants them asks for them by name.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from fergi.files import FergiError, replacing, require

FETCH_AGAIN = "Fetch or copy it again."


@dataclass(frozen=True)
class WeightFile:
    """One file of weights that a stage needs.

    Attributes
    ----------
    path : str
        Where it lies under the root.
    what : str
        What is in it.
    source : str
        Who gives it out.
    licence : str
        On which terms.
    advice : str
        What to do where it is missing or not usable.
    key : str, optional
        Entry of the file that holds the state dict, where that is not the whole file.
    """

    path: str
    what: str
    source: str
    licence: str
    advice: str
    key: str | None = None

    def under(self, root: Path) -> Path:
        """The file under one root."""
        return root / self.path

    def read(self, root: Path) -> dict[str, Tensor]:
        """The state dict in it (see ``load_state``)."""
        return load_state(self.under(root), key=self.key, advice=self.advice)


GLINT360K_IR50 = WeightFile(
    path="pretrained_models/glint360k_cosface_r50_fp16_0.1.pth",
    what="IR-50 trained to tell people apart (Glint360K, CosFace): where the AU model starts from (Appendix B.3)",
    source="model zoo of arcface_torch, https://github.com/deepinsight/insightface",
    licence="weights for non-commercial research only, as InsightFace states",
    advice="Put the file from the InsightFace arcface_torch model zoo there, "
    "or ask for random weights with --from-scratch.",
)
MOBILEFACENET = WeightFile(
    path="pretrained_models/mobilefacenet_model_best.pth.tar",
    what="MobileFaceNet for 68 facial landmarks (Appendix B.2)",
    source="https://github.com/cunjian/pytorch_face_landmark",
    licence="see its repository",
    advice="Put the file from pytorch_face_landmark there, or use the facemesh landmarks, which need no download.",
    key="state_dict",
)
AU_MODEL = WeightFile(
    path="AU_models/checkpoint_epoch3.pth",
    what="the AU model: IR-50 with 64 intensities and 64 x 5 thresholds",
    source="made by DISFAwithPlus_train_model.py",
    licence="that of the data it was trained with",
    advice="Run DISFAwithPlus_train_model.py first.",
)
WEIGHT_FILES = (GLINT360K_IR50, MOBILEFACENET, AU_MODEL)


def read_weights_file(path: Path, advice: str = FETCH_AGAIN) -> Any:
    """The content of a file of tensors and plain values, on the CPU.

    Raises
    ------
    FergiError
        If the file is missing, cut off, or holds anything but tensors and plain values.
    """
    require([path], "weight file", advice)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FergiError(f"{path} is not a file of plain PyTorch weights. {advice}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FergiError(f"{path} cannot be read: it is cut off or not a PyTorch file. {advice}") from error


def load_state(path: Path, *, key: str | None = None, advice: str = FETCH_AGAIN) -> dict[str, Tensor]:
    """A state dict, on the CPU.

    Parameters
    ----------
    path : Path
        File that ``torch.save`` wrote.
    key : str, optional
        Entry of the file that holds the state dict; without it the file is the state dict.
    advice : str
        What to do where the file is of no use; it ends every error.

    Returns
    -------
    dict
        Name → tensor. A ``module.`` in front of every name, which parallel training leaves, is taken off.

    Raises
    ------
    FergiError
        If the file is missing, cut off, not of PyTorch, or not a state dict.
    """
    content = read_weights_file(path, advice)
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise FergiError(f"{path} has no entry {key!r}, where its weights should be. {advice}")
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise FergiError(f"{path} holds a {type(content).__name__}, not a state dict. {advice}")
    wrong = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if wrong:
        raise FergiError(
            f"{path} is not a state dict: {len(wrong)} of its {len(content)} entries are not tensors "
            f"(first: {wrong[0]!r}). {advice}"
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, source: Path | str, except_for: Sequence[str] = ()
) -> None:
    """Put a state dict into a module, all of it or nothing.

    Parameters
    ----------
    module : torch.nn.Module
        What takes the weights.
    state : mapping
        Name → tensor.
    source : Path or str
        Where the state came from, for the error.
    except_for : sequence of str
        Beginnings of names that are left aside on both sides: such entries of ``state`` are not used, and such
        entries of ``module`` stay as they are.

    Raises
    ------
    FergiError
        Counting the missing, unexpected, wrongly shaped and not finite entries, and naming the first.
    ValueError
        If ``except_for`` is given and names nothing on either side.
    """

    def left_aside(name: str) -> bool:
        return name.startswith(tuple(except_for))

    own = module.state_dict()
    if except_for and not any(map(left_aside, [*own, *state])):
        raise ValueError(f"nothing is named {' or '.join(except_for)} in the module or in {source}")
    wanted = {name: value for name, value in own.items() if not left_aside(name)}
    given = {name: value for name, value in state.items() if not left_aside(name)}
    problems = [
        f"{len(names)} {what} (first: {names[0]})"
        for what, names in (
            ("missing", [name for name in wanted if name not in given]),
            ("not known", [name for name in given if name not in wanted]),
            (
                "of another shape",
                [
                    f"{name}, {_shape(given[name])} instead of {_shape(value)}"
                    for name, value in wanted.items()
                    if name in given and given[name].shape != value.shape
                ],
            ),
            ("not finite", [name for name, value in given.items() if not torch.isfinite(value).all()]),
        )
        if names
    ]
    if problems:
        raise FergiError(
            f"{source} does not fit {type(module).__name__} with its {len(wanted)} entries: {'; '.join(problems)}. "
            "It was made for another network or is damaged; use the file that belongs to this one."
        )
    module.load_state_dict({**own, **given})


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "single"


def save_weights(content: Any, path: Path) -> None:
    """Write tensors and plain values with ``torch.save``, all or nothing.

    Raises
    ------
    FergiError
        If it cannot be written or the disk is full; ``path`` is then as it was before.
    """
    try:
        with replacing(path) as file:
            torch.save(content, file)
    except RuntimeError as error:  # PyTorch's writer hides the operating system's error in one of its own
        raise FergiError(f"Cannot write {path}: the disk may be full. Make room or choose another --root.") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
