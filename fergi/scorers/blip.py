"""BLIP score: the cosine of the projected text and image embeddings by BLIP (large), as ImageReward's benchmark has it.

The networks are those of the image-reward package, which ImageReward itself is made of.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

from fergi.scorers.interface import Scorer, load_network, normalised, offline_import, once_each
from fergi.scorers.pixels import cropped_by_torchvision
from fergi.scorers.text import bert_tokenizer
from fergi.weights import BERT_VOCABULARY, BLIP_LARGE

TEMPERATURE = 0.07  # by which BLIP's contrastive loss divided cosines when its training began
# Pixels of the picture and of a patch, the image encoder's sizes, the dimensions in which text and image are compared,
# and the text encoder's sizes under the names of transformers' BertConfig.
BLIP_LAYOUT = {
    "side": 224,
    "patch": 16,
    "vision_width": 1024,
    "vision_depth": 24,
    "vision_heads": 16,
    "projection": 256,
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "vocab_size": 30524,
        "layer_norm_eps": 1e-12,
    },
}


class BlipEncoders(nn.Module):
    """The image encoder and the text encoder, which can also look at the image."""

    def __init__(self, layout: dict[str, Any]) -> None:
        super().__init__()
        with offline_import():
            from ImageReward.models.BLIP.med import BertConfig, BertModel
            from ImageReward.models.BLIP.vit import VisionTransformer
        self.visual_encoder = VisionTransformer(
            img_size=layout["side"],
            patch_size=layout["patch"],
            embed_dim=layout["vision_width"],
            depth=layout["vision_depth"],
            num_heads=layout["vision_heads"],
        )
        text = BertConfig(**layout["text"], encoder_width=layout["vision_width"], add_cross_attention=True)
        self.text_encoder = BertModel(config=text, add_pooling_layer=False)


class BlipCosine(BlipEncoders):
    """The encoders and the projections by which text and image are compared."""

    def __init__(self, layout: dict[str, Any]) -> None:
        super().__init__(layout)
        self.vision_proj = nn.Linear(layout["vision_width"], layout["projection"])
        self.text_proj = nn.Linear(layout["text"]["hidden_size"], layout["projection"])


class BlipScorer(Scorer):
    """What the BLIP score and ImageReward have in common."""

    packages = ("image-reward", "transformers", "timm")
    official_layout = BLIP_LAYOUT
    network_class: ClassVar[type[nn.Module]]  # made from a layout
    unused: ClassVar[tuple[str, ...]]  # beginnings of names in the file of parts that the score does not need
    n_tokens: ClassVar[int] = 35  # the image-reward package's
    lora_targets = (
        *("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"),
        *("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense"),
    )

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Encoders and tokenizer."""
        self.side = layout["side"]
        self.tokenizer = bert_tokenizer(root, layout["text"]["vocab_size"])
        network = self.network_class(layout)
        self.network = load_network(network, self.files[0], root, self.device, unused=self.unused)

    def pixels(self, picture: Image.Image) -> Tensor:
        """The centre, cut as torchvision does."""
        return cropped_by_torchvision(picture, self.side)

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers and which of them count, both of shape (n, n_tokens)."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.n_tokens, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)


class Blip(BlipScorer):
    """Cosine, −1 to 1."""

    name = "BLIP"
    files = (BLIP_LARGE, BERT_VOCABULARY)
    method = "cosine of projected tokens; picture: shorter side to 224 pixels, bicubic, centre; text: 35 tokens"
    network_class = BlipCosine
    # For training only: the momentum encoders, their queues, the matching head and the caption decoder.
    unused = (
        *("visual_encoder_m.", "vision_proj_m.", "text_encoder_m.", "text_proj_m.", "text_decoder.", "itm_head."),
        *("image_queue", "text_queue", "queue_ptr", "temp"),
    )
    projections = ("vision_proj", "text_proj")

    def logits(self, scores: Tensor) -> Tensor:
        """Cosines as BLIP's contrastive loss takes them."""
        return scores / TEMPERATURE

    def cosines(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosines."""
        different, places = once_each(prompts)
        tokens, counts = self.tokens(different)
        texts = self.network.text_encoder(tokens, attention_mask=counts, return_dict=True, mode="text")
        texts = normalised(self.network.text_proj(texts.last_hidden_state[:, 0]))[places]
        images = normalised(self.network.vision_proj(self.network.visual_encoder(pixels)[:, 0]))
        return (texts * images).sum(dim=-1)
