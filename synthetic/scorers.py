"""Tiny scorers for drawn pictures: their files are made here, and stage 5 loads them like any others.

Each is a small network of the same library as the official one. In seconds it is trained, on pictures of its own, to
weigh match and fidelity, which make up quality, and light, which does not. So the scorers agree with quality and with
each other in part, as real ones do, and leave something for faces to add.

Writes  pretrained_models/        weights under the official names, and ``scorer_layouts.json`` with the sizes
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from fergi.files import FergiError, replacing, write_json
from fergi.scorers.aesthetic import LinearHead
from fergi.scorers.blip import BlipCosine
from fergi.scorers.image_reward import ImageRewardNetwork
from fergi.scorers.interface import Scorer, offline_import
from fergi.scorers.registry import PAPER_SCORERS, scorer_class
from fergi.script import argument_parser, run
from fergi.weights import (
    AESTHETIC_HEAD,
    BERT_VOCABULARY,
    BLIP_LARGE,
    CLIP_L,
    HPS_V2,
    IMAGE_REWARD,
    PICK_SCORE,
    SAFETENSORS,
    WeightFile,
    save_weights,
)
from synthetic.claim import claim
from synthetic.pictures import COLOURS, FLYING, GROUNDS, NUMBERS, STANDING, TIMES, draw_picture, random_scene

LAYOUT_FILE = "pretrained_models/scorer_layouts.json"
N_SCENES, N_PICTURES = 512, 4  # to train on, and pictures of each
SIDE = 128  # their pixels; the networks see any picture at 64
FOREIGN = 0.4  # share of the scenes that are shown with another scene's prompt
BATCH = 16  # scenes, with all their pictures
RATE = 5e-3
CPU = torch.device("cpu")

# Sizes, in the form of the official ones. CLIP's vocabulary stays whole; a prompt has at most 20 tokens.
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz,")
CLIP = {
    "projection_dim": 32,
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "patch_size": 16, "image_size": 64, "hidden_act": "quick_gelu",
    },
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": 49408, "max_position_embeddings": 32, "hidden_act": "quick_gelu",
    },
}  # fmt: skip
HPS = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


class Taste(NamedTuple):
    """The weights that a scorer gives to standardised cues, the range of its scores, and its training."""

    match: float  # this and fidelity make up quality
    fidelity: float
    warmth: float  # this and brightness do not
    brightness: float
    location: float  # about the mean of its scores
    spread: float  # about their standard deviation
    epochs: int


TASTES = {
    "CLIP": Taste(1.0, 0.4, -0.2, 0.15, 0.25, 0.03, 11),
    "Aesthetic": Taste(0.0, 1.0, 0.4, 0.3, 5.5, 0.6, 11),
    "BLIP": Taste(1.0, 0.3, -0.25, 0.55, 0.45, 0.05, 8),
    "ImageReward": Taste(1.2, 0.4, 0.25, -0.3, 0.0, 1.0, 9),
    "PickScore": Taste(0.8, 1.0, 0.15, 0.3, 21.0, 1.4, 10),
    "HPSv2": Taste(0.8, 1.0, -0.25, -0.25, 0.27, 0.016, 10),
}
# Those that share a file are trained together.
GROUPS = (("CLIP", "Aesthetic"), ("BLIP",), ("ImageReward",), ("PickScore",), ("HPSv2",))


def vocabulary() -> list[str]:
    """What BLIP and ImageReward can read: the words of the prompts, and letters for others."""
    kinds = [*STANDING, *FLYING]
    known = [*NUMBERS, *COLOURS, *kinds, *(f"{kind}s" for kind in kinds)]
    known += " ".join([*GROUNDS, *TIMES, "an butterflies and in the sky"]).split()
    return list(dict.fromkeys([*WORDS, *(f"##{letter}" for letter in WORDS[5:-1]), *known]))


def layouts() -> dict[str, dict[str, Any]]:
    """Scorer → its sizes, as ``preprocess_image_data.py --scorer-layouts`` takes them."""
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"max_position_embeddings": 64, "vocab_size": len(vocabulary()) + 2, "layer_norm_eps": 1e-12}
    blip = {"side": 64, "patch": 16, "vision_width": 32, "vision_depth": 2, "vision_heads": 2, "projection": 32}
    blip["text"] = text
    sizes = {"BLIP": blip, "ImageReward": blip, "HPSv2": HPS}
    return {name: sizes.get(name, CLIP) for name in TASTES}


def make_scorers(root: Path, seed: int, names: Sequence[str] = PAPER_SCORERS, *, n_scenes: int = N_SCENES) -> None:
    """Make scorers, train them, and write their files and ``scorer_layouts.json`` below a root.

    The same seed gives the same bytes, whichever scorers are made beside it.

    Parameters
    ----------
    root : Path
        A folder that ``claim`` accepts; files of the same names there are replaced.
    seed : int
        Of the initial weights and of the training pictures, which no participant sees.
    names : sequence of str
        Of the paper's six. CLIP and Aesthetic share a file and are always made together.
    n_scenes : int
        To train on, a multiple of ``BATCH``.

    Raises
    ------
    FergiError
        If there is no such seed, the scenes do not make whole batches, the folder may not be taken, or a file cannot
        be written.
    """
    if seed < 0:
        raise FergiError(f"Such scorers cannot be made: seed must be 0 or more, not {seed}.")
    if n_scenes < BATCH or n_scenes % BATCH:
        raise FergiError(f"Such scorers cannot be made: scenes must be a multiple of {BATCH}, not {n_scenes}.")
    claim(root)
    with replacing(BERT_VOCABULARY.under(root)) as file:
        file.write("".join(f"{word}\n" for word in vocabulary()).encode())
    write_json(layouts(), root / LAYOUT_FILE)
    prompts, pictures, cues = _draw_examples(seed, n_scenes)
    for place, group in enumerate(GROUPS):
        if set(group) & set(names):
            with _torch_seed(seed, place):
                _write_random(root, group)
                scorers = [scorer_class(name)(root, CPU, layouts()[name]) for name in group]
                if len(scorers) == 2:
                    scorers[1].network = scorers[0].network  # one network for both
                pixels = torch.stack([*map(scorers[0].pixels, pictures)])
                _train(scorers, prompts, pixels, cues, np.random.default_rng([seed, place]))
                for scorer in scorers:
                    _write(*_own_part(scorer), root)


@contextmanager
def _torch_seed(*seed: int) -> Iterator[None]:
    """Seed PyTorch and use one thread; afterwards both are as before. Sums over one thread are the same everywhere."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _draw_examples(seed: int, n_scenes: int) -> tuple[list[str], list[Image.Image], Tensor]:
    """Prompts, N_PICTURES of each, and the pictures' match, fidelity, warmth, brightness: (scenes, N_PICTURES, 4)."""
    random = np.random.default_rng([seed, len(GROUPS)])
    scenes = [random_scene(random) for _ in range(n_scenes)]
    drawn = [[draw_picture(scene, random.uniform(), random, SIDE) for _ in range(N_PICTURES)] for scene in scenes]
    cues = [[(each.match, each.fidelity, each.warmth, each.brightness) for each in several] for several in drawn]
    pictures = [each.picture for several in drawn for each in several]
    return [scene.prompt for scene in scenes], pictures, torch.tensor(cues)


