"""Do synthesised faces show the AUs and moods that were asked for? A small face generator on drawn faces, and controls.

Reads   nothing: faces are drawn, a small base model is trained on them first (kept in --base DIR, if that is given)
Writes  with --sheets DIR: face_sweeps.jpg, face_guidance.jpg, and every number of the tables in face_benchmark.csv
Run     python -m benchmarks.faces
        python -m benchmarks.faces --base DIR --seeds 0 --parts asked sweeps
Takes   28 CPU-minutes in two processes, measured on loaded cores: about a quarter of an hour on two; 2 GB each.

Three drawn people are enough for a small base model to learn what its captions say. Each seed trains an AU adapter on
them (train_face_generator.py), and has unseen expressions and noise of its own. A judge reads the pictures: a small
network that was trained on sixty other drawn people, and guided nothing. The tables show
asked       AUs asked for against AUs read, by text alone (λ = 0) and with AUs; captions name a mood, and moods have AUs
sweeps      one AU from 0 to 5 with the same noise and text; the others are told as a calm face has them
guidance    the mood of pictures whose text is moved by a network that was trained on the three people
correction  labels of which a fifth is spoilt, before and after; the pseudo-label generator learned right or such labels
held out    stage 3 on few drawn faces of the three people, on these and synthesised ones, and on many, judged by what
            it reads on people whom neither it nor the generator knows
All drawn: nothing here speaks of photographs.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

import config
from fergi.action_units.network import intensities as intensities_of
from fergi.action_units.network import load_network, network_input
from fergi.dataset import Folders
from fergi.face_generation.correction import correct
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.guidance import Guidance
from fergi.face_generation.pseudo_labels import FaceFeatures, HeadSettings, train_head
from fergi.face_generation.sampling import sample
from fergi.face_generation.small_base import make_small_base
from fergi.features import ACTION_UNITS
from fergi.files import read_json, replacing, write_json, write_table
from fergi.script import run
from synthetic.cohort import stream
from synthetic.portraits import MOODS, caption, draw_portraits, person, portraits, random_expression

PEOPLE, N_PICTURES = range(3), 800  # of the generator; pictures of each
JUDGE_PEOPLE, JUDGE_PICTURES = range(100, 160), 60
UNKNOWN, UNKNOWN_PICTURES = range(200, 220), 15  # people whom nothing is trained on
ADAPTER_STEPS = 700
SAMPLING = {"steps": 20, "scale": 3.0}
N_ASKED, N_SWEPT, N_FLAT, N_GUIDED = 128, 24, 4, 64  # pictures of each seed
SWEPT = {1: "happy", 4: "happy", 26: "happy", 12: "angry"}  # AU → a mood without it; AU12 is not promised
PROMISED, RISING = (1, 4, 26), 0.75
LEVELS = (0, 1, 2, 3, 4, 5)
GUIDANCE = 0.5, 0.4  # λ, and the share of steps before it
N_CORRECTED, SPOILT = 600, 0.2  # pictures whose labels are corrected, and as many for the head; share of the labels
HEAD = config.LABEL_HEAD | {"steps": 400}
ARMS = {"few": (40, 0), "few and synthesised": (40, 160), "many": (200, 0)}  # of each person: drawn, synthesised
STAGE_3_STEPS, STAGE_3_BATCH, STAGE_3_SIDE = 180, 16, 112
PARTS = ("asked", "sweeps", "guidance", "correction", "held out")
UNITS = [f"AU{unit}" for unit in ACTION_UNITS]
RESAMPLES = 1000
Row = dict[str, Any]


def row(part: str, how: str, what: str, value: float, **more: float) -> Row:
    """One number of the results."""
    return {"part": part, "how": how, "what": what, "value": float(value)} | more


# Readers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Drawn faces: pixels (uint8, n × 3 × 64 × 64), intensities (n × 12), places of moods, captions."""

    pixels: Tensor
    intensities: Tensor
    moods: Tensor
    captions: list[str]

    @classmethod
    def of(cls, people: Sequence[int], n: int, seed: int) -> "Drawn":
        """So many pictures of each person."""
        drawn = list(portraits(people, n, seed))
        pixels = torch.from_numpy(np.stack([each.picture for each in drawn])).permute(0, 3, 1, 2)
        intensities = torch.tensor(np.stack([each.intensities for each in drawn]), dtype=torch.float32)
        moods = torch.tensor([list(MOODS).index(each.mood) for each in drawn])
        return cls(pixels, intensities, moods, [each.caption for each in drawn])


