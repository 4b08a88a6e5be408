"""Do synthesised faces show the AUs and moods that were asked for? A small face generator on drawn faces, and controls.

Reads   nothing: faces are drawn, a small base model is trained on them first (kept in --base DIR, if that is given)
Writes  with --sheets DIR: face_sweeps.jpg, face_guidance.jpg, and every number of the tables in face_benchmark.csv
Run     python -m benchmarks.faces
        python -m benchmarks.faces --base DIR --seeds 0 --parts asked sweeps
Takes   a quarter of an hour on two cores, in two processes of 2 GB each.

Three drawn people are enough for a small base model to learn what its captions say. Each seed trains an AU adapter on
them (train_face_generator.py), and has unseen expressions and noise of its own. A judge reads the pictures: a small
network that was trained on sixty other drawn people, and guided nothing. The tables show
asked       AUs asked for against AUs read, by text alone (λ = 0) and with AUs; captions name a mood, and moods have AUs
sweeps      one AU from 0 to 5 with the same noise and text; the others are told as a calm face has them
guidance    the mood of pictures whose text is moved by a network that was trained on the three people
correction  labels of which a fifth is spoilt, before and after; the pseudo-label generator learned right or such labels
held out    stage 3 on few drawn faces of the three people, on these and synthesised ones, the labels of which are those
            that were asked for, or corrected ones (correct_labels.py), and on many drawn faces, judged by what it reads
            on people whom neither it nor the generator knows
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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

import config
from benchmarks.face_readers import (
    N_PICTURES,
    PEOPLE,
    UNKNOWN,
    UNKNOWN_PICTURES,
    Drawn,
    Reader,
    Row,
    make_readers,
    reader,
    row,
)
from benchmarks.face_tables import LEVELS, MADE, SHOWS, SPOILT, SWEPT, UNITS
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
from synthetic.portraits import MOODS, caption, draw_portraits, person, random_expression

ADAPTER_STEPS = 700
SAMPLING = {"steps": 20, "scale": 3.0}
N_ASKED, N_SWEPT, N_FLAT, N_GUIDED = 128, 16, 4, 64  # pictures of each seed
GUIDANCE = 0.5, 0.4  # λ, and the share of steps before it
N_CORRECTED = 600  # pictures whose labels are corrected, and as many for the head
HEAD = config.LABEL_HEAD | {"steps": 400}
FEW, N_MADE, MANY = 40, 160, 200  # pictures of each person that stage 3 learns from; N_MADE are synthesised
STAGE_3_STEPS, STAGE_3_BATCH, STAGE_3_SIDE = 180, 16, 112
PARTS = ("asked", "sweeps", "guidance", "correction", "held out")


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


def stage_3(home: Path, seed: int, arm: str, n_drawn: int, *more: Path) -> list[Row]:
    """What stage 3 reads on people whom nothing knows, after the same number of steps on drawn faces and ``more``."""
    import DISFAwithPlus_train_model

    draw_portraits(Folders(home).aligned_faces("DISFA"), PEOPLE, n_drawn, 30 + seed, stored_side=STAGE_3_SIDE)
    epochs = round(STAGE_3_STEPS * STAGE_3_BATCH / (len(PEOPLE) * (n_drawn + N_MADE * len(more))))
    given = "--datasets DISFA --network ir10-thin --from-scratch --rate 1e-3 --last-layer-rate 1e-3 --device cpu"
    given += f" --batch-size {STAGE_3_BATCH} --epochs {epochs} --seed {seed} --workers 0"
    folders = ["--more", *map(str, more)] if more else []
    with contextlib.redirect_stdout(io.StringIO()):
        DISFAwithPlus_train_model.main([*given.split(), "--root", str(home), *folders])
    network = load_network(home / "AU_models" / f"checkpoint_epoch{epochs}.pth", "ir10-thin")
    drawn = Drawn.of(UNKNOWN, UNKNOWN_PICTURES, 13)
    levels = functional.interpolate(drawn.pixels.float(), STAGE_3_SIDE, mode="bicubic").clamp(0, 255).byte()
    with torch.no_grad():
        read = intensities_of(network(network_input(levels.permute(0, 2, 3, 1))), ACTION_UNITS).numpy()
    return readings("held out", arm, drawn.intensities.numpy(), read)


def stage_3_synthesised(root: Path, seed: int) -> list[Row]:
    """``stage_3`` on few drawn faces and on synthesised ones, by how their labels were corrected (``MADE``)."""
    import correct_labels
    import synthesise_faces

    made, like, rows = root / f"synthesised {seed}", str(root / "like"), []
    generator = ["--root", str(root), "--generator", f"seed{seed}", "--device", "cpu"]
    given = f"--number {N_MADE * len(PEOPLE)} --seed {seed} --batch-size 32"
    given += "".join(f" --{name} {value}" for name, value in SAMPLING.items())
    with contextlib.redirect_stdout(io.StringIO()):
        synthesise_faces.main([*generator, *given.split(), "--like", like, "--out", str(made)])
    for arm, threshold in MADE.items():
        home, faces = root / f"{arm} {seed}", made
        if threshold:
            faces = home / "corrected"
            with contextlib.redirect_stdout(io.StringIO()):
                given = [*generator, "--faces", str(made), "--labelled", like, "--threshold", str(threshold)]
                correct_labels.main([*given, "--out", str(faces), "--workers", "1"])
        rows += stage_3(home, seed, arm, FEW, faces)
    return rows


def readings(part: str, how: str, asked: np.ndarray, read: np.ndarray) -> list[Row]:
    """A row a picture and AU."""
    return [
        row(part, how, name, value, asked=wanted, picture=picture)
        for picture in range(len(asked))
        for name, wanted, value in zip(UNITS, asked[picture], read[picture], strict=True)
    ]


def take_parts(root: Path, base: Path, seed: int, parts: Sequence[str]) -> list[Row]:
    """The parts that use a seed's adapter and a judge."""
    functions = {"asked": asked_and_read, "sweeps": sweeps, "guidance": guidance, "correction": correction}
    rows, bench = [], Bench(root, base, seed)
    for part in parts:
        rows += measured(part, functions[part], bench)[1]
    return rows


