"""Social Reward: a CLIP ViT-L/14 trained further on what people of a picture community edit on (ICLR 2024).

Its authors published neither weights nor data. The file may be in transformers' layout, in OpenAI's, or written by
``finetune_scorer.py --scorer SocialReward``, which starts from CLIP as its authors did.

Run     python -m fergi.scorers.social_reward FILE --layout openai --out FILE      convert a file of CLIP's weights
        python -m fergi.scorers.social_reward FILE      into the place from which stage 5 reads it
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fergi.scorers.adapters import save_tensors
from fergi.scorers.clip import Clip, clip_network
from fergi.scorers.interface import POSITIONS
from fergi.script import argument_parser, run
from fergi.weights import CLIP_L, SOCIAL_REWARD, load_state, load_strictly

# OpenAI's names → transformers' (``<i>`` is the number of a block). Those in TRANSPOSED are also transposed; the
# attention's in_proj is three projections one above the other.
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "logit_scale": "logit_scale",
}
IN_BLOCKS = {
    "attn.out_proj": "self_attn.out_proj",
    "attn.in_proj": "self_attn.in_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TRANSPOSED = ("visual.proj", "text_projection")
SCALARS = ("input_resolution", "context_length", "vocab_size")  # which OpenAI's own files have beside the weights
PARTS = ("q_proj", "k_proj", "v_proj")
BLOCK = re.compile(r"^(.+\.(?:resblocks|layers)\.)(\d+\.)(.+)$")


def _renamed(name: str, names: dict[str, str], in_blocks: dict[str, str]) -> str:
    """Another layout's name of an entry; one that is not known stays, for the strict reader to refuse."""
    if found := BLOCK.match(name):
        beginning, number, rest = found.groups()
        stem, dot, kind = rest.replace("in_proj_", "in_proj.").rpartition(".")
        return names.get(beginning, beginning) + number + in_blocks.get(stem, stem) + dot + kind
    stem, dot, kind = name.rpartition(".")
    return names.get(name) or (names[stem] + dot + kind if stem in names else name)


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of CLIP in transformers' layout, from OpenAI's; one that is in it already stays as it is."""
    if "visual.proj" not in state:
        return state
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        new = _renamed(name, NAMES, IN_BLOCKS)
        if ".self_attn.in_proj." in new:
            for part, rows in zip(PARTS, value.chunk(3), strict=True):
                converted[new.replace("in_proj", part)] = rows.contiguous()
        elif name not in SCALARS:
            converted[new] = value.T.contiguous() if name in TRANSPOSED else value
    return converted


def to_openai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The other way round."""
    names, in_blocks = ({new: old for old, new in each.items()} for each in (NAMES, IN_BLOCKS))
    converted: dict[str, Tensor] = {}
    for name, value in to_transformers(state).items():
        if name.endswith("position_ids"):
            continue
        if ".self_attn.q_proj." in name:
            others = [name.replace("q_proj", part) for part in PARTS]
            value = torch.cat([state[each] for each in others])
            name = name.replace("q_proj", "in_proj")
        elif ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        old = _renamed(name, names, in_blocks).replace("attn.in_proj.", "attn.in_proj_")
        converted[old] = value.T.contiguous() if old in TRANSPOSED else value
    return converted


class SocialReward(Clip):
    """Cosine, not scaled; −1 to 1."""

    name = "SocialReward"
    files = (SOCIAL_REWARD,)
    starts_from = (CLIP_L,)
    convert = staticmethod(to_transformers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert a file, if it is whole."""
    parser = argument_parser(__doc__, "python -m fergi.scorers.social_reward")
    parser.add_argument("file", type=Path, help="of plain weights: .safetensors, or what torch.save wrote")
    parser.add_argument("--layout", choices=("transformers", "openai"), default="transformers")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {SOCIAL_REWARD.path}")
    chosen = parser.parse_args(arguments)
    target = chosen.out or SOCIAL_REWARD.under(chosen.root)
    network = clip_network(SocialReward.official_layout)
    state = to_transformers(load_state(chosen.file))
    load_strictly(network, state, source=chosen.file, except_for=[name for name in state if name.endswith(POSITIONS)])
    whole = network.state_dict()
    save_tensors(to_openai(whole) if chosen.layout == "openai" else whole, target)
    print(f"Wrote {target} in the layout of {chosen.layout}, {len(whole)} entries.")


if __name__ == "__main__":
    run(main)
