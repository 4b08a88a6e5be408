"""MobileFaceNet as the paper's landmark network has it: 112 × 112 RGB in [0, 1] in, 68 points out."""

from collections import OrderedDict

from torch import Tensor, nn

N_LANDMARKS = 68


class _Convolution(nn.Sequential):
    """Convolution, batch normalisation and, unless it projects, a PReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, prelu: bool = True):
        conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        parts = OrderedDict(conv=conv, bn=nn.BatchNorm2d(n_out))
        super().__init__(parts | {"prelu": nn.PReLU(n_out)} if prelu else parts)


class _Bottleneck(nn.Module):
    """1 × 1 convolution to more channels, depthwise convolution, 1 × 1 convolution without activation."""

    def __init__(self, n_in: int, n_out: int, groups: int, stride: int = 1, residual: bool = False):
        super().__init__()
        self.conv = _Convolution(n_in, groups)
        self.conv_dw = _Convolution(groups, groups, 3, stride, groups)
        self.project = _Convolution(groups, n_out, prelu=False)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


def _residuals(n: int, n_blocks: int, groups: int) -> nn.Sequential:
    """Bottlenecks of one width with residual connections."""
    blocks = (_Bottleneck(n, n, groups, residual=True) for _ in range(n_blocks))
    return nn.Sequential(OrderedDict(model=nn.Sequential(*blocks)))


class _Output(nn.Module):
    """A depthwise convolution over the whole field, then a linear layer."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv_6_dw = _Convolution(n_in, n_in, 7, groups=n_in, prelu=False)
        self.conv_6_dw.conv.padding = (0, 0)
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.bn = nn.BatchNorm1d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(self.conv_6_dw(x).flatten(1)))


class MobileFaceNet(nn.Module):
    """The network; its entries have the names of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Convolution(3, 64, 3, 2)
        self.conv2_dw = _Convolution(64, 64, 3, 1, 64)
        self.conv_23 = _Bottleneck(64, 64, 128, stride=2)
        self.conv_3 = _residuals(64, 4, 128)
        self.conv_34 = _Bottleneck(64, 128, 256, stride=2)
        self.conv_4 = _residuals(128, 6, 256)
        self.conv_45 = _Bottleneck(128, 128, 512, stride=2)
        self.conv_5 = _residuals(128, 2, 256)
        self.conv_6_sep = _Convolution(128, 512)
        self.output_layer = _Output(512, 2 * N_LANDMARKS)

    def forward(self, x: Tensor) -> Tensor:
        """Landmarks (n, 136) as x, y, x, y, … in the unit square from pictures (n, 3, 112, 112)."""
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        x = self.conv_45(self.conv_4(self.conv_34(self.conv_3(x))))
        return self.output_layer(self.conv_6_sep(self.conv_5(x)))