def measured(part: str, function: Callable[..., Any], *given: Any) -> tuple[Any, list[Row]]:
    """What a function gives, and its rows with one more that has its CPU-seconds."""
    begun = time.process_time()
    found = function(*given)
    rows = found if isinstance(found, list) else []
    return found, [*rows, row("CPU-seconds", "", part, time.process_time() - begun)]


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
        for seed in seeds if "held out" in parts else ():
            for arm, n_drawn in (("few", FEW), ("many", MANY)):
                ask(seed, f"held out, {arm}", stage_3, root / f"{arm} {seed}", seed, arm, n_drawn)
        wait(first)
        of_adapter = [part for part in parts if part != "held out"]
        adapters = {ask(seed, "adapter", make_adapter, root, base, seed): seed for seed in seeds}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                seed, (_, found) = waiting.pop(future), future.result()
                rows += [each | {"seed": seed} for each in found]
                print(f"seed {seed}, {found[-1]['what']}: {found[-1]['value']:.0f} CPU-seconds", file=sys.stderr)
                if future in adapters:
                    if "held out" in parts:
                        ask(seed, "held out, synthesised", stage_3_synthesised, root, seed)
                    ask(seed, "parts", take_parts, root, base, seed, of_adapter)
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
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = chosen.base or root / "base"
        rows = numbers(root, base, chosen.seeds, chosen.parts, chosen.processes)
        for part, show in SHOWS.items():
            if len(found := rows[rows["part"] == part]):
                print(f"\n{part}\n")
                verdicts += show(found)
        if chosen.sheets:
            write_sheets(root, base, chosen.seeds[0], chosen.sheets)
            write_table(rows, chosen.sheets / "face_benchmark.csv")
    seconds = rows[(rows["part"] == "CPU-seconds") & (rows["what"] != "parts")].groupby("what")["value"].sum()
    print("\nCPU-seconds: " + ", ".join(f"{part} {value:.0f}" for part, value in seconds.items()))
    print(f"In all {seconds.sum() / 60:.1f} CPU-minutes, {(time.monotonic() - begun) / 60:.1f} minutes.\n")
    print("\n".join(verdicts))
    return int(any(each.startswith("DOES NOT") for each in verdicts))


if __name__ == "__main__":
    run(main)
