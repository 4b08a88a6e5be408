"""The AU adapter: cross-attention to AU tokens beside that to the text (SynFER, arXiv 2410.09865).

Z = Attention(Q, K_text, V_text) + λ · Attention(Q, K_AU, V_AU) in every cross-attention of a frozen UNet, with the
parts that diffusers has for IP-Adapters. K_AU and V_AU start as the text's.

There is one token an AU: a softmax over a single token is 1, so that K_AU would get no gradient and the same vector
would be added everywhere in the picture. Nothing is normalised behind value · vector: a normalised token says that an
AU is there, and not how strong it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fergi.features import ACTION_UNITS
from fergi.files import FergiError, replacing
from fergi.scorers.interface import offline_import
from fergi.weights import load_state, load_strictly

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ADAPTER_FILE = "au_adapter.safetensors"
ADVICE = "Train it with train_face_generator.py, or choose another file."
# Standard deviations of new values; those of a text's tokens are about 1.
NAME, VECTOR, NULL = 0.5, 0.2, 0.02


class ActionUnitTokens(nn.Module):
    """Intensities as tokens: value · vector + name for each AU, or the AU's null token where no value is told."""

    def __init__(self, n_units: int, width: int) -> None:
        super().__init__()
        for name, deviation in (("names", NAME), ("vectors", VECTOR), ("null", NULL)):
            setattr(self, name, nn.Parameter(deviation * torch.randn(n_units, width)))

    def forward(self, intensities: Tensor) -> Tensor:
        """Tokens, shape (n, units, width); ``intensities``: shape (n, units), 0–5, NaN where none is told."""
        values = intensities.to(self.names.dtype)[..., None]
        return torch.where(values.isnan(), self.null, values.nan_to_num() * self.vectors + self.names)


class ActionUnitAdapter(nn.Module):
    """What is trained: ``tokens``, and ``layers``, one attention processor for each cross-attention.

    They are parts of the UNet too, so that the UNet computes with them.
    """

    def __init__(
        self, unet: "UNet2DConditionModel", seed: int, source: str, units: Sequence[int] = ACTION_UNITS
    ) -> None:
        """Add a new adapter to a UNet; ``source`` is the UNet's name in errors, ``units`` are fewer in experiments.

        Raises
        ------
        FergiError
            If the UNet has no cross-attention.
        """
        super().__init__()
        self.units = tuple(units)
        with offline_import():
            from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
            from diffusers.models.embeddings import MultiIPAdapterImageProjection
        processors = dict(unet.attn_processors)
        attentions = {f"{name}.processor": module for name, module in unet.named_modules() if name.endswith("attn2")}
        if not attentions:
            raise FergiError(
                f"{source} has no cross-attention, to which AUs could be added. Name a Stable Diffusion 1.x or 2.x."
            )
        width = unet.config.cross_attention_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tokens = ActionUnitTokens(len(units), width)
            for name, attention in attentions.items():
                layer = IPAdapterAttnProcessor2_0(attention.to_k.out_features, width, num_tokens=(len(units),))
                for own, of_text in ((layer.to_k_ip[0], attention.to_k), (layer.to_v_ip[0], attention.to_v)):
                    own.weight.data = of_text.weight.detach().float().clone()
                processors[name] = layer
        self.layers = nn.ModuleList(processors[name] for name in attentions)
        self.to(unet.device)
        unet.set_attn_processor(processors)
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([self.tokens])
        unet.register_to_config(encoder_hid_dim_type="ip_image_proj")

    def load(self, path: Path) -> None:
        """Take the values of a file, all or nothing; FergiError counts what does not fit."""
        self.take(load_state(path, advice=ADVICE), path)

    def take(self, values: Mapping[str, Tensor], source: Path) -> None:
        """Take values, all or nothing; ``source`` says in FergiError where they came from."""
        load_strictly(self, values, source=source)

    def save(self, path: Path) -> None:
        """Write the values as float32, all or nothing."""
        from safetensors.torch import save

        values = {name: value.detach().float().cpu().contiguous() for name, value in self.state_dict().items()}
        with replacing(path) as file:
            file.write(save(values, metadata={"action_units": " ".join(map(str, self.units))}))
