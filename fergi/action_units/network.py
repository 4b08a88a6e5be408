"""The AU model: IR-50 whose last layer gives intensities and thresholds of AUs (Appendix B.3).

IR-50 is the residual network of the ArcFace work with 3, 4, 14 and 3 blocks. A block normalises before its first
convolution, and the shortcut carries the sum on without an activation. Names and shapes of the entries are those of
the published weights; the last layer is 512·7·7 → 384 without the normalisation that follows it there, no dropout.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fergi.files import FergiError
from fergi.weights import AU_MODEL, load_state, load_strictly

SIDE = 112  # pixels
N_ACTION_UNITS = 64  # outputs are numbered by AU; the data sets label twelve of them
N_THRESHOLDS = 5  # intensity ≥ 1, …, ≥ 5
N_OUTPUTS = N_ACTION_UNITS * (1 + N_THRESHOLDS)
HEAD = "fc."  # how the entries of the last layer begin
PRETRAINED_HEAD = ("fc.", "features.")  # what the face recognition weights have in its place

NETWORKS = {  # name: blocks of the four stages, channels of the first stage
    "ir50": ((3, 4, 14, 3), 64),  # the paper's
    "ir18": ((2, 2, 2, 2), 64),
    "ir18-thin": ((2, 2, 2, 2), 16),  # for the demo: learns drawn faces on a CPU in minutes
    "ir10-thin": ((1, 1, 1, 1), 16),  # for tests
}


class Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut; the second one halves the picture in the first block of a stage."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, channels_in, h, w) → (n, channels, h/stride, w/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """IR-50, or a smaller member of its family, with the AU model's last layer.

    Parameters
    ----------
    blocks : sequence of 4 int
        Blocks of each stage.
    width : int
        Channels of the first stage; they double from stage to stage.

    Notes
    -----
    A new instance has random weights (convolutions as He et al. 2015 for PReLU, the rest PyTorch's defaults);
    see ``random_network`` and ``load_network``.
    """

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.layer1 = _stage(blocks[0], width, width)
        self.layer2 = _stage(blocks[1], width, 2 * width)
        self.layer3 = _stage(blocks[2], 2 * width, 4 * width)
        self.layer4 = _stage(blocks[3], 4 * width, 8 * width)
        self.bn2 = nn.BatchNorm2d(8 * width)
        self.fc = nn.Linear(8 * width * (SIDE // 16) ** 2, N_OUTPUTS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of faces.

        Parameters
        ----------
        x : Tensor, shape (n, 3, 112, 112)
            RGB in [0, 1], see ``network_input``.

        Returns
        -------
        Tensor, shape (n, 384), float32
            ``[AU − 1]`` is the intensity of an AU, not clipped; ``[64 + 5 (AU − 1) + j − 1]`` is the logit of its
            intensity being ``j`` or more. The last layer computes in float32 under automatic mixed precision too.
        """
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        x = torch.flatten(x, 1)
        with torch.autocast(x.device.type, enabled=False):
            return self.fc(x.to(self.fc.weight.dtype))


def _stage(n_blocks: int, channels_in: int, channels: int) -> nn.Sequential:
    first = Block(channels_in, channels, stride=2)
    return nn.Sequential(first, *(Block(channels, channels, stride=1) for _ in range(n_blocks - 1)))


def network_input(pictures: Tensor) -> Tensor:
    """Pictures as the network takes them: divided by 255, no mean subtracted.

    Parameters
    ----------
    pictures : Tensor of uint8, shape (n, 112, 112, 3)
        RGB.

    Returns
    -------
    Tensor of float32, shape (n, 3, 112, 112)
        In [0, 1]; a view in PyTorch's channels-last layout.
    """
    return pictures.permute(0, 3, 1, 2).to(torch.float32).div(255)


def intensities(outputs: Tensor, action_units: Sequence[int]) -> Tensor:
    """The intensities of some AUs, shape (n, len(action_units)); about 0–5, not clipped."""
    return outputs[:, [unit - 1 for unit in action_units]]


def threshold_logits(outputs: Tensor) -> Tensor:
    """The logits of intensity ≥ j, shape (n, 64, 5)."""
    return outputs[:, N_ACTION_UNITS:].unflatten(1, (N_ACTION_UNITS, N_THRESHOLDS))


def random_network(name: str, seed: int) -> IResNet:
    """One of ``NETWORKS`` with random weights that depend on the seed alone; the global random state stays.

    Raises
    ------
    FergiError
        If there is no network of that name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(name)


def _network(name: str) -> IResNet:
    if name not in NETWORKS:
        raise FergiError(f"There is no network {name!r}. Choose one of {', '.join(NETWORKS)}.")
    return IResNet(*NETWORKS[name])


def load_network(path: Path, name: str) -> IResNet:
    """A trained AU model, ready for inference, on the CPU.

    Raises
    ------
    FergiError
        If the file is missing or unusable, or is of another network.
    """
    state = load_state(path, advice=AU_MODEL.advice)
    with torch.device("meta"):  # no random values for a checkpoint to replace
        network = _network(name)
    load_strictly(network.to_empty(device="cpu"), state, source=path)
    return network.eval()
