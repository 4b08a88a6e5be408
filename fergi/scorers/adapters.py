"""What of a scorer is tuned, the file that holds it, and the tuned scorer that stage 5 loads.

Three ways: ``lora`` adds small matrices to the network's linear layers (library peft), ``projections`` trains the last
linear maps alone, ``layers`` what the scorer's authors trained. The file has the tuned values only (safetensors) and
their settings in its header. It fits the weights that it was tuned from and no others. A LoRA's values have peft's
names, and peft's ``adapter_config.json`` lies beside them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fergi.files import FergiError, replacing, require, sha256
from fergi.scorers.interface import Scorer, offline_import
from fergi.weights import load_strictly, read_weights_file

WAYS = ("lora", "projections", "layers")
FORMAT = 1
HEADER = "fergi"  # the entry of the file's header with the settings
ADAPTER_FILE = "adapter_model.safetensors"  # peft's name
SCRIPT = "finetune_scorer.py"
FULL_SCALE = 4.605170185988092  # ln 100, at which CLIP and HPS v2 stop the logarithm of their scale


class Tunable:
    """The part of a scorer's network that is tuned; everything else is fixed.

    Attributes
    ----------
    parameters : dict
        Name → parameter of the network.
    """

    def __init__(self, scorer: Scorer, settings: Mapping[str, Any]) -> None:
        """Switch on gradients; a LoRA is added to the scorer's network in place.

        Parameters
        ----------
        scorer : Scorer
            Loaded.
        settings : mapping
            ``train`` (one of ``WAYS``); for lora ``rank``, ``alpha`` and ``lora_targets``: ends of names of modules,
            separated by commas.

        Raises
        ------
        FergiError
            If the network has nothing of that kind.
        """
        self.scorer, self.settings, self.wrapper = scorer, settings, None
        network = scorer.network.requires_grad_(False)
        if settings["train"] == "lora":
            self.wrapper = _with_lora(scorer, settings)
        else:
            beginnings = _beginnings(scorer, settings["train"])
            for name, value in network.named_parameters():
                value.requires_grad_(any(begin in ("", name) or name.startswith(f"{begin}.") for begin in beginnings))
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        if not self.parameters:
            raise FergiError(f"{scorer.name} cannot be tuned with --train {settings['train']}. Choose --train lora.")

    def check_gradients(self) -> None:
        """Stop unless a backward pass has reached everything that is tuned.

        Some layers read their weight past an adapter, which then is never trained, and no library says so.

        Raises
        ------
        FergiError
            Counting the parameters without a gradient, and naming the first.
        """
        missed = [name for name, value in self.parameters.items() if value.grad is None]
        if missed:
            raise FergiError(
                f"{len(missed)} of the {len(self.parameters)} parameters to tune in {self.scorer.name} get no gradient "
                f"(first: {missed[0]}), so they would never change: the network reads its weights past them. "
                f"{_advice(self.scorer)}"
            )

    def limit_scale(self) -> None:
        """Keep a scale's logarithm between 0 and ln 100, as HPS v2 does, if it is tuned."""
        if "logit_scale" in self.parameters:
            with torch.no_grad():
                self.parameters["logit_scale"].clamp_(0, FULL_SCALE)

    def tensors(self) -> dict[str, Tensor]:
        """What is tuned, under the file's names."""
        return {self._file_name(name): value for name, value in self.parameters.items()}

    def load(self, tensors: Mapping[str, Tensor], source: Path | str) -> None:
        """Take tuned values, all of them or nothing; FergiError names the first that does not fit."""
        own = {self._file_name(name): name for name in self.parameters}
        fixed = {name: value for name, value in self.scorer.network.state_dict().items() if name not in self.parameters}
        given = {own.get(name, name): value for name, value in tensors.items()}
        load_strictly(self.scorer.network, fixed | given, source=source)

    def merge(self) -> None:
        """Put a LoRA into the weights; the scorer has its plain network again."""
        if self.wrapper is not None:
            self.scorer.network = self.wrapper.merge_and_unload()
        self.scorer.network.requires_grad_(False).eval()

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write what is tuned, all or nothing; ``settings`` are flat and have all that ``tuned_scorer`` reads."""
        save_tensors(self.tensors(), path, (HEADER, json.dumps({"format": FORMAT, **settings})))
        if self.wrapper is not None:
            config = _lora_config(self.settings).to_dict() | {"inference_mode": True}
            with replacing(path.with_name("adapter_config.json")) as file:
                file.write((json.dumps(config, indent=4, default=sorted) + "\n").encode())

    def _file_name(self, name: str) -> str:
        return name if self.wrapper is None else "base_model.model." + name.replace(".default.", ".")


def _beginnings(scorer: Scorer, way: str) -> list[str]:
    """The beginnings of the names of what is tuned; blocks are counted from the last one."""
    found: list[str] = []
    for each in scorer.projections if way == "projections" else scorer.trained_layers:
        blocks, n = (each, 0) if isinstance(each, str) else each
        depth = len(scorer.network.get_submodule(blocks)) if n else 0
        found += [f"{blocks}.{place}" for place in range(max(0, depth - n), depth)] if n else [blocks]
    return found


def _advice(scorer: Scorer) -> str:
    return f"Choose --lora-targets among the ends of its layers' names, such as {' '.join(scorer.lora_targets)}."


def _lora_config(settings: Mapping[str, Any]) -> Any:
    with offline_import():
        from peft import LoraConfig
    targets = settings["lora_targets"].split(",")
    return LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules=targets)


def _with_lora(scorer: Scorer, settings: Mapping[str, Any]) -> Any:
    """Peft's wrapper of the scorer's network, which now has the LoRA in it."""
    with offline_import():
        from peft import get_peft_model
    try:
        return get_peft_model(scorer.network, _lora_config(settings))
    except (ValueError, TypeError) as error:
        raise FergiError(
            f"A LoRA on {settings['lora_targets']} reaches no parameter of {scorer.name}, or a layer that cannot have "
            f"one. {_advice(scorer)}"
        ) from error


def save_tensors(tensors: Mapping[str, Tensor], path: Path, header: tuple[str, str] = ("format", "pt")) -> None:
    """Write a safetensors file, all or nothing; with one entry in its header the same content is the same bytes."""
    from safetensors.torch import save

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as file:
        file.write(save(whole, dict([header])))


def base_settings(scorer: type[Scorer], root: Path, layout: Mapping[str, Any] | None) -> dict[str, str]:
    """What an adapter fits: the scorer's name, the sizes of its network, and the SHA-256 of its files."""
    sizes = json.dumps(scorer.official_layout if layout is None else layout, sort_keys=True)
    return {"layout": sizes, **{f"base: {file.path}": sha256(file.under(root)) for file in scorer.files}}


