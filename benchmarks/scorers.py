"""Images per second of every scorer in batches beside one at a time, at the official sizes, in one run.

Reads   nothing: weights are random, written in the layout of the official files into a temporary folder (4 GB)
Run     python -m benchmarks.scorers
        python -m benchmarks.scorers --scorers CLIP --images 5       (a first look)
        python -m benchmarks.scorers --full-size                     (does every official size load, and in how much?)
Takes   about 15 minutes on two cores, most of them for the largest three; --full-size about 8.

One at a time is what the release does: read the picture, read the prompt again, one pass of the network. Batches are
what stage 5 does: pictures decoded ahead, each prompt read once, several images in a pass. Both sides score the same
512 × 512 pictures, five a prompt, and must agree to 1e-4 of the scores' range. A scorer's files are made by the
library's own network in a process of its own, and then loaded strictly in another one, whose peak memory is shown.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


def write_official_sizes(name: str, root: Path) -> None:
    """One scorer's files, from the libraries' own networks with random weights."""
    import torch
    from safetensors.torch import save_file

    from fergi.scorers import blip, clip, hps, pick_score
    from fergi.scorers.interface import offline_import
    from fergi.scorers.registry import scorer_class
    from fergi.weights import AESTHETIC_HEAD, BERT_VOCABULARY

    torch.manual_seed(0)
    files = scorer_class(name).files
    for file in files:
        file.under(root).parent.mkdir(parents=True, exist_ok=True)
    path = files[0].under(root)
    if BERT_VOCABULARY in files:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words = special + [f"word{number}" for number in range(30522 - len(special))]
        BERT_VOCABULARY.under(root).write_text("\n".join(words) + "\n")
    with offline_import():
        import open_clip
        from ImageReward.ImageReward import MLP
        from ImageReward.models.BLIP import blip_pretrain
        from transformers import CLIPConfig, CLIPModel
    if name in ("CLIP", "Aesthetic", "PickScore"):
        layout = pick_score.VIT_H_14 if name == "PickScore" else clip.VIT_L_14
        dimension = {"projection_dim": layout["projection_dim"]}
        parts = {part: layout[part] | dimension for part in ("text_config", "vision_config")}
        save_file(CLIPModel(CLIPConfig(**parts, **dimension)).state_dict(), path)
        if name == "Aesthetic":
            torch.save(MLP(768).state_dict(), AESTHETIC_HEAD.under(root))
    elif name in ("HPSv2", "HPSv2.1"):
        state = open_clip.create_model(hps.VIT_H_14, precision="fp16").state_dict()
        torch.save({"state_dict": state}, path)
    else:
        blip_pretrain.init_tokenizer = lambda: None  # only its networks are used
        settings = root / "med_config.json"
        settings.write_text(json.dumps(blip.BlipLayout().text | {"add_cross_attention": True}))
        network = blip_pretrain.BLIP_Pretrain(med_config=str(settings), image_size=224, vit="large")
        state = network.state_dict()
        if name == "ImageReward":
            head = {f"mlp.{entry}": value for entry, value in MLP(768).state_dict().items()}
            torch.save({f"blip.{entry}": value for entry, value in state.items()} | head, path)
        else:
            torch.save({"model": state}, path)


def measure(name: str, root: Path, *, device: str | None, n_images: int, batch_size: int) -> dict[str, Any]:
    """Load one scorer strictly and time it both ways."""
    import numpy as np
    import torch
    from PIL import Image

    from fergi.image_data import RatedImage
    from fergi.processes import choose_device
    from fergi.scorers.registry import scorer_class
    from fergi.scorers.scoring import score_images

    where = choose_device(device)
    begun = time.perf_counter()
    scorer = scorer_class(name)(root, where)
    loaded = time.perf_counter() - begun
    rng = np.random.default_rng(0)
    images = []
    for number in range(n_images):
        path = root / f"image{number}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(path)
        prompt = f"a red cat on the moon, number {number // 5}, oil on canvas"
        images.append(RatedImage("001", number // 5, number % 5, path, prompt, (), None, (), 0, False, ""))
    scorer.score([images[0].prompt], [images[0].path])  # a first pass sets up what comes later for nothing

    begun = time.perf_counter()
    single = [scorer.score([image.prompt], [image.path])[0] for image in images]
    one = time.perf_counter() - begun
    batched: list[float] = []
    begun = time.perf_counter()
    score_images(
        scorer,
        images,
        batch_size=batch_size,
        workers=os.cpu_count() or 1,
        keep=lambda scored: batched.extend(score for _, score in scored),
    )
    many = time.perf_counter() - begun
    apart = float(np.abs(np.subtract(single, batched)).max() / max(1.0, np.abs(single).max()))
    gpu = torch.cuda.max_memory_allocated() / 1e9 if where.type == "cuda" else None
    return {"load": loaded, "one": n_images / one, "many": n_images / many, "apart": apart, "gpu": gpu}


def child(*arguments: str) -> float:
    """Run a part of this benchmark as a process of its own; its peak memory in GB."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.scorers", *arguments], cwd=CHECKOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} ended with exit code {process.returncode}.")
    return usage.ru_maxrss / 1e6


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    from fergi.scorers.registry import PAPER_SCORERS, SCORERS
    from fergi.script import add_device_argument

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorers", nargs="+", choices=tuple(SCORERS), default=PAPER_SCORERS)
    parser.add_argument("--images", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    add_device_argument(parser)
    parser.add_argument("--full-size", action="store_true", help="one image only: does it load, and in how much memory")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Each scorer in turn."""
    chosen = parse(arguments)
    n_images = 1 if chosen.full_size else chosen.images
    if chosen.make:
        write_official_sizes(chosen.scorers[0], chosen.make)
        return
    if chosen.measure:
        found = measure(
            chosen.scorers[0], chosen.measure, device=chosen.device, n_images=n_images, batch_size=chosen.batch_size
        )
        (chosen.measure / "found.json").write_text(json.dumps(found))
        return
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {n_images} images, batches of {chosen.batch_size}"
    )
    print("| scorer | files, GB | loads in, s | one at a time, images/s | batches, images/s | peak memory, GB |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in chosen.scorers:
        with tempfile.TemporaryDirectory() as folder:
            child("--scorers", name, "--make", folder)
            size = sum(path.stat().st_size for path in Path(folder, "pretrained_models").rglob("*") if path.is_file())
            where = ["--device", chosen.device] if chosen.device else []
            options = ["--images", str(n_images), "--batch-size", str(chosen.batch_size), *where]
            peak = child("--scorers", name, "--measure", folder, *options)
            found = json.loads(Path(folder, "found.json").read_text())
        if found["apart"] > 1e-4:
            sys.exit(f"{name}: the two ways differ by {found['apart']:.1e}.")
        gpu = f", {found['gpu']:.1f} on the GPU" if found["gpu"] else ""
        print(
            f"| {name} | {size / 1e9:.1f} | {found['load']:.0f} | {found['one']:.2f} | {found['many']:.2f} "
            f"| {peak:.1f}{gpu} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
