"""Scorers of a small layout, with random weights saved as files in the layout of the official ones.

The files are written from the libraries' own networks, not from ours, and read through the very code that reads the
official ones.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fergi.dataset import EMOTIONS, ISSUES
from fergi.scorers.clip import TOKENS, transformer
from fergi.scorers.interface import Scorer, offline_import
from fergi.scorers.registry import SCORERS, scorer_class
from fergi.weights import (
    AESTHETIC_HEAD,
    BERT_VOCABULARY,
    BLIP_LARGE,
    CLIP_L,
    CYCLE_REWARD,
    HPS_V2,
    HPS_V2_1,
    IMAGE_REWARD,
    PICK_SCORE,
    SOCIAL_REWARD,
)

CPU = torch.device("cpu")


CLIP = {
    "projection_dim": 24,
    "vision_config": transformer(32, 2, 2, "quick_gelu") | {"patch_size": 8, "image_size": 32},
    "text_config": transformer(16, 2, 2, "quick_gelu") | TOKENS,
}
HPS = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
WORDS += ["cat", "dog", "on", "the", "moon", "red"]
# 224 pixels, 256 dimensions and a text width of 768 are fixed in the image-reward package.
BLIP = {
    "side": 224,
    "patch": 56,
    "vision_width": 32,
    "vision_depth": 2,
    "vision_heads": 2,
    "projection": 256,
    "text": {
        "hidden_size": 768,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "vocab_size": len(WORDS) + 2,
        "layer_norm_eps": 1e-12,
    },
}
LAYOUTS = {"BLIP": BLIP, "ImageReward": BLIP, "CycleReward": BLIP, "HPSv2": HPS, "HPSv2.1": HPS}
LAYOUTS |= dict.fromkeys(("CLIP", "Aesthetic", "PickScore", "SocialReward"), CLIP)


def spread_out(network: nn.Module, seed: int) -> nn.Module:
    """Every entry random and of a size at which nothing vanishes or saturates, so that any mix-up shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim >= 2:
                value.copy_(noise * (1.0 if "embed" in name else 1.5 / np.sqrt(value[0].numel())))
            elif "logit_scale" in name:
                value.fill_(3.0)
            else:
                value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
    return network.eval()


def clip_model(seed: int) -> nn.Module:
    """Transformers' CLIP."""
    with offline_import():
        from transformers import CLIPConfig, CLIPModel
    dimension = {"projection_dim": CLIP["projection_dim"]}
    text, vision = (CLIP[f"{part}_config"] | dimension for part in ("text", "vision"))
    return spread_out(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, **dimension)), seed)


def hps_model(seed: int) -> nn.Module:
    """open_clip's CLIP."""
    with offline_import():
        import open_clip
    return spread_out(open_clip.CLIP(**HPS), seed)


def linear_head(size: int, seed: int) -> nn.Module:
    """The Aesthetic predictor's layers under the names of its file."""
    sizes = {"0": (size, 1024), "2": (1024, 128), "4": (128, 64), "6": (64, 16), "7": (16, 1)}
    return spread_out(nn.ModuleDict({"layers": nn.ModuleDict({k: nn.Linear(*v) for k, v in sizes.items()})}), seed)


def gelu_head(seed: int) -> nn.Module:
    """CycleReward's head, for a text width of 768."""
    sizes = (768, 1024, 128, 64, 16, 1)
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.GELU())]
    return spread_out(nn.Sequential(*layers[:-1]), seed)


def package_blip(patch, root: Path) -> tuple[nn.Module, nn.Module]:
    """BLIP score and ImageReward as the image-reward package computes them, at the small layout.

    Parameters
    ----------
    patch : pytest.MonkeyPatch
        For what is fixed in the package: the image encoder's size and the hub's name of the vocabulary.
    root : Path
        With the vocabulary.
    """
    with offline_import():
        import ImageReward.models.BLIP.blip_pretrain as pretrain
        from ImageReward.ImageReward import ImageReward
        from ImageReward.models.BLIP.vit import VisionTransformer
        from ImageReward.models.BLIPScore import BLIPScore
        from transformers import BertTokenizer

    def tokenizer():
        made = BertTokenizer(vocab_file=str(BERT_VOCABULARY.under(root)))
        made.add_special_tokens({"bos_token": "[DEC]"})
        made.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        return made

    def vision(*_):
        sizes = {"embed_dim": BLIP["vision_width"], "depth": BLIP["vision_depth"], "num_heads": BLIP["vision_heads"]}
        return VisionTransformer(img_size=BLIP["side"], patch_size=BLIP["patch"], **sizes), BLIP["vision_width"]

    patch.setattr(pretrain, "create_vit", vision)
    patch.setattr(pretrain, "init_tokenizer", tokenizer)
    settings = root / "med_config.json"
    settings.write_text(json.dumps(BLIP["text"] | {"add_cross_attention": True, "model_type": "bert"}))
    made = BLIPScore(med_config=str(settings)), ImageReward(med_config=str(settings))
    settings.unlink()
    return spread_out(made[0], 5), spread_out(made[1], 6)


