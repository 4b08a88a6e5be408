"""Do preferences that were read in faces move a scorer and a generator? Tuning by the scripts for real data.

The audience's annotated pairs tune the tiny PickScore, or the generator of scenes. Labels are of three kinds: as
annotated; by coin, with a random half of the verdicts turned round; and all turned round. Each is tuned with several
seeds, of the tuning and of the coin. A scorer is judged by its accuracy on new pairs whose better picture is known, a
generator by samples before and after from the same noise, of other prompts and noise for each seed.

People like pictures of high quality, half of which is fidelity. A picture of low fidelity is faded. So fidelity is
read off the contrast (logarithm of the standard deviation of grey levels over their mean), which neither kind of light
changes. What the prompt says must stay: whether the sky is dark, as at night, or not. The warmth of the light (the
ratio of red to blue) is measured as well. But the labels tell a little of it, by chance and since fading takes blue
from skies.

Reads   audience/, pretrained_models/scene_generator
Writes  audience/pairs/, audience/tuned_scorers/, audience/tuned_generators/; results/tuned_<what>.csv
Run     python -m synthetic tuned --root DIR --what generator       after annotate_preferences.py --root DIR/audience
Takes   two minutes on two cores for each of the two.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fergi.dataset import Folders
from fergi.files import FergiError, write_table
from fergi.finetuning.generator import ADAPTER_FILE
from fergi.processes import WorkerDied, items_from_workers
from fergi.script import add_workers_argument, argument_parser, at_least, run
from synthetic.audience import audience_of
from synthetic.claim import claim
from synthetic.generator import SCENES_FOLDER, SIDE
from synthetic.labels import ANNOTATED, LABELS, tuned_table, write_labels
from synthetic.pairs import draw, write_pairs
from synthetic.pictures import draw_picture, random_scene
from synthetic.scorers import LAYOUT_FILE

SEEDS = 3
N_JUDGED = {"scorer": 500, "generator": 64}  # new scenes
OPTIONS = {
    "scorer": "--epochs 6 --rate 1e-3 --pairs-at-once 32 --device cpu --workers 1",
    # Labels of faces are right in about 70 % of the pairs, so β is low (docs/tuning.md).
    "generator": "--steps 120 --rate 4e-4 --beta 100 --batch-size 16 --pairs-at-once 16 --evaluate-every 120 "
    "--evaluated-pairs 32 --sample-steps 15 --guidance 2 --device cpu --workers 1",
}
SMOKE = {"scorer": "--epochs 1", "generator": "--steps 1 --evaluate-every 1 --evaluated-pairs 2"}
DARK_SKY = 100  # mean level of the upper third of a picture
SAMPLING = {"num_inference_steps": 15, "guidance_scale": 2.0}


# Tuning ------------------------------------------------------------------------------------------------------------


def tune(root: Path, what: str, labels: str, seed: int, options: str, n_judged: int) -> dict[str, Any]:
    """Tune with one kind of labels and one seed, in the way of the command line, and measure what came out."""
    folders = Folders(root)
    audience = audience_of(folders)
    pairs, n, right = write_labels(audience, labels, seed)
    out = audience.root / f"tuned_{what}s" / f"{labels}_{seed}"
    given = ["--root", audience.root, "--pairs", pairs, "--out", out, "--seed", seed, *options.split()]
    measure = {"scorer": _tuned_scorer, "generator": _tuned_generator}[what]
    return {"labels": labels, "seed": seed, "pairs": n, "right": right} | measure(folders, out, given, seed, n_judged)


def _quietly(main: Any, given: Sequence[object]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([*map(str, given)])


def _tuned_scorer(folders: Folders, out: Path, given: Sequence[object], *_: int) -> dict[str, float]:
    """Accuracy on drawn pairs before, and the gain with its 95 % interval, in points."""
    import finetune_scorer

    own = ["--scorer", "PickScore", "--scorer-layouts", folders.root / LAYOUT_FILE]
    _quietly(finetune_scorer.main, [*given, *own, "--held-out-pairs", drawn_pairs(folders)])
    found = pd.read_csv(out / "evaluation.csv", index_col="figure")
    gain = found.loc["gain"]
    before = found.loc["before", "estimate"]
    return {"before": before, "gain": gain["estimate"], "lower": gain["lower"], "upper": gain["upper"]}


def drawn_pairs(folders: Folders) -> Path:
    """Pairs of new scenes, whose better picture is known, to judge scorers on."""
    return audience_of(folders).root / "pairs" / "drawn.parquet"


def _tuned_generator(
    folders: Folders, out: Path, given: Sequence[object], seed: int, n_judged: int
) -> dict[str, float]:
    """Fidelity and warmth of samples: the shift, in shares of the range that pictures are drawn in."""
    import finetune_generator

    pipeline = folders.root / SCENES_FOLDER
    shown = 4 if out.name == f"{ANNOTATED}_0" else 0
    _quietly(finetune_generator.main, [*given, "--pipeline", pipeline, "--sample-prompts", shown])
    random = np.random.default_rng([seed, 1])
    prompts = [random_scene(random).prompt for _ in range(n_judged)]
    made = [samples(pipeline, adapter, prompts, seed) for adapter in (None, out)]
    before, after = (np.array([*map(cues, pictures)]) for pictures in made)
    shift = (after - before).mean(axis=0) / cue_ranges()
    nights = [np.mean([*map(is_as_dark_as_prompted, pictures, prompts)]) for pictures in made]
    ratio = pd.read_csv(out / "training_log.csv")["error_ratio"].iloc[-1]
    return {"fidelity": shift[0], "warmth": shift[1], "night": nights[1] - nights[0], "error_ratio": ratio}


def samples(pipeline: Path, adapter: Path | None, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """A picture for each prompt, from the same noise at every call."""
    import torch

    from fergi.recording.images import load_pipeline

    loaded = load_pipeline(str(pipeline), torch.float32)
    loaded.set_progress_bar_config(disable=True)
    if adapter:
        loaded.load_lora_weights(adapter, weight_name=ADAPTER_FILE)  # without a name it asks the hub
    noise = [torch.Generator().manual_seed(1000 * seed + number) for number in range(len(prompts))]
    return loaded([*prompts], generator=noise, **SAMPLING).images


def cues(picture: Image.Image) -> tuple[float, float]:
    """What fidelity and warmth are read off: the contrast, and the ratio of red to blue, as logarithms."""
    levels = np.asarray(picture, float) + 1
    grey, (red, _, blue) = levels.mean(axis=2), levels.mean(axis=(0, 1))
    return math.log(max(grey.std(), 1) / grey.mean()), math.log(red / blue)


def is_as_dark_as_prompted(picture: Image.Image, prompt: str) -> bool:
    """Whether the sky is dark and the prompt says night, or neither."""
    sky = np.asarray(picture, float)[: SIDE // 3].mean()
    return bool((sky < DARK_SKY) == prompt.endswith("at night"))


def cue_ranges(n: int = 400, seed: int = 0) -> np.ndarray:
    """By how much each cue differs between the ends of its range: fidelity 0 and 1, warmth −1 and 1.

    Fitted to differences between drawn pictures of the same scene.
    """
    random, seen, drawn = np.random.default_rng(seed), [], []
    for _ in range(n):
        scene = random_scene(random)
        pair = [draw_picture(scene, random.uniform(), random, 2 * SIDE) for _ in range(2)]
        small = [each.picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for each in pair]
        seen.append(np.subtract(*map(cues, small)))
        drawn.append([getattr(pair[0], name) - getattr(pair[1], name) for name in ("fidelity", "match", "warmth")])
    slopes = np.linalg.lstsq(np.array(drawn), np.array(seen), rcond=None)[0]
    return np.array([slopes[0, 0], 2 * slopes[2, 1]])


class Tunings:
    """A data set of ``tune``'s results, or of the error that ended a tuning."""

    def __init__(self, root: Path, what: str, tasks: Sequence[tuple[str, int]], *options: object) -> None:
        self.root, self.what, self.tasks, self.options = root, what, tasks, options

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, place: int) -> dict[str, Any] | FergiError:
        import torch

        torch.set_num_threads(1)
        try:
            return tune(self.root, self.what, *self.tasks[place], *self.options)
        except FergiError as error:
            return error


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune with each kind of labels and each seed, two at a time, and write what was measured."""
    parser = argument_parser(__doc__, "python -m synthetic tuned")
    parser.add_argument("--what", choices=OPTIONS, required=True)
    parser.add_argument("--seeds", type=at_least(1), default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--smoke", action="store_true", help="one step with one seed, which shows nothing but that it runs"
    )
    add_workers_argument(parser, "tunings at once")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    claim(root)
    options, n_judged, n_seeds = OPTIONS[chosen.what], N_JUDGED[chosen.what], chosen.seeds
    if chosen.smoke:
        options, n_judged, n_seeds = f"{options} {SMOKE[chosen.what]}", 4, 1
    tasks = [(labels, seed) for seed in range(n_seeds) for labels in LABELS]
    print(f"finetune_{chosen.what}.py {options}, for each of: {', '.join(f'{name} {seed}' for name, seed in tasks)}")
    if chosen.what == "scorer":
        path = drawn_pairs(Folders(root))
        path.parent.mkdir(exist_ok=True)
        write_pairs(draw(1000, n_judged), path, right=1, seed=0)
    rows, workers = [], 0 if chosen.smoke else min(chosen.workers, len(tasks))  # 0: in this process
    try:
        with items_from_workers(Tunings(root, chosen.what, tasks, options, n_judged), workers) as found:
            for row in found:
                if isinstance(row, FergiError):
                    raise row
                rows.append(row)
                print(
                    "  ".join(f"{name} {value}" for name, value in pd.DataFrame([row]).round(3).iloc[0].items()),
                    flush=True,
                )
    except WorkerDied as died:
        raise FergiError(f"A tuning ended before its time ({died}). Run the same command again: it resumes.") from died
    path = tuned_table(Folders(root), chosen.what)
    write_table(pd.DataFrame(rows).sort_values(["labels", "seed"]), path)
    print(f"Wrote {path}.")


if __name__ == "__main__":
    run(main)
