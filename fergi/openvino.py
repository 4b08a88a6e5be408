"""OpenVINO, which computes networks on a CPU: imported without telemetry, compiled, translated from PyTorch.

A network of a few layer types is translated in milliseconds by ``translated``. OpenVINO's own converter knows all of
PyTorch and takes seconds (see ``fergi.action_units.runtime.converted``).
"""

import operator
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    import openvino

_compiling = threading.Lock()


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which would otherwise send an event at import and at every conversion.

    Its tools import the package openvino_telemetry where that is there, and do without where it is not.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # an import of it now fails as if it were not installed
    import openvino

    return openvino


def compiled(model: "Path | openvino.Model", precision: str, threads: int) -> "openvino.CompiledModel":
    """A network for so many threads, each with batches of its own and one core; ``precision`` is f32 or bf16.

    Raises
    ------
    RuntimeError
        If it is a file that OpenVINO cannot read.
    """
    ov = import_openvino()
    options = {
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": "NO",  # other processes and threads use the same cores
        "INFERENCE_PRECISION_HINT": precision,
    }
    # One run before threads share it: OpenVINO's Python part sets up static objects at their first use, and two
    # threads that do so at the same time can wait for each other for ever.
    with _compiling:
        network = ov.Core().compile_model(model, "CPU", options)
        first = network.input()
        network.create_infer_request().infer([np.zeros(first.shape, first.element_type.to_dtype())])
    return network


def translated(network: nn.Module, shape: Sequence[int]) -> "openvino.Model":
    """A network of PyTorch in inference mode, for float32 inputs of one shape.

    It may have convolutions, batch normalisations, PReLU and linear layers, sums, and a flattening from axis 1 on.

    Raises
    ------
    TypeError
        If it has anything else.
    """
    ov = import_openvino()
    traced = fx.symbolic_trace(network)
    inputs, values = [], {}
    for node in traced.graph.nodes:
        given = [values[each] for each in node.all_input_nodes]
        if node.op == "placeholder":
            inputs.append(ov.opset15.parameter(list(shape), np.float32))
            values[node] = inputs[-1]
        elif node.op == "call_module":
            values[node] = _layer(ov.opset15, traced.get_submodule(node.target), *given)
        elif node.op == "call_function" and node.target is operator.add:
            values[node] = ov.opset15.add(*given)
        elif node.op == "call_method" and node.target == "flatten" and node.args[1:] == (1,):
            values[node] = ov.opset15.reshape(*given, [shape[0], -1], special_zero=False)
        elif node.op == "output":
            return ov.Model(given, inputs)
        else:
            raise TypeError(f"there is no translation of {node.op} {node.target}")
    raise AssertionError("a traced network has an output")


def _layer(ops: Any, layer: nn.Module, x: Any) -> Any:
    """One layer of PyTorch applied to ``x``, in the operations ``ops`` of OpenVINO."""

    def number(tensor: Tensor) -> Any:
        return ops.constant(tensor.detach().numpy())

    if isinstance(layer, nn.Conv2d) and layer.bias is None and layer.padding_mode == "zeros":
        geometry = list(layer.stride), list(layer.padding), list(layer.padding), list(layer.dilation)
        if layer.groups == 1:
            return ops.convolution(x, number(layer.weight), *geometry)
        return ops.group_convolution(x, number(layer.weight.unflatten(0, (layer.groups, -1))), *geometry)
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and not layer.training:
        moments = layer.weight, layer.bias, layer.running_mean, layer.running_var
        return ops.batch_norm_inference(x, *map(number, moments), layer.eps)
    if isinstance(layer, nn.PReLU):
        return ops.prelu(x, number(layer.weight))
    if isinstance(layer, nn.Linear) and layer.bias is None:
        return ops.matmul(x, number(layer.weight), False, True)
    raise TypeError(f"there is no translation of {layer}")
