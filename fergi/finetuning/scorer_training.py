"""Tuning of a scorer on preference pairs: steps, evaluation, log, and resuming.

AdamW, gradients clipped to length 1, a rate that rises over the first tenth of the steps and falls to 0 as a cosine.
The network stays in evaluation mode (no dropout), and the order of the pairs follows from seed and epoch, so the saved
state needs no random numbers: tuned values, the optimiser's state, the number of steps, and the scores before. A
resumed tuning gives what an uninterrupted one gives, on a CPU to the last bit.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from fergi.files import FergiError, check_writable, keep_settings, write_json, write_table
from fergi.finetuning.losses import LN_2, anchor_loss, logistic_loss, triplet_loss
from fergi.finetuning.pairs import TIE, PreferencePairs, PreparedPictures, Split
from fergi.preference.logistic import fit_slope
from fergi.scorers.adapters import ADAPTER_FILE, Tunable
from fergi.scorers.interface import Scorer
from fergi.weights import read_weights_file, save_weights

LOSSES = ("logistic", "triplet")
RESTART = "Pass --restart to begin anew, which deletes the earlier tuning's files."
WARM_UP = 0.1  # share of the steps
LONGEST_GRADIENT = 1.0
LEAST_SCALE = 0.05  # at the start: with 0 nothing would be learned of a taste that the scorer does not know
SCALE_RATE = 0.1  # highest learning rate of the logarithm of the loss's factor
STUCK = 1e-3  # a loss that is nearer to that of equal scores has learned nothing


def option(smallest: float, what: str) -> Any:
    """A field that is also an option of the script."""
    return field(metadata={"smallest": smallest, "what": what})


@dataclass(frozen=True)
class TuningSettings:
    """What the tuned values depend on, besides scorer and pairs; fields with metadata are the script's options."""

    train: str  # one of ``adapters.WAYS``
    loss: str  # one of ``LOSSES``
    lora_targets: str  # ends of names of modules, with commas between
    hard_labels: bool
    precision: str  # float32 or bfloat16, of the network's products; weights and losses are float32
    epochs: int = option(1, "passes over the pairs")
    batch_size: int = option(1, "pairs of a step")
    rate: float = option(0, "highest learning rate")
    weight_decay: float = option(0, "of AdamW")
    anchor: float = option(0, "weight of the squared distance to the scores before (0: none)")
    margin: float = option(0, "of the triplet loss")
    rank: int = option(1, "of the LoRA")
    alpha: int = option(1, "by which the LoRA is multiplied, divided by the rank")
    seed: int = option(0, "of new weights, order and split")


def learning_rate(step: int, n_steps: int, highest: float) -> float:
    """The rate of a step, counted from 0."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up))) / 2


@contextmanager
def explained(scorer: Scorer, advice: str = "Choose a smaller --pairs-at-once") -> Iterator[None]:
    """A lack of memory as one sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise FergiError(f"{scorer.name} does not fit into the memory of {scorer.device}. {advice}.") from error
    except RuntimeError as error:  # which PyTorch raises on a CPU
        if "can't allocate memory" not in str(error):
            raise
        raise FergiError(f"{scorer.name} does not fit into the memory of {scorer.device}. {advice}.") from error