def read_adapter_settings(path: Path) -> dict[str, Any]:
    """The settings in the header of a file of tuned values.

    Raises
    ------
    FergiError
        If the file is missing or not of that kind.
    """
    advice = f"Name {ADAPTER_FILE} in a folder that {SCRIPT} wrote."
    require([path], "adapter file", advice)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})[HEADER])
        lacking = {"format", "scorer", "name", "train", "layout"} - settings.keys()
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError) as error:
        raise FergiError(f"{path} is no file of a tuned scorer. {advice}") from error
    if lacking or settings["format"] != FORMAT:
        raise FergiError(f"{path} is a file of a tuned scorer in a format that is not known here. {advice}")
    return settings


def starting_scorer(scorer: type[Scorer], root: Path) -> type[Scorer]:
    """The scorer itself, or, if its file is missing and was never published, one with the files that it starts from."""
    if not scorer.starts_from or scorer.files[0].under(root).is_file():
        return scorer
    return type(scorer.__name__, (scorer,), {"files": scorer.starts_from})


def tuned_scorer(scorer: type[Scorer], path: Path) -> type[Scorer]:
    """The scorer with the tuned values of a file; its name is ``<scorer>+<name of the tuning>``.

    Raises
    ------
    FergiError
        If the file is not one of this scorer; when it is loaded, if root or layout have another network than the one
        that was tuned, or an entry does not fit.
    """
    tuned = read_adapter_settings(path)
    if tuned["scorer"] != scorer.name:
        raise FergiError(
            f"{path} belongs to {tuned['scorer']}, not to {scorer.name}. Name it {tuned['scorer']}+{path}."
        )
    every = scorer.files if f"base: {scorer.files[0].path}" in tuned else scorer.starts_from

    class Tuned(scorer):
        name = f"{scorer.name}+{tuned['name']}"
        files = every
        starts_from = ()

        def load(self, root: Path, layout: dict[str, Any]) -> None:
            for name, now in base_settings(type(self), root, layout).items():
                if tuned.get(name) != now:
                    raise FergiError(
                        f"{path} was tuned from another {scorer.name}: {name.removeprefix('base: ')} was "
                        f"{str(tuned.get(name))[:60]!r} and is {now[:60]!r}. Use the one that it was tuned from, or "
                        f"tune this one with {SCRIPT}."
                    )
            super().load(root, layout)
            part = Tunable(self, tuned)
            part.load(read_weights_file(path), path)
            part.merge()

        @classmethod
        def settings(cls, root: Path, device: torch.device, layout: dict[str, Any] | None = None) -> dict[str, str]:
            own = {f"tuning: {name}": str(value) for name, value in tuned.items() if name != "layout"}
            return super().settings(root, device, layout) | {"adapter": sha256(path)} | own

    return Tuned