def _write_random(root: Path, group: Sequence[str]) -> None:
    """Initial weights of a group's files."""
    with offline_import():
        import open_clip
        from transformers import CLIPConfig, CLIPModel

    def clip() -> nn.Module:
        dimension = {"projection_dim": CLIP["projection_dim"]}
        parts = {part: CLIP[part] | dimension for part in ("text_config", "vision_config")}
        network = CLIPModel(CLIPConfig(**parts, **dimension))
        network.logit_scale.data.fill_(np.log(100))
        return network

    blip = layouts()["BLIP"]
    makers: dict[str, tuple[WeightFile, Callable[[], nn.Module]]] = {
        "CLIP": (CLIP_L, clip),
        "Aesthetic": (AESTHETIC_HEAD, lambda: LinearHead(CLIP["projection_dim"])),
        "BLIP": (BLIP_LARGE, lambda: BlipCosine(blip)),
        "ImageReward": (IMAGE_REWARD, lambda: ImageRewardNetwork(blip)),
        "PickScore": (PICK_SCORE, clip),
        "HPSv2": (HPS_V2, lambda: open_clip.CLIP(**HPS)),
    }
    for name in group:
        file, make = makers[name]
        _write(file, _lively(make()), root)


def _lively(network: nn.Module) -> nn.Module:
    """Random weights that keep the size of signals; the libraries' defaults are for wide networks."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "token_embedding" in name or "word_embeddings" in name:
                nn.init.normal_(value)
            elif "position" in name or "pos_embed" in name:
                nn.init.normal_(value, std=0.3)
            elif value.ndim >= 2:
                nn.init.normal_(value, std=value[0].numel() ** -0.5)
    return network


def _own_part(scorer: Scorer) -> tuple[WeightFile, nn.Module]:
    """A scorer's own file and network."""
    if scorer.name == "Aesthetic":
        return scorer.files[1], scorer.head
    return scorer.files[0], scorer.network