class ScorerTuning:
    """One tuning.

    Parameters
    ----------
    scorer : Scorer
        Loaded; its network is tuned in place.
    pairs, split : PreferencePairs, Split
        Data.
    settings : dict
        For the adapter's file and ``keep_settings``: scorer, data and options, flat.
    folder : Path
        For adapter, settings, state and log.
    pairs_at_once : int
        Of each step's pairs that the network takes at once.
    workers : int
        Threads that decode pictures.
    state_every : int
        Steps from one saved state to the next; one is saved after every epoch anyway.
    """

    def __init__(
        self,
        scorer: Scorer,
        pairs: PreferencePairs,
        split: Split,
        options: TuningSettings,
        *,
        settings: dict[str, Any],
        folder: Path,
        pairs_at_once: int,
        workers: int,
        state_every: int,
    ) -> None:
        self.scorer, self.pairs, self.split, self.options = scorer, pairs, split, options
        self.settings, self.folder = settings, folder
        self.pairs_at_once, self.state_every = pairs_at_once, state_every
        table = pairs.table
        self.label = table["label"].to_numpy(float)
        # What is scored: each picture under each of its prompts.
        prompt = table["prompt"].to_numpy()
        keys = pd.MultiIndex.from_arrays([np.tile(prompt, 2), np.concatenate([table["first"], table["second"]])])
        numbers, self.items = pd.factorize(keys)
        self.sides = numbers.reshape(2, -1)
        self.pictures = PreparedPictures(pairs.pictures, scorer.pixels, workers=workers)
        self.before = torch.full((len(self.items),), float("nan"), dtype=torch.float64)  # scores
        self.after = self.before.clone()  # of the held-out pairs, after the last epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.tunable = Tunable(scorer, asdict(options))
        # The logarithm of a factor of the logits in the loss, as PickScore and HPS v2 train one: how far the labels can
        # be relied on. Without it labels that are often wrong would be learned by making all scores alike.
        self.scale = torch.zeros((), dtype=torch.float64, device=scorer.device, requires_grad=True)
        groups = [{"params": list(self.tunable.parameters.values())}, {"params": [self.scale], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        self.epochs_done = self.steps_done = 0
        self.sums = np.zeros(4)  # of this epoch: loss of preferences, anchor, correct, pairs with a preference
        self.log: list[dict[str, Any]] = []
        self.warned = False
        self.state_path, self.settings_path = folder / "last_training_state.pth", folder / "settings.json"
        self.log_path, self.last_path = folder / "training_log.csv", folder / "last_epoch" / ADAPTER_FILE

    # Scores --------------------------------------------------------------------------------------------------------

    def _compute(self, items: np.ndarray, pixels: list[Tensor]) -> Tensor:
        device, precision = self.scorer.device, getattr(torch, self.options.precision)
        prompts = [self.items[item][0] for item in items]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return self.scorer.compute(prompts, torch.stack(pixels).to(device)).double()

    def _item_pictures(self, items: np.ndarray) -> np.ndarray:
        return np.array([self.items[item][1] for item in items])

    def scores(self, items: np.ndarray, title: str) -> Tensor:
        """Scores of items as the network is now, on the CPU; FergiError if one is not finite."""
        cuts = range(0, len(items), 2 * self.pairs_at_once)
        parts = [items[cut : cut + 2 * self.pairs_at_once] for cut in cuts]
        found = []
        shown = tqdm(total=len(items), desc=title, unit=" pictures", disable=None, leave=False)
        with shown, torch.no_grad(), explained(self.scorer):
            for part, pixels in zip(parts, self.pictures.batches([*map(self._item_pictures, parts)]), strict=True):
                found.append(self._compute(part, pixels).cpu())
                shown.update(len(part))
        scores = torch.cat(found)
        if not scores.isfinite().all():
            raise self._failed("A score")
        return scores

    def _failed(self, what: str) -> FergiError:
        kept = (
            f"The adapter of epoch {self.epochs_done} is kept in {self.last_path.parent}. " if self.epochs_done else ""
        )
        return FergiError(
            f"{what} is not a finite number in epoch {self.epochs_done + 1}, step {self.steps_done + 1}: tuning has "
            f"failed. {kept}Lower --rate, and pass --restart."
        )

    # Resuming ------------------------------------------------------------------------------------------------------

    def resume(self, restart: bool) -> None:
        """Load the saved state, if there is one.

        Raises
        ------
        FergiError
            If it is of other settings, pairs or weights, or there is an adapter without a state.
        """
        check_writable(self.folder, "--out")
        adapter = self.folder / ADAPTER_FILE
        if restart:
            for path in (self.state_path, self.settings_path, self.log_path, self.last_path, adapter):
                path.unlink(missing_ok=True)
        if not (self.state_path.exists() and self.settings_path.exists()):
            if left := [path for path in (adapter, self.last_path, self.state_path) if path.exists()]:
                raise FergiError(
                    f"{left[0]} is there, but not both {self.state_path.name} and {self.settings_path.name} of its "
                    "tuning, so that it cannot be resumed. Move it away, choose another --name, or pass --restart."
                )
            return
        keep_settings(self.settings, self.settings_path, f"Repeat its settings to resume. {RESTART}")
        state = read_weights_file(self.state_path, RESTART)
        self.tunable.load(state["tuned"], self.state_path)
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.scale.copy_(state["scale"])
        self.epochs_done, self.steps_done, self.log = state["epochs_done"], state["steps_done"], state["log"]
        self.sums, self.before, self.after = state["sums"].numpy(), state["before"], state["after"]

    def save_state(self) -> None:
        """Write the state to resume from."""
        state = {"tuned": self.tunable.tensors(), "optimizer": self.optimizer.state_dict(), "log": self.log}
        state["scale"] = self.scale.detach()
        state |= {"epochs_done": self.epochs_done, "steps_done": self.steps_done, "sums": torch.from_numpy(self.sums)}
        save_weights(state | {"before": self.before, "after": self.after}, self.state_path)

    # Training ------------------------------------------------------------------------------------------------------

    def order(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, counted from 0: rows of the pairs' table."""
        order = np.random.default_rng([self.options.seed, epoch]).permutation(self.split.training)
        return [order[cut : cut + self.options.batch_size] for cut in range(0, len(order), self.options.batch_size)]

    def losses(self, first: Tensor, second: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Loss of preferences and anchor of each pair, from its scores (float64, on their device)."""
        label = torch.from_numpy(self.label[rows]).to(first.device)
        before = (self.before[torch.from_numpy(self.sides[side][rows])].to(first.device) for side in (0, 1))
        logits = [self.scorer.logits(scores) for scores in (first, second)]
        if self.options.loss == "logistic":
            loss = logistic_loss(self.scale.exp() * (logits[0] - logits[1]), label)
        else:
            cosines = (self.scorer.cosines(scores) for scores in (first, second))
            loss = triplet_loss(*cosines, label, self.options.margin)
        with torch.no_grad():
            logits_before = [self.scorer.logits(scores) for scores in before]
        return loss, anchor_loss(*logits, *logits_before)

    def step(self, rows: np.ndarray, pixels: list[Tensor]) -> None:
        """One step of the optimiser on a batch; ``pixels`` are of all first and then of all second pictures."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = np.zeros(4)
        for cut in range(0, len(rows), self.pairs_at_once):
            part = slice(cut, cut + self.pairs_at_once)
            both = pixels[: len(rows)][part] + pixels[len(rows) :][part]
            scores = self._compute(np.concatenate([side[rows[part]] for side in self.sides]), both)
            first, second = scores.chunk(2)
            loss, anchor = self.losses(first, second, rows[part])
            total = (loss + self.options.anchor * anchor).sum() / len(rows)
            if total.requires_grad:  # else nothing is reached, which is said below
                total.backward()
            right, decided = count_right(first.detach() - second.detach(), self.label[rows[part]])
            sums += loss.sum().item(), anchor.sum().item(), right.sum(), decided.sum()
        if not np.isfinite(sums).all():
            raise self._failed("The loss")
        if self.epochs_done == self.steps_done == 0:
            self.tunable.check_gradients()
        parameters = list(self.tunable.parameters.values())
        torch.nn.utils.clip_grad_norm_(parameters, LONGEST_GRADIENT)
        n_batches = math.ceil(len(self.split.training) / self.options.batch_size)
        step, n_steps = self.epochs_done * n_batches + self.steps_done, self.options.epochs * n_batches
        for group, highest in zip(self.optimizer.param_groups, (self.options.rate, SCALE_RATE), strict=True):
            group["lr"] = learning_rate(step, n_steps, highest)
        self.optimizer.step()
        self.tunable.limit_scale()
        self.sums += sums
        self.steps_done += 1

    def run(self) -> None:
        """Score with the scorer as it was, unless that is done, and tune for the epochs that remain."""
        if not self.log:
            self.before = self.scores(np.arange(len(self.items)), f"{self.scorer.name} before")
            self.after = self.before.clone()
            self._start_scale()
            self.log.append(self._row(math.nan, math.nan, math.nan))
            versions = {package: version(package) for package in ("torch", "peft")}
            write_json(self.settings | versions, self.settings_path)
            self.save_state()
            self.show(self.log[-1], "")
        while self.epochs_done < self.options.epochs:
            begun, before = time.perf_counter(), self.steps_done
            self._train_epoch()
            n = len(self.split.training) - before * self.options.batch_size
            self._finish_epoch(n / (time.perf_counter() - begun))

    def _start_scale(self) -> None:
        """Let the loss's factor begin where the scores before fit the training labels best, from 1/20 to 1."""
        rows = self.split.training[self.label[self.split.training] != TIE]
        with torch.no_grad():
            scores = (self.before[torch.from_numpy(side[rows])].to(self.scorer.device) for side in self.sides)
            first, second = (self.scorer.logits(each).cpu().numpy() for each in scores)
            slope = fit_slope(np.sign(self.label[rows] - TIE) * (first - second))
            self.scale.fill_(math.log(min(1.0, max(LEAST_SCALE, slope))))

    def _train_epoch(self) -> None:
        batches = self.order(self.epochs_done)[self.steps_done :]
        shown = tqdm(
            total=len(self.split.training),
            initial=self.steps_done * self.options.batch_size,
            desc=f"epoch {self.epochs_done + 1} of {self.options.epochs}",
            unit=" pairs",
            disable=None,
            leave=False,
        )
        pictures = [self._item_pictures(self.sides[:, rows].ravel()) for rows in batches]
        with shown, explained(self.scorer):
            for rows, pixels in zip(batches, self.pictures.batches(pictures), strict=True):
                self.step(rows, pixels)
                shown.update(len(rows))
                if self.steps_done % self.state_every == 0:
                    self.save_state()

    def _finish_epoch(self, rate: float) -> None:
        """Evaluate, and write adapter, log and state."""
        n = len(self.split.training)
        items = np.unique(self.sides[:, self.split.held_out])
        self.after[torch.from_numpy(items)] = self.scores(items, "held-out pairs")
        loss, anchor, right, decided = self.sums
        self.epochs_done, self.steps_done, self.sums = self.epochs_done + 1, 0, np.zeros(4)
        self.log.append(self._row(loss / n, anchor / n, 100 * right / decided))
        self.last_path.parent.mkdir(exist_ok=True)
        self.tunable.save(self.last_path, self.settings)
        write_table(pd.DataFrame(self.log), self.log_path)
        self.save_state()
        self.show(self.log[-1], f", {rate:.1f} pairs per second")
        equal = LN_2 * (self.label[self.split.training] != TIE).mean()
        if self.options.loss == "logistic" and abs(loss / n - equal) < STUCK and not self.warned:
            self.warned = True
            print(
                f"Warning: the loss stays at {equal:.4f}, that of equal scores (ln 2, if no pair is a tie). Either the "
                f"labels tell nothing about the pictures, or {self.scorer.name} gives both pictures of a pair nearly "
                "the same score: look at the labels, choose a higher --rate, or other weights to start from."
            )

    def _row(self, loss: float, anchor: float, accuracy: float) -> dict[str, Any]:
        """The log's row of the epoch that ended; the losses and the accuracy are of the training pairs."""
        rows = self.split.held_out
        first, second = (self.after[torch.from_numpy(self.sides[side][rows])] for side in (0, 1))
        with torch.no_grad():
            device = self.scorer.device
            held_out, _ = (each.cpu() for each in self.losses(first.to(device), second.to(device), rows))
        right, decided = count_right(first - second, self.label[rows])
        row = {"loss": loss, "anchor": anchor, "accuracy": accuracy}
        row |= {"held_out_loss": held_out.mean(), "held_out_accuracy": 100 * right.sum() / decided.sum()}
        row["held_out_mean_score"] = torch.cat([first, second]).mean()
        return {"epoch": self.epochs_done} | {name: float(value) for name, value in row.items()}

    def show(self, row: dict[str, Any], rate: str) -> None:
        """A row of the log for the terminal."""
        held_out = f"held-out loss {row['held_out_loss']:.4f}, {row['held_out_accuracy']:.2f} % right"
        trained = f"loss {row['loss']:.4f}, anchor {row['anchor']:.4f}, {row['accuracy']:.2f} % right; "
        title = f"epoch {row['epoch']}: {trained}" if row["epoch"] else "before: "
        print(f"{title}{held_out}{rate}", flush=True)


def count_right(difference: Tensor, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a score agrees with each pair's label, and whether the label prefers one; equal scores do not agree."""
    decided = label != TIE
    return decided & (np.sign(difference.cpu().numpy()) == np.sign(label - TIE)), decided