class Reader(nn.Module):
    """A small network that reads intensities (n, 12) and logits of moods (n, 4) in pictures, −1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 96, 96), []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.BatchNorm2d(after), nn.ReLU()]
        ends = nn.Linear(96 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, len(ACTION_UNITS) + len(MOODS))
        self.layers = nn.Sequential(*layers, nn.Flatten(), *ends)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        intensities, moods = self.layers(pixels).split([len(ACTION_UNITS), len(MOODS)], dim=1)
        return 5 * intensities, moods

    @torch.no_grad()
    def read(self, pictures: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Intensities and moods (places) of uint8 pictures, channels last or first."""
        pixels = torch.as_tensor(pictures)
        pixels = pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)
        found = [self(part / 127.5 - 1) for part in pixels.split(256)]
        intensities, moods = (torch.cat(part) for part in zip(*found, strict=True))
        return intensities.numpy(), moods.argmax(dim=1).numpy()


def trained_reader(drawn: Drawn, seed: int, epochs: int = 8, batch: int = 64, rate: float = 3e-3) -> Reader:
    """Squared error of the intensities and cross-entropy of the moods; pictures are shifted, tinted and noised."""
    torch.manual_seed(seed)
    reader, n = Reader(), len(drawn.pixels)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * (n // batch))
    for _ in range(epochs):
        for rows in torch.randperm(n)[: n // batch * batch].split(batch):
            pixels = functional.pad(drawn.pixels[rows] / 127.5 - 1, (2, 2, 2, 2), mode="replicate")
            down, right = torch.randint(5, (2,)).tolist()
            pixels = pixels[..., down : down + 64, right : right + 64]
            pixels = pixels * (1 + 0.1 * torch.randn(batch, 1, 1, 1)) + 0.1 * torch.randn(batch, 3, 1, 1)
            intensities, moods = reader(pixels + 0.05 * torch.randn_like(pixels))
            loss = 0.4 * functional.mse_loss(intensities, drawn.intensities[rows])
            loss = loss + functional.cross_entropy(moods, drawn.moods[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return reader.eval().requires_grad_(False)


def make_readers(root: Path) -> list[Row]:
    """Write judge and guide; the rows say how well they read drawn expressions that they do not know."""
    unseen = {"the generator's people": Drawn.of(PEOPLE, 100, 12), "others": Drawn.of(UNKNOWN, UNKNOWN_PICTURES, 13)}
    rows = []
    for name, people, n, seed in (("judge", JUDGE_PEOPLE, JUDGE_PICTURES, 10), ("guide", PEOPLE, N_PICTURES, 11)):
        trained = trained_reader(Drawn.of(people, n, seed), seed)
        torch.save(trained.state_dict(), root / f"{name}.pth")
        for whose, drawn in unseen.items():
            read, moods = trained.read(drawn.pixels)
            how = f"{name}, {whose}"
            rows.append(row("readers", how, "mood right", (moods == drawn.moods.numpy()).mean()))
            found = zip(UNITS, correlations(drawn.intensities.numpy(), read), strict=True)
            rows += [row("readers", how, name, r) for name, r in found]
    return rows


def reader(root: Path, name: str) -> Reader:
    """One that ``make_readers`` wrote."""
    network = Reader()
    network.load_state_dict(torch.load(root / f"{name}.pth", weights_only=True))
    return network.eval().requires_grad_(False)


def correlations(asked: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Pearson's r of each AU, shape (12,)."""
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(asked.T, read.T, strict=True)])


# The parts, each of one seed ---------------------------------------------------------------------------------------


def make_base(folder: Path) -> list[Row]:
    """Write the small base model, unless it is there with the same settings."""
    settings, path = {"people": list(PEOPLE), "pictures": N_PICTURES}, folder / "drawn.json"
    if not path.is_file() or read_json(path, "Delete the folder.") != settings:
        drawn = Drawn.of(PEOPLE, N_PICTURES, 1)
        make_small_base(folder, drawn.pixels.permute(0, 2, 3, 1).numpy(), drawn.captions, 0)
        write_json(settings, path)
    return []


def make_adapter(root: Path, base: Path, seed: int) -> None:
    """Train an adapter with train_face_generator.py."""
    import train_face_generator

    given = f"--pipeline {base} --faces {root / 'faces'} --steps {ADAPTER_STEPS} --seed {seed} --name seed{seed}"
    given += f" --root {root} --batch-size 64 --pictures-at-once 64 --rate 2e-3 --evaluated-pictures 32"
    given += f" --evaluate-every {ADAPTER_STEPS} --sample-units --state-every {ADAPTER_STEPS} --workers 1 --device cpu"
    with contextlib.redirect_stdout(io.StringIO()):
        train_face_generator.main(given.split())


class Bench:
    """A seed's generator, what it is asked for, and the judge."""

    def __init__(self, root: Path, base: Path, seed: int) -> None:
        adapter = root / "face_generators" / f"seed{seed}" / "au_adapter.safetensors"
        self.generator, self.seed, self.root = FaceGenerator(str(base), "cpu", adapter=adapter), seed, root
        self.judge, self.guide = reader(root, "judge"), reader(root, "guide")

    def asked(self, n: int, purpose: str) -> tuple[list[str], Tensor, np.ndarray]:
        """Captions, intensities and moods (places) of expressions that are not those of the training."""
        random = stream(self.seed, "benchmark", purpose)
        drawn = [(*random_expression(random), person(int(random.choice(PEOPLE)))) for _ in range(n)]
        intensities = torch.tensor(np.stack([each for _, each, _ in drawn]), dtype=torch.float32)
        moods = np.array([list(MOODS).index(mood) for mood, *_ in drawn])
        return [caption(mood, who) for mood, _, who in drawn], intensities, moods

    def make(self, captions: Sequence[str], intensities: Tensor, seeds: Sequence[int], **more: Any) -> np.ndarray:
        """Pictures, all together, so that a guide's classes are those of the batch."""
        return sample(self.generator, captions, intensities, seeds, **SAMPLING, **more)


def asked_and_read(bench: Bench) -> list[Row]:
    """The same captions and noise by text alone (λ = 0), and with AUs."""
    captions, intensities, moods = bench.asked(N_ASKED, "asked")
    rows = []
    for how, scale in (("text alone", 0.0), ("with AUs", 1.0)):
        bench.generator.set_scale(scale)
        read, seen = bench.judge.read(bench.make(captions, intensities, range(N_ASKED)))
        rows += readings("asked", how, intensities.numpy(), read)
        rows += [row("asked", how, "mood as asked", float(each)) for each in seen == moods]
    return rows


def calm(unit: int, mood: str, n: int, of: int | None = None) -> tuple[list[str], Tensor]:
    """Captions of a mood, and its AUs at 3, the others at 0, for a sweep of an AU; of the people in turn, or of one."""
    people = [PEOPLE[(number if of is None else of) % len(PEOPLE)] for number in range(n)]
    told = 3.0 * torch.tensor(np.isin(ACTION_UNITS, MOODS[mood]), dtype=torch.float32).repeat(n, 1)
    return [caption(mood, person(number)) for number in people], told


def sweeps(bench: Bench) -> list[Row]:
    """One AU from 0 to 5, with the same noise and text; and with λ = 0, where nothing may change."""
    rows = []
    for unit, mood in SWEPT.items():
        place = ACTION_UNITS.index(unit)
        for how, scale, levels, n in (("λ = 1", 1.0, LEVELS, N_SWEPT), ("λ = 0", 0.0, (0, 5), N_FLAT)):
            bench.generator.set_scale(scale)
            captions, told = calm(unit, mood, n)
            for level in levels:
                told[:, place] = level
                read = bench.judge.read(bench.make(captions, told, range(n)))[0][:, place]
                rows += [row("sweeps", how, f"AU{unit}", each, asked=level, picture=i) for i, each in enumerate(read)]
    return rows


@dataclass(frozen=True)
class MoodGuide:
    """−log of the probability of a mood that a reader sees; see ``guidance.Guide``."""

    reader: Reader
    moods: Tensor

    def loss(self, pixels: Tensor) -> Tensor:
        return functional.cross_entropy(self.reader(pixels)[1], self.moods, reduction="none")


class RandomGuidance(Guidance):
    """Moves as far as guidance does, in directions that mean nothing."""

    def moved(self, text: Tensor, predicted: Any) -> Tensor:
        direction = torch.randn(text.shape, generator=torch.Generator().manual_seed(int(text.sum() * 1e3) % 2**31))
        return text - self.step * direction / direction.norm(dim=-1, keepdim=True)


def guided(bench: Bench, n: int) -> tuple[list[str], np.ndarray, dict[str, Guidance | None]]:
    """Captions, their moods, and the ways in which their text is moved."""
    captions, _, moods = bench.asked(n, "guidance")
    guide, (step, first) = MoodGuide(bench.guide, torch.from_numpy(moods)), GUIDANCE
    hows = {"minus": Guidance(guide, step, first), "random": RandomGuidance(guide, step, first)}
    return captions, moods, {"none": None} | hows | {"plus": Guidance(guide, -step, first)}


def guidance(bench: Bench) -> list[Row]:
    """The mood that the judge sees, of pictures of a text alone, by how the text was moved."""
    bench.generator.set_scale(0.0)
    captions, moods, hows = guided(bench, N_GUIDED)
    rows, nothing = [], bench.generator.intensities(n=N_GUIDED)
    for how, each in hows.items():
        pictures = bench.make(captions, nothing, range(N_GUIDED), guide=each)
        for who, eyes in (("judge", bench.judge), ("guide", bench.guide)):
            seen = eyes.read(pictures)[1]
            rows += [row("guidance", how, who, right, picture=i) for i, right in enumerate(seen == moods)]
    return rows


def correction(bench: Bench) -> list[Row]:
    """Errors of labels of which a fifth is spoilt, before and after; heads learned right or such labels."""
    bench.generator.set_scale(1.0)
    drawn = Drawn.of(PEOPLE, 2 * N_CORRECTED // len(PEOPLE), 20 + bench.seed)
    random = stream(bench.seed, "benchmark", "spoilt")
    true, order = drawn.intensities.numpy(), random.permutation(len(drawn.pixels))
    labels = np.where(random.random(true.shape) < SPOILT, random.integers(0, 6, true.shape), true)
    features = FaceFeatures(bench.generator, config.LABEL_TIMESTEP)
    found = torch.cat([features(part / 127.5 - 1) for part in drawn.pixels.split(64)]).numpy()
    learned, corrected = order[:N_CORRECTED], order[N_CORRECTED:]
    settings, moods = (
        HeadSettings(**HEAD | {"seed": bench.seed}),
        [list(MOODS)[place] for place in drawn.moods[learned]],
    )
    values = {"before": labels[corrected]}
    for how, given in (("a head that learned right labels", true), ("a head that learned spoilt labels", labels)):
        head = train_head(features.shapes, found[learned], given[learned], moods, settings)
        estimate = head.estimate(found[corrected])[0][None]
        values[f"after, {how}"] = correct(labels[corrected], estimate, config.LABEL_THRESHOLDS["intensity"])
    errors = {how: np.abs(each - true[corrected]).mean(axis=1) for how, each in values.items()}
    return [row("correction", how, "error", error, picture=i) for how in errors for i, error in enumerate(errors[how])]


def stage_3(root: Path, base: Path, seed: int, arm: str) -> list[Row]:
    """What stage 3 reads on people whom nothing knows, after the same number of steps on one of ``ARMS``."""
    import DISFAwithPlus_train_model
    import synthesise_faces

    home, (n_drawn, n_made), more = root / f"{arm} {seed}", ARMS[arm], []
    draw_portraits(Folders(home).aligned_faces("DISFA"), PEOPLE, n_drawn, 30 + seed, stored_side=STAGE_3_SIDE)
    if n_made:
        given = f"--generator seed{seed} --number {n_made * len(PEOPLE)} --seed {seed} --batch-size 32 --device cpu"
        given += "".join(f" --{name} {value}" for name, value in SAMPLING.items())
        paths = ["--root", root, "--like", root / "like", "--out", home / "synthesised"]
        with contextlib.redirect_stdout(io.StringIO()):
            synthesise_faces.main([*given.split(), *map(str, paths)])
        more = ["--more", str(home / "synthesised")]
    epochs = round(STAGE_3_STEPS * STAGE_3_BATCH / (len(PEOPLE) * (n_drawn + n_made)))
    given = "--datasets DISFA --network ir10-thin --from-scratch --rate 1e-3 --last-layer-rate 1e-3 --device cpu"
    given += f" --batch-size {STAGE_3_BATCH} --epochs {epochs} --seed {seed} --workers 0"
    with contextlib.redirect_stdout(io.StringIO()):
        DISFAwithPlus_train_model.main([*given.split(), "--root", str(home), *more])
    network = load_network(home / "AU_models" / f"checkpoint_epoch{epochs}.pth", "ir10-thin")
    drawn = Drawn.of(UNKNOWN, UNKNOWN_PICTURES, 13)
    levels = functional.interpolate(drawn.pixels.float(), STAGE_3_SIDE, mode="bicubic").clamp(0, 255).byte()
    with torch.no_grad():
        read = intensities_of(network(network_input(levels.permute(0, 2, 3, 1))), ACTION_UNITS).numpy()
    return readings("held out", arm, drawn.intensities.numpy(), read)


def readings(part: str, how: str, asked: np.ndarray, read: np.ndarray) -> list[Row]:
    """A row a picture and AU."""
    return [
        row(part, how, name, value, asked=wanted, picture=picture)
        for picture in range(len(asked))
        for name, wanted, value in zip(UNITS, asked[picture], read[picture], strict=True)
    ]


def adapter_and_parts(root: Path, base: Path, seed: int, parts: Sequence[str]) -> list[Row]:
    """Train a seed's adapter, and take the parts that use it."""
    functions = {"asked": asked_and_read, "sweeps": sweeps, "guidance": guidance, "correction": correction}
    _, rows = measured("adapter", make_adapter, root, base, seed)
    bench = Bench(root, base, seed)
    for part in parts:
        rows += measured(part, functions[part], bench)[1]
    return rows


def measured(part: str, function: Callable[..., Any], *given: Any) -> tuple[Any, list[Row]]:
    """What a function gives, and its rows with one more that has its CPU-seconds."""
    begun = time.process_time()
    found = function(*given)
    rows = found if isinstance(found, list) else []
    return found, [*rows, row("CPU-seconds", "", part, time.process_time() - begun)]


# Tables ------------------------------------------------------------------------------------------------------------


def interval(n: int, statistic: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """A statistic of n things and its 95 % interval over them (bootstrap); ``statistic`` takes places."""
    random = np.random.default_rng(0)
    values = [statistic(random.integers(n, size=n)) for _ in range(RESAMPLES)]
    return statistic(np.arange(n)), *np.percentile(values, [2.5, 97.5])


def shown(found: tuple[float, float, float], digits: int = 2) -> str:
    """A value with its interval."""
    value, low, high = found
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def wide(rows: pd.DataFrame, values: str = "value") -> np.ndarray:
    """Rows of AUs as an array (pictures of all seeds, 12)."""
    return rows.pivot(index=["seed", "picture"], columns="what", values=values)[UNITS].to_numpy()


def show_readers(rows: pd.DataFrame) -> list[str]:
    """How well judge and guide read drawn faces."""
    table = rows.pivot(index="what", columns="how", values="value").loc[["mood right", *UNITS]]
    print(table.round(2).to_string())
    return []


def show_asked(rows: pd.DataFrame) -> list[str]:
    """R and error by text alone and with AUs; the gain has an interval over pictures."""
    units = rows[rows["what"].isin(UNITS)]
    text, told = (units[units["how"] == how] for how in ("text alone", "with AUs"))
    asked, alone, read = wide(told, "asked"), wide(text), wide(told)
    print("| AU | r by text alone | r with AUs, seed by seed | gain in r (95 %, over pictures) |")
    print("|---|---|---|---|")
    by_seed = [correlations(wide(each, "asked"), wide(each)) for _, each in told.groupby("seed")]
    gains = {}
    for place, name in enumerate(UNITS):
        parts = [array[:, place] for array in (asked, alone, read)]

        def gain(at: np.ndarray, parts: Sequence[np.ndarray] = parts) -> float:
            wanted, before, after = (part[at] for part in parts)
            return np.corrcoef(wanted, after)[0, 1] - np.corrcoef(wanted, before)[0, 1]

        gains[name] = interval(len(asked), gain)
        r = np.corrcoef(parts[0], parts[1])[0, 1]
        each = " ".join(f"{values[place]:.2f}" for values in by_seed)
        print(f"| {name} | {r:.2f} | {np.corrcoef(parts[0], parts[2])[0, 1]:.2f} ({each}) | {shown(gains[name])} |")
    errors = [np.abs(each - asked).mean(axis=1) for each in (alone, read)]
    less = interval(len(asked), lambda at: (errors[0] - errors[1])[at].mean())
    print(f"Mean absolute error, of 5: {errors[0].mean():.2f} by text alone, {errors[1].mean():.2f} with AUs; ", end="")
    moods = rows[rows["what"] == "mood as asked"].groupby("how")["value"].mean()
    print(f"{shown(less)} less. Mood as asked: {moods['text alone']:.2f}, {moods['with AUs']:.2f}.")
    better = [name for name, (_, low, _) in gains.items() if low > 0]
    worse = [name for name, (_, _, high) in gains.items() if high < 0]
    return [
        verdict(all(f"AU{unit}" in better for unit in PROMISED), f"AUs raise r beside text alone for {text_of(better)}"
                f", and lower it for {text_of(worse)}"),
        verdict(less[1] > 0, "AUs lower the error"),
    ]  # fmt: skip


def show_sweeps(rows: pd.DataFrame) -> list[str]:
    """Mean readings by level, and in how many starting noises the reading rises from 0 to 5."""
    print("| AU | " + " | ".join(f"asked {level}" for level in LEVELS) + " | rises from 0 to 5 | r within a noise |")
    print("|" + "---|" * (len(LEVELS) + 3))
    shares = {}
    told = rows[rows["how"] == "λ = 1"]
    for unit in SWEPT:
        each = told[told["what"] == f"AU{unit}"].pivot(index=["seed", "picture"], columns="asked", values="value")
        values = each.to_numpy()
        rises = values[:, -1] > values[:, 0]
        shares[unit] = rises.mean()
        by_seed = " ".join(f"{part.mean():.2f}" for _, part in pd.Series(rises, each.index).groupby("seed"))
        within = np.median([np.corrcoef(LEVELS, series)[0, 1] for series in values])
        means = " | ".join(f"{mean:.2f}" for mean in values.mean(axis=0))
        print(f"| AU{unit} | {means} | {rises.sum()} of {len(rises)} ({by_seed}) | {within:.2f} |")
    flat = rows[rows["how"] == "λ = 0"].pivot(index=["seed", "what", "picture"], columns="asked", values="value")
    change = np.ptp(flat.to_numpy(), axis=1).max()
    others = ", ".join(f"AU{unit}" for unit in SWEPT if unit not in PROMISED)
    print(f"With λ = 0 readings change by at most {change:g}. Not promised: {others}.")
    return [
        verdict(min(shares[unit] for unit in PROMISED) >= RISING, "sweeps of AU1, AU4 and AU26 rise in at least three "
                "quarters of the noises"),
        verdict(change == 0, "λ = 0 is flat"),
    ]  # fmt: skip


def show_guidance(rows: pd.DataFrame) -> list[str]:
    """Share of pictures whose mood is as asked, as judge and guide see it."""
    seen = {key: part["value"].to_numpy() for key, part in rows.groupby(["what", "how"])}
    print("| text moved | judge: mood as asked | change, points (95 %, over pictures) | guide |")
    print("|---|---|---|---|")
    change = {}
    for how in ("none", "minus", "random", "plus"):
        judged, before = seen["judge", how], seen["judge", "none"]
        change[how] = interval(len(judged), lambda at, by=100 * (judged - before): by[at].mean())
        print(f"| {how} | {judged.mean():.2f} | {shown(change[how], 0)} | {seen['guide', how].mean():.2f} |")
    return [
        verdict(change["minus"][0] >= 15, "guidance raises the judged mood by at least 15 points"),
        verdict(
            change["random"][1] <= 0 <= change["random"][2] or change["random"][2] < 0, "a random direction does not"
        ),
        verdict(change["plus"][2] < 0, "the plus sign lowers it"),
    ]


def show_correction(rows: pd.DataFrame) -> list[str]:
    """Mean absolute errors of labels, before and after."""
    errors = rows.pivot(index=["seed", "picture"], columns="how", values="value")
    print(f"Error of labels of which {SPOILT:.0%} are spoilt, of 5: {errors['before'].mean():.3f}")
    found = {}
    for how in errors.columns.drop("before"):
        less = (errors["before"] - errors[how]).to_numpy()
        found[how] = interval(len(less), lambda at, less=less: less[at].mean())
        print(f"{how}: {errors[how].mean():.3f}; {shown(found[how], 3)} less (95 %, over pictures)")
    return [verdict(each[1] > 0, f"label correction lowers the error {how}") for how, each in found.items()]


def show_held_out(rows: pd.DataFrame) -> list[str]:
    """Mean r over AUs, and error, on people whom nothing knows."""
    print("| trained on | mean r over the AUs, seed by seed | mean absolute error |")
    print("|---|---|---|")
    means = {}
    for how in ARMS:
        each = rows[rows["how"] == how]
        if not len(each):
            continue
        r = [correlations(wide(part, "asked"), wide(part)).mean() for _, part in each.groupby("seed")]
        means[how] = np.array(r)
        error = np.abs(each["value"].clip(0, 5) - each["asked"]).mean()
        print(f"| {how} | {np.mean(r):.3f} ({' '.join(f'{value:.3f}' for value in r)}) | {error:.2f} |")
    gain = means["few and synthesised"] - means["few"]
    result = "gain" if (gain > 0).all() else "lose" if (gain < 0).all() else "neither gain nor lose for certain"
    print(f"Few faces {result} with synthesised ones: {gain.mean():+.3f} in r ({' '.join(f'{g:+.3f}' for g in gain)}).")
    return []


def text_of(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"


def verdict(holds: bool, claim: str) -> str:
    """A line that says whether a claim holds."""
    return f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}"


# Sheets ------------------------------------------------------------------------------------------------------------


def sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Rows of pictures at double size, with a title over each column, a name before each row, and what they are."""
    zoom, left, top = 2, 120, 44
    side = zoom * len(rows[0][0])
    image = Image.new("RGB", (left + side * len(titles), top + side * len(rows)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((4, 4), "synthesised from drawn faces; no real people", (122, 51, 0), font_size=14)
    for column, title in enumerate(titles):
        pen.text((left + side * (column + 0.5), top - 4), title, "black", font_size=14, anchor="mb")
    for number, (pictures, name) in enumerate(zip(rows, names, strict=True)):
        pen.text((4, top + side * (number + 0.5)), name, "black", font_size=14, anchor="lm")
        for column, picture in enumerate(pictures):
            large = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            image.paste(large, (left + side * column, top + side * number))
    with replacing(path) as file:
        image.save(file, "JPEG", quality=82)


def write_sheets(root: Path, base: Path, seed: int, folder: Path) -> list[Row]:
    """Sweeps of two noises for each AU, and eight pictures without and with guidance."""
    bench = Bench(root, base, seed)
    rows, names = [], []
    for unit, mood in SWEPT.items():
        for number in (0, 1):
            captions, told = calm(unit, mood, len(LEVELS), of=number)
            told[:, ACTION_UNITS.index(unit)] = torch.tensor(LEVELS, dtype=torch.float32)
            pictures = bench.make(captions, told, [number] * len(LEVELS))
            change = pictures[-1].astype(float) - pictures[0]
            rows.append([*pictures, np.clip(128 + 3 * change, 0, 255).astype(np.uint8)])
            names.append(f"AU{unit}, noise {number + 1}")
    sheet(rows, [*map(str, LEVELS), "change, 3-fold"], names, folder / "face_sweeps.jpg")
    captions, moods, hows = guided(bench, 8)
    bench.generator.set_scale(0.0)
    nothing = bench.generator.intensities(n=8)
    rows = [bench.make(captions, nothing, range(8), guide=each) for each in hows.values()]
    sheet(rows, [list(MOODS)[mood] for mood in moods], list(hows), folder / "face_guidance.jpg")
    return []


# Everything --------------------------------------------------------------------------------------------------------


def numbers(root: Path, base: Path, seeds: Sequence[int], parts: Sequence[str], processes: int) -> pd.DataFrame:
    """All rows, of processes beside each other: those that need no adapter first."""
    draw_portraits(root / "faces", PEOPLE, N_PICTURES, 1)
    draw_portraits(root / "like", PEOPLE, N_PICTURES // 4, 2)
    rows: list[Row] = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting: dict[Future, int | None] = {}

        def ask(seed: int | None, part: str, function: Callable[..., Any], *given: Any) -> Future:
            future = pool.submit(measured, part, function, *given)
            waiting[future] = seed
            return future

        first = [ask(None, "base model", make_base, base), ask(None, "judge and guide", make_readers, root)]
        others = [arm for arm, (_, n_made) in ARMS.items() if not n_made and "held out" in parts]
        for seed in seeds:
            for arm in others:
                ask(seed, f"held out, {arm}", stage_3, root, base, seed, arm)
        wait(first)
        of_adapter = [part for part in parts if part != "held out"]
        adapters = {ask(seed, "seed", adapter_and_parts, root, base, seed, of_adapter): seed for seed in seeds}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                seed, (_, found) = waiting.pop(future), future.result()
                rows += [each | {"seed": seed} for each in found]
                print(f"seed {seed}, {found[-1]['what']}: {found[-1]['value']:.0f} CPU-seconds", file=sys.stderr)
                if future in adapters and "held out" in parts:
                    for arm in set(ARMS) - set(others):
                        ask(seed, f"held out, {arm}", stage_3, root, base, seed, arm)
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print the tables; 1 if something that is promised does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, metavar="DIR", help="the small base model; made if it is not there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write contact sheets and all numbers")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    load, begun = ", ".join(f"{each:.1f}" for each in os.getloadavg()), time.monotonic()
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, load {load}")
    shows = {"asked": show_asked, "sweeps": show_sweeps, "guidance": show_guidance, "correction": show_correction}
    shows = {"readers": show_readers} | shows | {"held out": show_held_out}
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = chosen.base or root / "base"
        rows = numbers(root, base, chosen.seeds, chosen.parts, chosen.processes)
        for part, show in shows.items():
            if len(found := rows[rows["part"] == part]):
                print(f"\n{part}\n")
                verdicts += show(found)
        if chosen.sheets:
            write_sheets(root, base, chosen.seeds[0], chosen.sheets)
            write_table(rows, chosen.sheets / "face_benchmark.csv")
    seconds = rows[(rows["part"] == "CPU-seconds") & (rows["what"] != "seed")].groupby("what")["value"].sum()
    print("\nCPU-seconds: " + ", ".join(f"{part} {value:.0f}" for part, value in seconds.items()))
    print(f"In all {seconds.sum() / 60:.1f} CPU-minutes, {(time.monotonic() - begun) / 60:.1f} minutes.\n")
    print("\n".join(verdicts))
    return int(any(each.startswith("DOES NOT") for each in verdicts))


if __name__ == "__main__":
    run(main)
