"""Does a planted taste move a generator, and only that? Tuning of a tiny Stable Diffusion, and its controls.

Reads   nothing: a tiny generator is trained on drawn pictures first (kept in --generator DIR, if that is given)
Run     python -m benchmarks.generator
        python -m benchmarks.generator --generator demo/pretrained_models/tiny_generator
        python -m benchmarks.generator --full-size      (one step at the layout of Stable Diffusion 1.5, and its memory)
Takes   about three CPU-minutes for the generator and one for each row; --full-size three, and 2 GB of disk.

Pairs show the same thing twice, before a dark and before a bright background. People like the bright one; or a coin
decides; or they like the dark one; or they are right with probability 0.75. Measured on samples with the same seeds
before and after: the shift of the background, in shares of the range between dark and bright drawings, with a 95 %
interval over samples; of the things whose colour is warm or cold, the share that is so as the prompt says, which no
label speaks of, and its shift; held-out implicit accuracy, and the error beside the reference's.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fergi.script import run
from finetune_generator import main as finetune
from synthetic.generator import (
    COLD,
    KINDS,
    WARM,
    background,
    draw_thing,
    is_warm,
    make_generator,
    random_prompt,
    untrained,
)
from synthetic.pictures import COLOURS
from synthetic.tuned import samples as samples_of

N_PAIRS, N_SAMPLES = 512, 128
STEPS, RATE = 120, 4e-4
LIKES = "single likes (KTO)"
SCORER = "a scorer tuned on the right labels (ReFL)"
PROMPTS = [f"a {colour} {kind}" for colour in COLOURS for kind in KINDS]
# Name → share of pairs whose label is for the bright picture, the label's value, β.
ROWS = {
    "right": (1.0, 1.0, 2000),
    "turned round": (0.0, 1.0, 2000),
    "by coin": (0.5, 1.0, 2000),
    "right with 0.75, soft": (0.75, 0.75, 2000),
    "right with 0.75, soft, β 200": (0.75, 0.75, 200),
    LIKES: (1.0, 1.0, 1000),
    SCORER: (1.0, 1.0, 0),
}


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a file."""
    with io.BytesIO() as file:
        picture.save(file, "png")
        return file.getvalue()


def write_pairs(path: Path, right: float, label: float, seed: int = 1) -> None:
    """Pick-a-Pic's columns; each pair differs in its background alone, and each prompt is one person's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random, rows = np.random.default_rng(seed), []
    liked = random.permutation(np.arange(N_PAIRS) < round(right * N_PAIRS))  # the bright one, in exactly that share
    for number in range(N_PAIRS):
        prompt, colour, kind = random_prompt(random)
        state = int(random.integers(1 << 32))
        bright_first = bool(random.integers(2))
        shown = [
            draw_thing(colour, kind, each, np.random.default_rng(state)) for each in (bright_first, not bright_first)
        ]
        p = label if liked[number] == bright_first else 1 - label
        row = {"caption": prompt, "jpg_0": png(shown[0]), "jpg_1": png(shown[1]), "label_0": p, "label_1": 1 - p}
        rows.append(row | {"user_id": PROMPTS.index(prompt)})
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_likes(path: Path, seed: int = 1) -> None:
    """Diffusion-KTO's table: single pictures, of which those before a bright background are liked."""
    random, rows = np.random.default_rng(seed), []
    for number in range(N_PAIRS):
        prompt, colour, kind = random_prompt(random)
        bright = bool(random.integers(2))
        file = path.with_name(f"{number}.png")
        draw_thing(colour, kind, bright, random).save(file)
        rows.append({"file_name": file.name, "caption": prompt, "split": f"exclusive_{'win' if bright else 'lose'}"})
    pd.DataFrame(rows).to_csv(path, index=False)


def tuned_scorer(root: Path, pairs: Path) -> list[str]:
    """Tune the tiny PickScore on pairs; the options of finetune_generator.py that take it as the reward."""
    from finetune_scorer import main as finetune_scorer
    from synthetic.scorers import LAYOUT_FILE, make_scorers

    make_scorers(root, 0, ["PickScore"])
    of_root = ["--root", str(root), "--scorer-layouts", str(root / LAYOUT_FILE), "--device", "cpu"]
    given = "--scorer PickScore --rate 1e-3 --anchor 0 --accept always --workers 1".split()
    with redirect_stdout(io.StringIO()):
        finetune_scorer([*given, "--pairs", str(pairs), "--out", str(root / "tuned"), *of_root])
    return ["--reward", f"PickScore+{root / 'tuned' / 'adapter_model.safetensors'}", *of_root]


def samples(generator: Path, adapter: Path | None) -> list[tuple[Image.Image, str]]:
    """Pictures and the colours that their prompts name; the same prompts and noise at every call."""
    random = np.random.default_rng(2)
    asked = [random_prompt(random) for _ in range(N_SAMPLES)]
    made = samples_of(generator, adapter, [prompt for prompt, _, _ in asked], seed=0)
    return list(zip(made, [colour for _, colour, _ in asked], strict=True))


