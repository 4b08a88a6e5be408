"""Training of an AU adapter: loss, evaluation, samples and log; the rest is ``SteppedTraining``.

The loss is ‖ε − ε̂‖², of the noise. The base model is frozen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fergi.face_generation.adapter import ADAPTER_FILE
from fergi.face_generation.captions import caption
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.pictures import LabelledPictures
from fergi.face_generation.sampling import sample
from fergi.features import ACTION_UNITS
from fergi.files import replacing, write_table
from fergi.finetuning.generator import Draw, draw
from fergi.finetuning.generator_losses import squared_error
from fergi.finetuning.pairs import PreparedPictures
from fergi.finetuning.scorer_training import option
from fergi.finetuning.stepped_training import SteppedTraining

if TYPE_CHECKING:
    from accelerate import Accelerator

HELD_OUT_DRAWS = 4  # of noise for each held-out picture, with timesteps spread evenly
SWEEP = (0.0, 2.5, 5.0)  # intensities of the samples
SEEDS = 2  # of noise, for each AU of the samples
ADVICE = "Choose a smaller --pictures-at-once, or pass --checkpointing"
TRAINING, HELD_OUT, CHOICE = range(3)  # kinds of draws
CONDITIONS = ("aus", "null", "others")  # held-out pictures are told their AUs, none, and those of another picture


@dataclass(frozen=True)
class FaceGeneratorSettings:
    """What the trained values depend on, besides base model and pictures; fields with metadata are options."""

    precision: str  # float32 or bfloat16, of what is not trained; the adapter and the loss are float32
    resolution: int
    flips: bool
    sample_units: str  # AUs of the samples, with commas between
    steps: int
    batch_size: int = option(1, "pictures of a step, over all processes")
    rate: float = option(0, "highest learning rate")
    weight_decay: float = option(0, "of AdamW")
    empty_texts: float = option(0, "share of captions that are left empty in training")
    dropped_units: float = option(0, "share of pictures whose AUs are not told in training")
    evaluate_every: int = option(1, "steps from one evaluation, with samples, to the next")
    evaluated_pictures: int = option(2, "of the held-out pictures that are evaluated, at most")
    sample_steps: int = option(1, "denoising steps of a sample")
    guidance: float = option(1, "scale of the samples' guidance (1: none)")
    seed: int = option(0, "of new weights, draws, split and samples")


class FaceGeneratorTraining(SteppedTraining):
    """One training.

    Parameters
    ----------
    generator : FaceGenerator
        Loaded; its adapter is trained in place.
    pictures : LabelledPictures
        Data.
    training, held_out : ndarray of int
        Places in ``pictures``.
    settings : dict
        For ``keep_settings``: base model, data and options, flat.
    folder : Path
        For adapter, settings, state, log and samples; the same for all processes.
    pictures_at_once : int
        Of each step's pictures that the network of one process takes at once.
    workers : int
        Threads that decode pictures.
    state_every : int
        Steps from one saved state to the next; one is saved at each evaluation anyway.
    """

    kept = ("errors",)
    advice = ADVICE

    def __init__(
        self,
        generator: FaceGenerator,
        pictures: LabelledPictures,
        training: np.ndarray,
        held_out: np.ndarray,
        options: FaceGeneratorSettings,
        accelerator: "Accelerator",
        *,
        settings: dict[str, Any],
        folder: Path,
        pictures_at_once: int,
        workers: int,
        state_every: int,
    ) -> None:
        more = {"settings": settings, "folder": folder, "state_every": state_every}
        # Sums: loss, pictures.
        super().__init__(generator, options, accelerator, adapter_file=ADAPTER_FILE, n_sums=2, **more)
        self.labelled, self.training, self.pictures_at_once = pictures, training, pictures_at_once
        n, random = options.steps * options.batch_size, np.random.default_rng([options.seed, TRAINING])
        passes = [random.permutation(training) for _ in range(math.ceil(n / len(training)))]
        self.rows = np.concatenate(passes)[:n].reshape(options.steps, options.batch_size)
        self.pictures = PreparedPictures(pictures.pictures, generator.prepare, workers=workers)
        self.intensities = torch.from_numpy(pictures.intensities).float()
        random = np.random.default_rng([options.seed, CHOICE])
        self.evaluated = np.sort(random.permutation(held_out)[: options.evaluated_pictures])
        order = random.permutation(len(self.evaluated))
        self.others = np.empty_like(self.evaluated)  # whose AUs a picture gets for comparison, never its own
        self.others[order] = self.evaluated[np.roll(order, 1)]
        self.sample_text = _calm_text(pictures, self.evaluated)
        self.errors = torch.zeros(len(CONDITIONS), len(self.evaluated), dtype=torch.float64)  # of the last evaluation

    def take(self, values: Mapping[str, Tensor], source: Path) -> None:
        """As ``ActionUnitAdapter.take``."""
        self.generator.adapter.take(values, source)

    # Errors --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _noised(self, pixels: Sequence[Tensor], texts: Sequence[str], draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        """Noised latents, timesteps, text and noise."""
        generator, device = self.generator, self.generator.device
        flipped = [each.flip(-1) if drawn.flip else each for each, drawn in zip(pixels, draws, strict=True)]
        levels = torch.stack(flipped).to(device) / 127.5 - 1
        noise, sampling = (
            torch.stack([getattr(drawn, name) for drawn in draws]).to(device) for name in ("noise", "sampling")
        )
        n_timesteps = generator.noising.config.num_train_timesteps
        timestep = torch.tensor([int(drawn.timestep * n_timesteps) for drawn in draws], device=device)
        latents = generator.encode(levels, sampling)
        return generator.noising.add_noise(latents, noise, timestep), timestep, generator.text(texts), noise

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out losses, and ``errors`` of each held-out picture, in each of ``CONDITIONS`` with the same noise."""
        rows, accelerator = self.evaluated, self.accelerator
        found = torch.zeros_like(self.errors)
        mine = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
        parts = [mine[cut : cut + self.pictures_at_once] for cut in range(0, len(mine), self.pictures_at_once)]
        for part, pixels in zip(parts, self.pictures.batches([rows[part] for part in parts]), strict=True):
            own = self.intensities[rows[part]]
            told = own, torch.full_like(own, torch.nan), self.intensities[self.others[part]]
            for number in range(HELD_OUT_DRAWS):
                draws = [self._held_out_draw(row, number) for row in rows[part]]
                *given, noise = self._noised(pixels, self.labelled.captions[rows[part]].tolist(), draws)
                errors = [squared_error(self.generator.predict(*given, each), noise) for each in told]
                found[:, part] += torch.stack(errors).cpu() / HELD_OUT_DRAWS
        self.errors = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        if not self.errors.isfinite().all():
            raise self.failed("A loss on held-out pictures")
        means = self.errors.mean(dim=1).tolist()
        return {f"held_out_loss_{name}": mean for name, mean in zip(CONDITIONS, means, strict=True)}

    def _held_out_draw(self, row: int, number: int) -> Draw:
        drawn = draw([self.options.seed, HELD_OUT, int(row), number], self.generator.shape)
        return replace(drawn, timestep=(number + drawn.timestep) / HELD_OUT_DRAWS, flip=False)

    def gains(self) -> dict[str, tuple[float, float]]:
        """By what share the held-out loss is lower with the AUs than otherwise, with half its 95 % interval.

        The interval is over pictures. Compared with null tokens the loss also falls if these are merely bad; compared
        with AUs of another picture it falls only if the adapter knows what the AUs mean.
        """
        own, *others = self.errors.numpy()
        found = {}
        for name, other in zip(CONDITIONS[1:], others, strict=True):
            gain = (other - own) / other.mean()
            half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else math.inf
            found[name] = float(gain.mean()), float(half)
        return found

    # Training ------------------------------------------------------------------------------------------------------

    def gradients(self, rows: np.ndarray, pixels: list[Tensor]) -> Tensor:
        """See ``SteppedTraining``."""
        options, first, loss = self.options, self.mine(self.options.batch_size).start, 0.0
        cuts = [slice(cut, cut + self.pictures_at_once) for cut in range(0, len(rows), self.pictures_at_once)]
        keys = [[options.seed, TRAINING, self.steps_done, first + place] for place in range(len(rows))]
        for cut in cuts:
            draws = [draw(key, self.generator.shape) for key in keys[cut]]
            if not options.flips:
                draws = [replace(each, flip=False) for each in draws]
            given = zip(draws, self.labelled.captions[rows[cut]].tolist(), strict=True)
            texts = ["" if drawn.empty < options.empty_texts else text for drawn, text in given]
            told = self.intensities[rows[cut]].clone()
            told[[torch.rand(1, generator=drawn.random).item() < options.dropped_units for drawn in draws]] = torch.nan
            *given, noise = self._noised(pixels[cut], texts, draws)
            errors = squared_error(self.generator.predict(*given, told, self.network), noise)
            self.backward(errors, len(rows), last=cut is cuts[-1])
            loss += errors.detach().sum().item()
        return torch.tensor([loss, len(rows)], dtype=torch.float64)

    def record(self, rate: float) -> None:
        """Evaluate, keep the adapter, make samples, and add a row to the log."""
        loss, n = self.sums.tolist()
        self.sums = np.zeros(2)
        row = {"step": self.steps_done, "loss": loss / n if n else math.nan} | self.evaluate()
        if self.leads:
            self._sample()
            self.log.append(row)
            write_table(pd.DataFrame(self.log), self.log_path)
            if self.steps_done:
                self.generator.save(self.adapter_path)
            own, null, others = (row[f"held_out_loss_{name}"] for name in CONDITIONS)
            said = f"held-out loss {own:.4f} with AUs, {null:.4f} with none told, {others:.4f} with others'"
            trained = f"loss {row['loss']:.4f}; {said}; {rate:.2f} pictures per second"
            print(f"step {self.steps_done}: {trained}" if self.steps_done else f"before: {said}", flush=True)
        self.kept_step = self.steps_done
        self.accelerator.wait_for_everyone()

    def _sample(self) -> None:
        """Write a sheet: a row an AU, which rises from left to right, once for each seed; rows have the same noise."""
        options, units = self.options, [int(unit) for unit in self.options.sample_units.split(",") if unit]
        if not units:
            return
        side, seeds = self.generator.resolution, range(options.seed, options.seed + SEEDS)
        rows = torch.zeros(len(units), SEEDS, len(SWEEP), len(ACTION_UNITS))
        for place, unit in enumerate(units):
            rows[place, :, :, ACTION_UNITS.index(unit)] = torch.tensor(SWEEP)
        rows, noise = rows.flatten(0, 2), [seed for _ in units for seed in seeds for _ in SWEEP]
        margin, gap, n_columns = max(24, side // 8), side // 8, SEEDS * len(SWEEP)
        size = 2 * margin + n_columns * side + (SEEDS - 1) * gap, margin + len(units) * side
        sheet = Image.new("RGB", size, "white")
        written = ImageDraw.Draw(sheet)
        for first in range(0, len(rows), self.pictures_at_once):
            part = slice(first, first + self.pictures_at_once)
            texts = [self.sample_text] * len(rows[part])
            made = sample(
                self.generator, texts, rows[part], noise[part], steps=options.sample_steps, scale=options.guidance
            )
            for place, picture in enumerate(made, first):
                row, column = divmod(place, n_columns)
                corner = 2 * margin + column * side + column // len(SWEEP) * gap, margin + row * side
                sheet.paste(Image.fromarray(picture), corner)
                written.text((2, corner[1] + side // 2), f"AU{units[row]}", "black", font_size=margin * 2 // 3)
                label = f"{SWEEP[column % len(SWEEP)]:g}"
                written.text((corner[0] + side // 2, 2), label, "black", font_size=margin * 2 // 3, anchor="mt")
        with replacing(self.folder / "samples" / f"step_{self.steps_done:06d}.png") as file:
            sheet.save(file, "png")


def _calm_text(pictures: LabelledPictures, rows: np.ndarray) -> str:
    """The caption of the calmest of some pictures; a caption that was made of its AUs does not tell them."""
    row = rows[np.argmin(np.nan_to_num(pictures.intensities[rows]).sum(axis=1))]
    text, expression = str(pictures.captions[row]), str(pictures.expressions[row])
    made = caption(pictures.intensities[row], expression)
    return caption([math.nan] * len(ACTION_UNITS), expression) if text == made else text
