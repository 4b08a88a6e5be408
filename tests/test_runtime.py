"""The AU network in OpenVINO: equal to PyTorch, converted once, and silent."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHECKOUT
from rounding import float32_bound
from torch import nn

from fergi.action_units.estimator import AUEstimator
from fergi.action_units.network import network_input, random_network
from fergi.action_units.runtime import NETWORK_FILE, OpenVINONetwork, converted, has_bfloat16
from fergi.files import FergiError
from fergi.openvino import translated
from fergi.weights import save_weights

BATCH = 4


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Random weights of the smallest network."""
    path = tmp_path / "checkpoint.pth"
    save_weights(random_network("ir10-thin", seed=3).state_dict(), path)
    return path


def faces(seed: int = 0) -> np.ndarray:
    """Pictures of noise."""
    return np.random.default_rng(seed).integers(0, 256, (BATCH, 112, 112, 3), np.uint8)


def of_pytorch(checkpoint: Path, network: str, pictures: np.ndarray) -> np.ndarray:
    """The reference."""
    reference = random_network(network, seed=0).eval()
    reference.load_state_dict(torch.load(checkpoint, weights_only=True))
    with torch.inference_mode():
        return reference(network_input(torch.from_numpy(pictures))).numpy()


@pytest.mark.parametrize("network", ["ir10-thin", "ir50"])
def test_outputs_equal_pytorchs(network, tmp_path):
    """To the rounding of float32."""
    path = tmp_path / "checkpoint.pth"
    save_weights(random_network(network, seed=1).state_dict(), path)
    model = converted(path, network, BATCH, tmp_path / "converted")
    wanted = of_pytorch(path, network, faces())
    found = OpenVINONetwork(model, "float32", threads=1).outputs(faces())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=float32_bound(wanted))


def test_bfloat16_is_less_exact_and_close(checkpoint, tmp_path):
    """Its error is a small part of the outputs' spread, and it is really used."""
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    wanted = of_pytorch(checkpoint, "ir10-thin", faces())
    model = converted(checkpoint, "ir10-thin", BATCH, tmp_path / "converted")
    error = np.abs(OpenVINONetwork(model, "bfloat16", threads=1).outputs(faces()) - wanted).max()
    assert float32_bound(wanted) < error < 0.2 * wanted.std()


def test_several_threads_get_their_own_outputs(checkpoint, tmp_path):
    """Each batch's, whichever thread and whatever runs beside it."""
    network = OpenVINONetwork(converted(checkpoint, "ir10-thin", BATCH, tmp_path / "converted"), "float32", threads=3)
    alone = [network.outputs(faces(seed)).copy() for seed in range(24)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda seed: network.outputs(faces(seed)), range(24)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=float32_bound(one))


def test_a_checkpoint_is_converted_once(checkpoint, tmp_path):
    """Other weights get another file; files of other versions of OpenVINO for the same weights go."""
    folder = tmp_path / "converted"
    first = converted(checkpoint, "ir10-thin", BATCH, folder)
    written = first.stat().st_mtime_ns
    assert converted(checkpoint, "ir10-thin", BATCH, folder) == first
    assert first.stat().st_mtime_ns == written

    save_weights(random_network("ir10-thin", seed=4).state_dict(), checkpoint)
    second = converted(checkpoint, "ir10-thin", BATCH, folder)
    assert first.is_file() and second.is_file() and first != second

    second.parent.rename(folder / second.parent.name.replace("openvino-", "openvino-0."))
    assert converted(checkpoint, "ir10-thin", BATCH, folder) == second
    assert sorted(folder.iterdir()) == sorted([first.parent, second.parent])


@pytest.mark.parametrize(("name", "keep"), [(NETWORK_FILE, 0), (NETWORK_FILE, 300), ("network.bin", 1000)])
def test_a_damaged_conversion_is_named(name, keep, checkpoint, tmp_path):
    """With what to remove."""
    model = converted(checkpoint, "ir10-thin", BATCH, tmp_path / "converted")
    whole = (model.parent / name).read_bytes()
    (model.parent / name).write_bytes(whole[:keep])
    with pytest.raises(FergiError, match=r"OpenVINO cannot use .*network\.xml .*Remove the folder .*--runtime torch"):
        OpenVINONetwork(model, "float32", threads=1)


def test_a_damaged_conversion_is_named_by_the_first_batch(checkpoint, tmp_path):
    """Clips compile the network while their workers start."""
    model = converted(checkpoint, "ir10-thin", 8, tmp_path / "converted")
    model.write_bytes(model.read_bytes()[:300])
    estimator = AUEstimator(
        checkpoint, "ir10-thin", "cpu", runtime="openvino", converted_networks=tmp_path / "converted"
    )
    with pytest.raises(FergiError, match=r"OpenVINO cannot use .*network\.xml .*Remove the folder"):
        estimator.estimate(faces())


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Sigmoid().eval(), "Sigmoid"),
        (nn.Conv2d(3, 3, 3).eval(), "Conv2d"),  # its bias
        (nn.BatchNorm2d(3), "BatchNorm2d"),  # in training
        (nn.Flatten(2).eval(), "Flatten"),
    ],
)
def test_a_layer_without_translation_is_refused(layer, name):
    """Rather than computed without a part of it."""
    with pytest.raises(TypeError, match=f"no translation of {name}"):
        translated(nn.Sequential(layer), (1, 3, 8, 8))


def test_a_damaged_checkpoint_and_another_layout_are_named(checkpoint, tmp_path):
    """As without OpenVINO; nothing is left in the folder."""
    with pytest.raises(FergiError, match="does not fit IResNet"):
        converted(checkpoint, "ir18-thin", BATCH, tmp_path / "converted")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(FergiError, match="cannot be read"):
        converted(checkpoint, "ir10-thin", BATCH, tmp_path / "converted")
    assert not list((tmp_path / "converted").glob("*"))


def test_no_socket_is_opened(checkpoint, tmp_path):
    """By import, conversion, translation, compilation, use; telemetry is not loaded although its package is there."""
    program = f"""
import importlib.util, sys
assert importlib.util.find_spec("openvino_telemetry"), "without the package this test tells nothing"
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, arguments)) if event.startswith("socket.") else None)
from pathlib import Path
import numpy as np
from fergi.action_units.runtime import OpenVINONetwork, converted
model = converted(Path({str(checkpoint)!r}), "ir10-thin", {BATCH}, Path({str(tmp_path / "converted")!r}))
OpenVINONetwork(model, "float32", threads=1).outputs(np.zeros(({BATCH}, 112, 112, 3), np.uint8))
from fergi.faces.mobilefacenet import MobileFaceNet
from fergi.openvino import compiled, translated
compiled(translated(MobileFaceNet().eval(), (1, 3, 112, 112)), "f32", threads=1)
import socket
inner = [event for event in seen if event[0] != "socket.gethostname"]
assert not inner, inner
assert sys.modules.get("openvino_telemetry") is None
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
