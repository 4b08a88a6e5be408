"""A generator that train_face_generator.py wrote, from its folder."""

from pathlib import Path
from typing import Any

import torch

from fergi.action_units.faces_dataset import ALIGNMENT, SETTINGS
from fergi.face_generation.adapter import ADAPTER_FILE
from fergi.face_generation.generator import FaceGenerator
from fergi.files import FergiError, read_json, require, sha256

ADVICE = "Train one with train_face_generator.py."


def find_generator(name: str, root: Path) -> Path:
    """The folder of a generator, in ``face_generators`` below the root or anywhere.

    Raises
    ------
    FergiError
        If it or one of its files is missing.
    """
    folder = root / "face_generators" / name
    folder = folder if folder.is_dir() else Path(name)
    require([folder / ADAPTER_FILE, folder / SETTINGS], f"files of the generator {folder}", ADVICE)
    return folder.resolve()


def open_generator(
    folder: Path, device: torch.device, *, precision: str, pipeline: str | None = None
) -> tuple[FaceGenerator, dict[str, Any], dict[str, Any] | None]:
    """The base model with the adapter on it.

    ``pipeline`` is another base model than the adapter was trained on.

    Returns
    -------
    generator : FaceGenerator
        As it was trained.
    settings : dict
        Which generator it is, for what it makes.
    alignment : dict or None
        How the aligned faces that it imitates were made; None if it makes other pictures.

    Raises
    ------
    FergiError
        If the settings lack something, the base model cannot be loaded, the adapter does not fit it, or it has changed
        since the training.
    """
    trained, path = read_json(folder / SETTINGS, ADVICE), folder / ADAPTER_FILE
    lacking = [name for name in ("pipeline", "unet", "resolution") if name not in trained]
    if lacking:
        raise FergiError(f"{folder / SETTINGS} does not say {lacking[0]}. {ADVICE}")
    base = pipeline or trained["pipeline"]
    generator = FaceGenerator(base, device, precision=precision, adapter=path, resolution=trained["resolution"])
    unet = generator.fingerprint()
    if unet != trained["unet"] and not pipeline:
        raise FergiError(
            f"{base} has another UNet than {path} was trained on. Get that one again, or name this one with --pipeline "
            "to try it."
        )
    settings = {"synthetic": True, "generator": folder.name, "adapter_sha256": sha256(path), "unet": unet}
    alignment = {name: trained[name] for name in ALIGNMENT if name in trained} if trained.get("aligned") else None
    return generator, settings | {"precision": precision, "resolution": generator.resolution}, alignment
