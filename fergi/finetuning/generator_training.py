"""Tuning of a generator on preferences: losses, evaluation, samples and log; the rest is ``SteppedTraining``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fergi.files import replacing, write_table
from fergi.finetuning.generator import ADAPTER_FILE, Draw, Generator, Noised, draw
from fergi.finetuning.generator_losses import dpo_loss, dpo_margin, kto_divergence, kto_loss, refl_loss
from fergi.finetuning.generator_rewards import EARLIEST, STEPS, Reward, rewards_of_new
from fergi.finetuning.losses import LN_2
from fergi.finetuning.pairs import PreferencePairs, PreparedPictures, Split
from fergi.finetuning.scorer_training import (
    STUCK,
    count_right,
    option,
)
from fergi.finetuning.stepped_training import SteppedTraining

if TYPE_CHECKING:
    from accelerate import Accelerator

LOSSES = ("dpo", "kto", "refl")
AT_START = {"dpo": LN_2, "kto": 0.5}  # the loss of a model that has not moved
LARGEST_ERROR = 1.5  # on held-out pictures, times the reference's: beyond it the pictures fall apart
HELD_OUT_DRAWS = 4  # of noise for each held-out pair, with timesteps spread evenly
SEEDS = 4  # samples of a prompt
ADVICE = "Choose a smaller --pairs-at-once, or pass --checkpointing"
TRAINING, HELD_OUT, CHOICE, LAST_STEP = range(4)  # kinds of draws


@dataclass(frozen=True)
class GeneratorSettings:
    """What the tuned values depend on, besides generator and pairs; fields with metadata are the script's options."""

    loss: str  # one of ``LOSSES``
    lora_targets: str  # ends of names of modules, with commas between
    hard_labels: bool
    precision: str  # float32 or bfloat16, of what is not tuned; the LoRA and the losses are in higher precision
    resolution: int
    steps: int = option(1, "of the optimiser")
    batch_size: int = option(1, "pairs of a step, or pictures, over all processes")
    rate: float = option(0, "highest learning rate")
    weight_decay: float = option(0, "of AdamW")
    beta: float = option(0, "how strongly the tuned model is held to the one before")
    rank: int = option(1, "of the LoRA")
    alpha: int = option(1, "by which the LoRA is multiplied, divided by the rank")
    empty_prompts: float = option(0, "share of prompts that are left empty in training")
    liked_share: float = option(0, "share of liked pictures in training with --loss kto")
    evaluate_every: int = option(1, "steps from one evaluation to the next")
    evaluated_pairs: int = option(1, "of the held-out pairs that are evaluated, at most")
    sample_prompts: int = option(0, "prompts of the samples that are made at each evaluation")
    sample_steps: int = option(1, "denoising steps of a sample")
    guidance: float = option(0, "scale of the samples' guidance")
    seed: int = option(0, "of new weights, draws, split and samples")


