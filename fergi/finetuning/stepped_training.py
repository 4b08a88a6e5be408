"""What trainings of diffusion models share: steps of AdamW that can be interrupted, evaluations between, one state.

Processes, devices and precision are Accelerate's. Gradients are clipped to length 1; the rate is
``scorer_training.learning_rate``. What chance decides follows from the seed, the step and the place in the batch,
whatever process takes that place. So the saved state needs no random numbers and is of plain tensors: a resumed
training gives what an uninterrupted one gives, on a CPU to the last bit, and other numbers of processes give the same
but for rounding.
"""

import abc
import math
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fergi.files import FergiError, check_writable, keep_settings, write_json
from fergi.finetuning.generator import StableDiffusion
from fergi.finetuning.pairs import PreparedPictures
from fergi.finetuning.scorer_training import LONGEST_GRADIENT, RESTART, explained, learning_rate
from fergi.processes import choose_device
from fergi.weights import read_weights_file, save_weights

if TYPE_CHECKING:
    from accelerate import Accelerator


class SteppedTraining(abc.ABC):
    """One training. A subclass sets ``rows``, the batches as ``(steps, batch)``, and ``pictures`` before ``run``.

    Parameters
    ----------
    generator : StableDiffusion
        Loaded; its ``parameters`` are trained in place.
    options : dataclass
        With ``steps``, ``batch_size``, ``rate``, ``weight_decay`` and ``evaluate_every``.
    settings : dict
        For ``keep_settings``.
    folder : Path
        For adapter, settings, state, log and samples; the same for all processes.
    adapter_file : str
        Name of what is trained.
    state_every : int
        Steps from one saved state to the next; one is saved at each evaluation anyway.
    n_sums : int
        Numbers that ``gradients`` gives.

    Raises
    ------
    FergiError
        If the processes cannot share a batch equally.
    """

    kept: tuple[str, ...] = ()  # attributes that are part of the state, beside those of every training
    packages = ("torch", "diffusers", "accelerate")  # whose versions the settings name
    advice = ""  # if memory runs out
    rows: np.ndarray
    pictures: PreparedPictures

    def __init__(
        self,
        generator: StableDiffusion,
        options: Any,
        accelerator: "Accelerator",
        *,
        settings: dict[str, Any],
        folder: Path,
        adapter_file: str,
        state_every: int,
        n_sums: int,
    ) -> None:
        self.generator, self.options, self.accelerator = generator, options, accelerator
        self.settings, self.folder, self.state_every = settings, folder, state_every
        if options.batch_size % accelerator.num_processes:
            raise FergiError(
                f"A batch of {options.batch_size} cannot be shared equally by {accelerator.num_processes} processes. "
                "Choose a multiple with --batch-size."
            )
        optimizer = torch.optim.AdamW(list(generator.parameters.values()), weight_decay=options.weight_decay)
        self.network, self.optimizer = accelerator.prepare(generator.unet, optimizer)
        self.steps_done = self.kept_step = 0
        self.stopped = False
        self.sums = np.zeros(n_sums)  # of ``gradients``, since the last evaluation
        self.log: list[dict[str, Any]] = []
        self.state_path, self.settings_path = folder / "last_training_state.pth", folder / "settings.json"
        self.log_path, self.adapter_path = folder / "training_log.csv", folder / adapter_file

    @abc.abstractmethod
    def take(self, values: Mapping[str, Tensor], source: Path) -> None:
        """Take the trained values of a saved state, all or nothing."""

    @abc.abstractmethod
    def gradients(self, rows: np.ndarray, pixels: list[Tensor]) -> Tensor:
        """Add the gradients of this process's share of a batch, and give its sums for the log, float64."""

    @abc.abstractmethod
    def record(self, rate: float) -> None:
        """Evaluate, keep the adapter, and add a row to the log; ``rate``: pictures or pairs a second."""

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Which pictures a part of a batch needs."""
        return rows

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.accelerator.is_main_process

    def mine(self, n: int) -> slice:
        """The share of a batch that this process takes."""
        share = n // self.accelerator.num_processes
        return slice(self.accelerator.process_index * share, (self.accelerator.process_index + 1) * share)

    def failed(self, what: str) -> FergiError:
        """Something is not finite."""
        kept = f"The adapter of step {self.kept_step} is kept in {self.adapter_path}. " if self.kept_step else ""
        return FergiError(
            f"{what} is not a finite number after step {self.steps_done}: training has failed. {kept}Lower --rate, "
            "and pass --restart."
        )

    def backward(self, loss: Tensor, n: int, *, last: bool) -> None:
        """Add the gradient of a part's losses; processes exchange gradients after the last part."""
        if not loss.requires_grad:  # nothing is reached, which ``Generator.check_gradients`` says
            return
        if last:
            self.accelerator.backward(loss.sum() / n)
        else:
            with self.accelerator.no_sync(self.network):
                self.accelerator.backward(loss.sum() / n)

    # Resuming ------------------------------------------------------------------------------------------------------

    def resume(self, restart: bool) -> None:
        """Load the saved state, if there is one; with ``restart`` delete it and all that was made.

        Raises
        ------
        FergiError
            If it is of other settings, data or weights.
        """
        check_writable(self.folder, "--out")
        if self.leads and restart:
            samples = (self.folder / "samples").glob("step_*.png")
            for path in (self.state_path, self.settings_path, self.log_path, self.adapter_path, *samples):
                path.unlink(missing_ok=True)
        if self.leads and not self.state_path.exists():
            self.settings_path.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        if not self.state_path.exists():
            return
        keep_settings(self.settings, self.settings_path, f"Repeat its settings to resume. {RESTART}")
        state = read_weights_file(self.state_path, RESTART)
        self.take(state["trained"], self.state_path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.sums = state["sums"].numpy()
        for name in ("steps_done", "kept_step", "stopped", "log", *self.kept):
            setattr(self, name, state[name])

    def save_state(self) -> None:
        """Write the state to resume from."""
        if not self.leads:
            return
        trained = {name: value.detach() for name, value in self.generator.parameters.items()}
        state = {name: getattr(self, name) for name in ("steps_done", "kept_step", "stopped", "log", *self.kept)}
        state |= {"trained": trained, "optimizer": self.optimizer.state_dict(), "sums": torch.from_numpy(self.sums)}
        save_weights(state, self.state_path)

    # Training ------------------------------------------------------------------------------------------------------

    def step(self, rows: np.ndarray, pixels: list[Tensor]) -> None:
        """One step of the optimiser; ``rows`` and ``pixels`` are this process's share of the batch."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.gradients(rows, pixels).to(self.accelerator.device)
        sums = self.accelerator.reduce(sums, "sum").cpu().numpy()
        if not np.isfinite(sums).all():
            raise self.failed("The loss")
        self.accelerator.clip_grad_norm_(list(self.generator.parameters.values()), LONGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps_done, self.options.steps, self.options.rate)
        self.optimizer.step()
        self.sums += sums
        self.steps_done += 1

    def run(self) -> None:
        """Evaluate the generator as it is, unless that is done, and train for the steps that remain."""
        with explained(self.generator, self.advice):
            if not self.log:
                self.record(math.nan)
                if self.leads:
                    write_json(self.settings | {name: version(name) for name in self.packages}, self.settings_path)
                self.save_state()
            if not self.stopped:
                self._train()

    def _train(self) -> None:
        options, begun, before = self.options, time.perf_counter(), self.steps_done
        batches = [rows[self.mine(options.batch_size)] for rows in self.rows[before:]]
        pictures = self.pictures.batches([self.places(rows) for rows in batches])
        silent = None if self.leads else True
        with tqdm(total=options.steps, initial=before, unit=" steps", disable=silent, leave=False) as shown:
            for rows, pixels in zip(batches, pictures, strict=True):
                self.step(rows, pixels)
                shown.update()
                if self.steps_done % options.evaluate_every == 0 or self.steps_done == options.steps:
                    n = (self.steps_done - before) * options.batch_size
                    self.record(n / (time.perf_counter() - begun))
                    self.save_state()
                    begun, before = time.perf_counter(), self.steps_done
                elif self.steps_done % self.state_every == 0:
                    self.save_state()
                if self.stopped:
                    break


def open_accelerator(device: str | None, precision: str | None) -> "tuple[str, Accelerator]":
    """The precision, bfloat16 on a GPU unless another is named, and Accelerate's side of this process."""
    from accelerate import Accelerator

    chosen = choose_device(device)
    precision = precision or ("bfloat16" if chosen.type == "cuda" else "float32")
    mixed = "bf16" if precision == "bfloat16" else "no"
    if chosen.index is not None:
        torch.cuda.set_device(chosen)
    return precision, Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed)
