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
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fergi.processes import choose_device
from fergi.scorers.interface import offline_import
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, scorer_class
from fergi.scorers.scoring import score_images
from fergi.weights import AESTHETIC_HEAD, BERT_VOCABULARY


def lively(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state with random weights of a size at which pictures differ in the score, as every scorer must."""
    for value in network.state_dict().values():
        if value.ndim >= 2:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
    return network.state_dict()


def write_official_sizes(name: str, root: Path) -> None:
    """One scorer's files, from the libraries' own networks with random weights."""
    torch.manual_seed(0)
    files, layout = scorer_class(name).files, scorer_class(name).official_layout
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
    if name in ("CLIP", "Aesthetic", "PickScore", "SocialReward"):
        dimension = {"projection_dim": layout["projection_dim"]}
        parts = {part: layout[part] | dimension for part in ("text_config", "vision_config")}
        save_file(CLIPModel(CLIPConfig(**parts, **dimension)).state_dict(), path)
        if name == "Aesthetic":
            torch.save(lively(MLP(768)), AESTHETIC_HEAD.under(root))
    elif name in ("HPSv2", "HPSv2.1"):
        state = open_clip.create_model("ViT-H-14", precision="fp16").state_dict()
        torch.save({"state_dict": state}, path)
    else:
        blip_pretrain.init_tokenizer = lambda: None  # only its networks are used
        settings = root / "med_config.json"
        settings.write_text(json.dumps(layout["text"] | {"add_cross_attention": True}))
        network = blip_pretrain.BLIP_Pretrain(med_config=str(settings), image_size=224, vit="large")
        state = network.state_dict()
        if name in ("ImageReward", "CycleReward"):
            own = MLP(768) if name == "ImageReward" else scorer_class(name).network_class.head(768)
            head = {f"mlp.{entry}": value for entry, value in lively(own).items()}
            torch.save({f"blip.{entry}": value for entry, value in state.items()} | head, path)
        else:
            torch.save({"model": state}, path)


def measure(name: str, root: Path, device: str | None, n_images: int, batch_size: int) -> dict[str, Any]:
    """Load one scorer strictly and time it both ways."""
    where = choose_device(device)
    begun = time.perf_counter()
    scorer = scorer_class(name)(root, where)
    loaded = time.perf_counter() - begun
    rng = np.random.default_rng(0)
    paths = [root / f"image{number}.png" for number in range(n_images)]
    prompts = [f"a red cat on the moon, number {number // 5}, oil on canvas" for number in range(n_images)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(path)
    scorer.score(prompts[:1], paths[:1])  # a first pass sets up what later ones use

    begun = time.perf_counter()
    single = [scorer.score([prompt], [path])[0] for prompt, path in zip(prompts, paths, strict=True)]
    one = time.perf_counter() - begun
    begun = time.perf_counter()
    batched = list(score_images(scorer, prompts, paths, batch_size=batch_size, workers=os.cpu_count() or 1))
    many = time.perf_counter() - begun
    apart = float(np.abs(np.subtract(single, batched)).max() / max(1.0, np.abs(single).max()))
    gpu = torch.cuda.max_memory_allocated() / 1e9 if where.type == "cuda" else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # GB
    return {"load": loaded, "one": n_images / one, "many": n_images / many, "apart": apart, "gpu": gpu, "peak": peak}


def in_a_process_of_its_own(function: Callable, *arguments: Any) -> Any:
    """What the function returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Each scorer in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorers", nargs="+", choices=tuple(SCORERS), default=PAPER_SCORERS)
    parser.add_argument("--images", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--full-size", action="store_true", help="one image only: does it load, and in how much memory")
    chosen = parser.parse_args(arguments)
    n_images = 1 if chosen.full_size else chosen.images
    batches = f"{n_images} images, batches of {chosen.batch_size}"
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {batches}")
    print("| scorer | files, GB | loads in, s | one at a time, images/s | batches, images/s | peak memory, GB |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in chosen.scorers:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            in_a_process_of_its_own(write_official_sizes, name, root)
            size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
            found = in_a_process_of_its_own(measure, name, root, chosen.device, n_images, chosen.batch_size)
        if found["apart"] > 1e-4:
            sys.exit(f"{name}: the two ways differ by {found['apart']:.1e}.")
        gpu = f", {found['gpu']:.1f} on the GPU" if found["gpu"] else ""
        print(
            f"| {name} | {size / 1e9:.1f} | {found['load']:.0f} | {found['one']:.2f} | {found['many']:.2f} "
            f"| {found['peak']:.1f}{gpu} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