class GeneratorTuning(SteppedTraining):
    """One tuning.

    Parameters
    ----------
    generator : Generator
        Loaded; its LoRA is tuned in place.
    pairs, split : PreferencePairs, Split
        Data; for ``kto`` pairs of a picture with itself, whose label says whether it is liked.
    settings : dict
        For ``keep_settings``: generator, data and options, flat.
    folder : Path
        For adapter, settings, state, log and samples; the same for all processes.
    reward : Reward or None
        For ``refl``.
    pairs_at_once : int
        Of each step's pairs that the network of one process takes at once.
    workers : int
        Threads that decode pictures.
    state_every : int
        Steps from one saved state to the next; one is saved at each evaluation anyway.
    """

    kept = ("margins",)
    packages = ("torch", "diffusers", "peft", "accelerate")
    advice = ADVICE

    def __init__(
        self,
        generator: Generator,
        pairs: PreferencePairs,
        split: Split,
        options: GeneratorSettings,
        accelerator: "Accelerator",
        *,
        settings: dict[str, Any],
        folder: Path,
        reward: Reward | None,
        pairs_at_once: int,
        workers: int,
        state_every: int,
    ) -> None:
        more = {"settings": settings, "folder": folder, "state_every": state_every}
        # Sums: loss, reward, right, ties, with a preference, all.
        super().__init__(generator, options, accelerator, adapter_file=ADAPTER_FILE, n_sums=6, **more)
        self.pairs, self.split, self.reward, self.pairs_at_once = pairs, split, reward, pairs_at_once
        self.paired = options.loss != "kto"
        self.sides = ["first", "second"] if self.paired else ["first"]
        self.prompts, self.label = pairs.table["prompt"].to_numpy(), pairs.table["label"].to_numpy(float)
        self.rows = self._order()
        self.pictures = PreparedPictures(pairs.pictures, generator.prepare, workers=workers)
        random = np.random.default_rng([options.seed, CHOICE])
        self.evaluated = np.sort(random.permutation(split.held_out)[: options.evaluated_pairs])
        self.sampled = list(dict.fromkeys(self.prompts[self.evaluated]))[: options.sample_prompts]
        self.margins = torch.zeros(len(self.evaluated), dtype=torch.float64)  # of the adapter that is kept
        self.warned = False

    def take(self, values: Mapping[str, Tensor], source: Path) -> None:
        """As ``Generator.load``."""
        self.generator.load(values, source)

    def _order(self) -> np.ndarray:
        """The pairs of every step, shape (steps, batch): rows of the table, each once before any comes again."""
        options, rows = self.options, self.split.training
        n, random = options.steps * options.batch_size, np.random.default_rng([options.seed, TRAINING])
        kinds = [rows] if self.paired else [rows[self.label[rows] == 0], rows[self.label[rows] == 1]]
        kind = np.zeros(n, int) if self.paired else (random.random(n) < options.liked_share).astype(int)
        order = np.empty(n, int)
        for number, members in enumerate(kinds):
            places = np.flatnonzero(kind == number)
            n_passes = math.ceil(len(places) / max(1, len(members)))
            passes = [random.permutation(members) for _ in range(n_passes)]
            order[places] = np.concatenate([np.empty(0, int), *passes])[: len(places)]
        return order.reshape(options.steps, options.batch_size)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """The pictures of pairs: all first, then all second; none for a reward, which looks at new ones."""
        return np.empty(0, int) if self.reward else self._places(rows)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        return self.pairs.table[self.sides].to_numpy()[rows].T.ravel()

    # Preferences of the model --------------------------------------------------------------------------------------

    def _noised(self, rows: np.ndarray, pixels: Sequence[Tensor], draws: Sequence[Draw], share: float) -> Noised:
        """Both pictures of a pair get the same draw."""
        prompts = [
            "" if drawn.empty < share else prompt for prompt, drawn in zip(self.prompts[rows], draws, strict=True)
        ]
        with self.accelerator.autocast():
            return self.generator.noised(pixels, prompts * len(self.sides), [*draws] * len(self.sides))

    def _margins(self, noised: Noised, error: Tensor) -> Tensor:
        """The logits with which the model prefers the first picture, or likes the picture."""
        if not self.paired:
            return self.options.beta * (noised.reference - error)
        return dpo_margin(*error.chunk(2), *noised.reference.chunk(2), self.options.beta)

    def _losses(self, margin: Tensor, label: Tensor, divergence: Tensor) -> Tensor:
        """The loss of each pair or picture; ``divergence`` is on the scale of the margins."""
        return dpo_loss(margin, label) if self.paired else kto_loss(margin, label > 0.5, divergence, 1.0)

    def _error(self, noised: Noised, network: torch.nn.Module | None = None) -> Tensor:
        with self.accelerator.autocast():
            return self.generator.error(noised, network)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss, implicit accuracy, and error beside the reference's on held-out pairs; ``margins`` of all of them."""
        rows, accelerator = self.evaluated, self.accelerator
        found = torch.zeros(3, len(rows), dtype=torch.float64)  # margin, error, error of the reference
        mine = np.arange(len(rows))[accelerator.process_index :: accelerator.num_processes]
        parts = [mine[cut : cut + self.pairs_at_once] for cut in range(0, len(mine), self.pairs_at_once)]
        pictures = self.pictures.batches([self._places(rows[part]) for part in parts])
        for part, pixels in zip(parts, pictures, strict=True):
            for number in range(HELD_OUT_DRAWS):
                noised = self._noised(rows[part], pixels, [self._held_out_draw(row, number) for row in rows[part]], 0)
                error = self._error(noised)
                values = [self._margins(noised, error)]
                values += [each.view(len(self.sides), -1).mean(0) for each in (error, noised.reference)]
                found[:, part] += torch.stack(values).cpu() / HELD_OUT_DRAWS
        found = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        if not found.isfinite().all():
            raise self.failed("An error on held-out pictures")
        margin, label = found[0], torch.from_numpy(self.label[rows])
        right, ties, decided = count_preferences(margin, self.label[rows])
        loss = self._losses(margin, label, kto_divergence(margin)).mean()
        row = {"held_out_loss": loss, "held_out_right": 100 * right / decided, "held_out_ties": 100 * ties / decided}
        row |= {"held_out_error": found[1].mean(), "reference_error": found[2].mean()}
        row["error_ratio"] = found[1].mean() / found[2].mean()
        self.latest = margin
        return {name: float(value) for name, value in row.items()}

    def _held_out_draw(self, row: int, number: int) -> Draw:
        drawn = draw([self.options.seed, HELD_OUT, int(row), number], self.generator.shape)
        timestep = (number + drawn.timestep) / HELD_OUT_DRAWS
        return Draw(timestep, False, 1.0, drawn.noise, drawn.sampling, drawn.random)

    # Training ------------------------------------------------------------------------------------------------------

    def gradients(self, rows: np.ndarray, pixels: list[Tensor]) -> Tensor:
        """See ``SteppedTraining``."""
        first = self.mine(self.options.batch_size).start
        keys = [[self.options.seed, TRAINING, self.steps_done, first + place] for place in range(len(rows))]
        draws = [draw(key, self.generator.shape) for key in keys]
        sums = (self._add_rewards if self.reward else self._add_preferences)(rows, pixels, draws)
        if self.steps_done == 0 and sums.isfinite().all():
            self.generator.check_gradients()
        return sums

    def _add_preferences(self, rows: np.ndarray, pixels: list[Tensor], draws: list[Draw]) -> Tensor:
        """Gradients of Diffusion-DPO's or Diffusion-KTO's loss; what is added to ``sums``."""
        cuts = [slice(cut, cut + self.pairs_at_once) for cut in range(0, len(rows), self.pairs_at_once)]
        sides = [pixels[cut : cut + len(rows)] for cut in range(0, len(pixels), len(rows))]
        parts = []
        for cut in cuts:
            both = [picture for side in sides for picture in side[cut]]
            parts.append(self._noised(rows[cut], both, draws[cut], self.options.empty_prompts))
        divergence = torch.zeros(())
        if not self.paired:  # of the whole batch, so one pass more
            with torch.no_grad():
                gains = torch.cat([self._margins(part, self._error(part)) for part in parts])
            divergence = self.accelerator.reduce(gains.mean(), "mean").clamp(min=0)
        sums = torch.zeros(6, dtype=torch.float64)
        for cut, part in zip(cuts, parts, strict=True):
            margin = self._margins(part, self._error(part, self.network))
            label = self.label[rows[cut]]
            loss = self._losses(margin, torch.from_numpy(label).to(margin.device), divergence)
            self.backward(loss, len(rows), last=cut is cuts[-1])
            right, ties, decided = count_preferences(margin.detach(), label)
            sums += torch.tensor([loss.sum().item(), 0, right, ties, decided, len(label)], dtype=torch.float64)
        return sums

    def _add_rewards(self, rows: np.ndarray, _: list[Tensor], draws: list[Draw]) -> Tensor:
        """Gradients of ReFL's loss on new pictures of the pairs' prompts; what is added to ``sums``."""
        last = int(np.random.default_rng([self.options.seed, LAST_STEP, self.steps_done]).integers(EARLIEST, STEPS))
        sums = torch.zeros(6, dtype=torch.float64)
        for cut in range(0, len(rows), self.pairs_at_once):
            part = slice(cut, cut + self.pairs_at_once)
            prompts = list(self.prompts[rows[part]])
            with self.accelerator.autocast():
                rewards = rewards_of_new(self.generator, self.network, self.reward, prompts, draws[part], last)
            loss = refl_loss(rewards)
            self.backward(loss, len(rows), last=cut + self.pairs_at_once >= len(rows))
            sums += torch.tensor([loss.sum().item(), rewards.sum().item(), 0, 0, 0, len(prompts)], dtype=torch.float64)
        return sums

    def record(self, rate: float) -> None:
        """Evaluate, keep the adapter if it is whole, make samples, and add a row to the log."""
        loss, reward, right, ties, decided, n = self.sums.tolist()
        self.sums = np.zeros(6)
        trained = [loss / n, reward / n if self.reward else math.nan] if n else [math.nan] * 2
        trained += [100 * right / decided, 100 * ties / decided] if decided else [math.nan] * 2
        row = {"step": self.steps_done} | dict(zip(("loss", "reward", "right", "ties"), trained, strict=True))
        row |= self.evaluate()
        self.stopped = row["error_ratio"] > LARGEST_ERROR
        if self.leads:
            row["sample_reward"] = self._samples()
            self.log.append(row)
            write_table(pd.DataFrame(self.log), self.log_path)
            if self.steps_done and not self.stopped:
                self.generator.save(self.adapter_path)
        if not self.stopped:
            self.kept_step, self.margins = self.steps_done, self.latest
        if self.leads:
            self._show(row, rate)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _samples(self) -> float:
        """Write a grid, a prompt a line, with the same seeds every time; gives the mean reward, or NaN without one."""
        from diffusers.utils import make_image_grid

        if not self.sampled:
            return math.nan
        options, seeds = self.options, range(self.options.seed, self.options.seed + SEEDS)
        made, rewards = [], []
        for prompt in self.sampled:
            pictures = self.generator.samples(prompt, seeds, options.sample_steps, options.guidance)
            made += pictures
            if self.reward:
                rewards += self.reward.standardised(self.reward.scorer.score([prompt] * SEEDS, pictures)).tolist()
        with replacing(self.folder / "samples" / "prompts.txt") as file:
            file.write("".join(f"{' '.join(prompt.split())}\n" for prompt in self.sampled).encode())
        with replacing(self.folder / "samples" / f"step_{self.steps_done:06d}.png") as file:
            make_image_grid(made, len(self.sampled), SEEDS).save(file, "png")
        return float(np.mean(rewards)) if rewards else math.nan

    def _show(self, row: dict[str, Any], rate: float) -> None:
        """A row of the log for the terminal."""
        said = f"held-out error {row['error_ratio']:.3f} times the reference's"
        if self.steps_done:
            said = f"held-out pairs {row['held_out_right']:.2f} % right, {row['held_out_ties']:.2f} % ties; {said}"
            reward = f", reward {row['reward']:.3f}" if self.reward else ""
            said = f"loss {row['loss']:.4f}{reward}; {said}, {rate:.2f} pairs per second"
        print(f"step {row['step']}: {said}" if self.steps_done else f"before: {said}", flush=True)
        equal = AT_START.get(self.options.loss)
        if self.steps_done > 1 and equal is not None and abs(row["loss"] - equal) < STUCK and not self.warned:
            self.warned = True
            print(
                f"Warning: the loss stays at {equal:.4f}, that of a model that has not moved: the labels tell little, "
                "or --rate is too low. A β that is too high holds the model back, too."
            )


def count_preferences(margin: Tensor, label: np.ndarray) -> tuple[int, int, int]:
    """Of the pairs with a preference: how many the model orders as their labels do, how many not at all, and all."""
    right, decided = count_right(margin, label)
    return int(right.sum()), int((decided & (margin.cpu().numpy() == 0)).sum()), int(decided.sum())