def _write(file: WeightFile, network: nn.Module, root: Path) -> None:
    """Save weights in the form of the official file."""
    state = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    path = file.under(root)
    if path.suffix == SAFETENSORS:
        with replacing(path) as output:
            output.write(safetensors.torch.save(state))
        return
    if file is HPS_V2:
        state = {name: value.half() for name, value in state.items()}
    save_weights(state if file.key is None else {file.key: state}, path)


def _train(
    scorers: Sequence[Scorer], prompts: Sequence[str], pixels: Tensor, cues: Tensor, random: np.random.Generator
) -> None:
    """Train scorers together, each towards its taste."""
    n_scenes = len(prompts)
    pixels = pixels.unflatten(0, (n_scenes, N_PICTURES))
    tastes = [TASTES[scorer.name] for scorer in scorers]
    weights = torch.tensor([taste[:4] for taste in tastes]).T
    weights /= weights.norm(dim=0)
    centre, scale = cues.mean(dim=(0, 1)), cues.std(dim=(0, 1))
    learning = nn.ModuleList([_own_part(scorer)[1] for scorer in scorers])
    for name, value in learning.named_parameters():
        # Random embeddings of words are good enough, and there are many.
        value.requires_grad_("token_embedding" not in name and "logit_scale" not in name)
    parameters = [value for value in learning.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(parameters, RATE, fused=True)
    epochs = tastes[0].epochs
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * (n_scenes // BATCH))
    for _ in range(epochs):
        for batch in random.permutation(n_scenes).reshape(-1, BATCH):
            n_foreign = round(FOREIGN * BATCH)
            shown = np.concatenate([np.roll(batch[:n_foreign], 1), batch[n_foreign:]])
            true = cues[batch].clone()
            true[:n_foreign, :, 0] = 0
            wanted = ((true - centre) / scale @ weights).flatten(0, 1)
            read = [prompts[scene] for scene in shown.repeat(N_PICTURES)]
            seen = pixels[batch].flatten(0, 1)
            if random.random() < 0.5:
                seen = seen.flip(-1)
            loss = torch.zeros(())
            for scorer, taste, each in zip(scorers, tastes, wanted.T, strict=True):
                said = (scorer.compute(read, seen) - taste.location) / taste.spread
                loss = loss + nn.functional.smooth_l1_loss(said.float(), each)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            plan.step()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the paper's six."""
    parser = argument_parser(__doc__, "python -m synthetic scorers")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--scenes", type=int, default=N_SCENES, help="to train on (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    make_scorers(chosen.root.resolve(), chosen.seed, n_scenes=chosen.scenes)


if __name__ == "__main__":
    run(main)