def background_range(seed: int = 3) -> tuple[float, float]:
    """The mean background of dark and of bright drawings."""
    random = np.random.default_rng(seed)
    means = []
    for bright in (False, True):
        drawn = [draw_thing(*random_prompt(random)[1:], bright, random) for _ in range(200)]
        means.append(float(np.mean([background(each) for each in drawn])))
    return means[0], means[1]


def measured(generator: Path, adapter: Path | None, before: dict | None) -> tuple[dict, dict]:
    """Backgrounds in shares of the range and whether colours are as prompted, of each sample; a row of the table."""
    dark, bright = background_range()
    made = samples(generator, adapter)
    light = (np.array([background(picture) for picture, _ in made]) - dark) / (bright - dark)
    asked = [(is_warm(picture) == (colour in WARM)) for picture, colour in made if colour in WARM + COLD]
    found = {"background": light, "colour": np.array(asked, float)}
    row = {"background": f"{light.mean():.3f}", "share bright": f"{(light > 0.5).mean():.2f}"}
    row["colour as prompted"] = f"{found['colour'].mean():.2f}"
    for name in found if before else ():
        shift = found[name] - before[name]
        row[f"shift of the {name}"] = f"{shift.mean():+.3f} ± {1.96 * shift.std(ddof=1) / len(shift) ** 0.5:.3f}"
    return found, row


def full_size(root: Path) -> None:
    """One step on a CPU with random weights in the layout of Stable Diffusion 1.5, at 64 pixels, in bfloat16."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    pairs, folder, widths = root / "pairs.parquet", root / "stable-diffusion", (320, 640, 1280, 1280)
    write_pairs(pairs, 1.0, 1.0)
    pipeline, normal = untrained(root), torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    layers = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 3072}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, eos_token_id=pipeline.tokenizer.eos_token_id, **layers))
    unet = UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2,
        block_out_channels=(128, 256, 512, 512), latent_channels=4,
    )  # fmt: skip
    torch.set_default_dtype(normal)
    pipeline.register_modules(text_encoder=text, unet=unet, vae=vae)
    pipeline.save_pretrained(folder)
    del pipeline, text, unet, vae
    given = "--resolution 64 --steps 1 --batch-size 2 --evaluate-every 1 --evaluated-pairs 2 --sample-prompts 0"
    paths = ["--pipeline", str(folder), "--pairs", str(pairs), "--out", str(root / "tuned"), "--root", str(root)]
    command = [sys.executable, "finetune_generator.py", *paths, *given.split(), "--device", "cpu"]
    subprocess.run([*command, "--precision", "bfloat16", "--workers", "1"], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    size = (root / "tuned/pytorch_lora_weights.safetensors").stat().st_size / 1e6
    print(f"Stable Diffusion 1.5: peak memory {peak:.1f} GiB, LoRA of {size:.1f} MB.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make or take the generator, tune it once for each row, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, metavar="DIR", help="one of synthetic/generator.py; made if missing")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=tuple(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--full-size", action="store_true", help="only one step at the size of Stable Diffusion 1.5")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if chosen.full_size:
            full_size(root)
            return
        generator, begun = chosen.generator or root / "generator", time.process_time()
        if not (generator / "model_index.json").is_file():
            make_generator(generator, seed=0)
            print(f"generator: {time.process_time() - begun:.0f} CPU-seconds", flush=True)
        before, row = measured(generator, None, None)
        table = {"before": row}
        for number, name in enumerate(chosen.rows):
            right, label, beta = ROWS[name]
            out, begun = root / f"tuned_{number}", time.process_time()
            pairs = root / ("likes.csv" if name == LIKES else f"{number}.parquet")
            if name == LIKES:
                write_likes(pairs)
            else:
                write_pairs(pairs, right, label)
            given = f"--rate {RATE} --steps {chosen.steps} --batch-size 16 --pairs-at-once 16 --workers 1"
            given += f" --evaluate-every {chosen.steps // 2} --evaluated-pairs 64 --sample-prompts 0"
            loss = ["--loss", "kto" if name == LIKES else "dpo", "--beta", str(beta), "--device", "cpu"]
            loss = tuned_scorer(root / "scorer", pairs) if name == SCORER else loss
            paths = ["--pipeline", str(generator), "--pairs", str(pairs), "--out", str(out), "--root", str(root)]
            with redirect_stdout(io.StringIO()):
                finetune([*paths, *given.split(), *loss])
            seconds = time.process_time() - begun
            last = pd.read_csv(out / "training_log.csv").iloc[-1]
            row = measured(generator, out, before)[1]
            row |= {"held out right, %": f"{last['held_out_right']:.1f}", "error ratio": f"{last['error_ratio']:.2f}"}
            table[name] = row | {"CPU-seconds": f"{seconds:.0f}"}
            print(name, table[name], flush=True)
    print(pd.DataFrame(table).T.fillna("").to_string())


if __name__ == "__main__":
    run(main)