def write_small_models(root: Path, patch) -> None:
    """Every scorer's files under ``pretrained_models/``."""
    for file in (CLIP_L, PICK_SCORE, SOCIAL_REWARD, AESTHETIC_HEAD):
        file.under(root).parent.mkdir(parents=True, exist_ok=True)
    for seed, file in ((1, CLIP_L), (2, PICK_SCORE), (8, SOCIAL_REWARD)):
        state = {name: value.contiguous() for name, value in clip_model(seed).state_dict().items()}
        # The official files are of a time when positions were stored.
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        save_file(state, file.under(root))
    torch.save(linear_head(CLIP["projection_dim"], 3).state_dict(), AESTHETIC_HEAD.under(root))
    for seed, file in ((4, HPS_V2), (7, HPS_V2_1)):
        state = {name: value.half() for name, value in hps_model(seed).state_dict().items()}
        torch.save({"epoch": 1, "name": "hps", "state_dict": state}, file.under(root))
    BERT_VOCABULARY.under(root).parent.mkdir()
    BERT_VOCABULARY.under(root).write_text("\n".join(WORDS) + "\n")
    blip, reward = package_blip(patch, root)
    state = blip.blip.state_dict()
    extra = {f"visual_encoder_m.{k}": v for k, v in blip.blip.visual_encoder.state_dict().items()}
    extra |= {"temp": torch.tensor(0.07), "image_queue": torch.zeros(24, 5), "itm_head.bias": torch.zeros(2)}
    torch.save({"model": state | extra, "epoch": 19, "config": {"batch_size": 75}}, BLIP_LARGE.under(root))
    torch.save(reward.state_dict(), IMAGE_REWARD.under(root))
    head = {f"mlp.layers.{name}": value for name, value in gelu_head(9).state_dict().items()}
    entries = {name: value for name, value in reward.state_dict().items() if name.startswith("blip.")}
    torch.save(entries | head, CYCLE_REWARD.under(root))


def load_small(name: str, root: Path) -> Scorer:
    """A scorer at the small layout, its weights loaded as the official ones are."""
    return scorer_class(name)(root, CPU, LAYOUTS[name])


def drawn(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture of smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 40) + y / rng.uniform(3, 40) + rng.uniform(0, 6)) for _ in range(3)]
    levels = 127 + 100 * np.stack(waves, axis=-1) + rng.normal(0, 10, (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


NAMES = tuple(SCORERS)

PEOPLE = {"001": {1: 3, 4: 2}, "009": {2: 4}}  # participant → session → number of images
BLACK = ("009", 2, 3)


def write_sessions(root: Path) -> None:
    """``data.json``, images and ``valid_sessions.json`` of two participants; one image is black (and greyscale).

    The last image is ranked first, and so on down; the overall rating is the image's number.
    """
    (root / "preparation").mkdir(parents=True, exist_ok=True)
    listed = {participant: list(sessions) for participant, sessions in PEOPLE.items()}
    (root / "preparation" / "valid_sessions.json").write_text(json.dumps(listed))
    for participant, sessions in PEOPLE.items():
        for session, n_images in sessions.items():
            folder = root / "data" / participant / f"session_{session}"
            folder.mkdir(parents=True)
            surveys = []
            for image in range(1, n_images + 1):
                black = (participant, session, image) == BLACK
                picture = Image.new("L", (64, 64)) if black else drawn(64, 64, 100 * session + image)
                picture.save(folder / f"image{image}.png")
                surveys.append(
                    {
                        "overallRating": image,
                        "alignmentRating": 7,
                        "fidelityRating": 0,
                        "issuesList": {f"issue {name}": place == image for place, name in enumerate(ISSUES)},
                        "reactionList": {name: place == image for place, name in enumerate(EMOTIONS)},
                    }
                )
            content = {
                "prompt": f"a red cat on the moon {session}",
                "ranking": [{"id": place, "name": "image"} for place in reversed(range(n_images))],
                "survey": surveys,
            }
            (folder / "data.json").write_text(json.dumps(content))
