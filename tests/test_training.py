"""Training of the AU model: it learns, any number of processes gives the same, and so does going on."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import write_faces
from numpy.testing import assert_allclose
from small_disk import run_with_room_for
from test_weights import largest_file
from torch import distributed, nn

import DISFAwithPlus_train_model as stage
from benchmarks import training as benchmark
from fergi.action_units import faces_dataset
from fergi.action_units.faces_dataset import read_picture
from fergi.action_units.losses import loss_parts, loss_weights
from fergi.action_units.network import intensities, load_network, network_input, random_network
from fergi.action_units.parallel import SynchronisedBatchNorm, synchronise_batch_norms
from fergi.action_units.training import Training, choose_precision, set_cuda_arithmetic
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.processes import Process, choose_device
from fergi.weights import load_state, save_weights

CHECKOUT = Path(__file__).resolve().parent.parent
SMALL = ["--network", "ir10-thin", "--from-scratch", "--device", "cpu"]
FAST = ["--rate", "1e-3", "--last-layer-rate", "1e-3"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests share the machine; threads that wait for each other would make them many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def _faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "root"
    write_faces(root, "DISFA", {"SN001": 10, "SN002": 10, "SN003": 6})
    write_faces(root, "DISFAPlus", {"SN001": 5, "SN003": 2}, seed=1)
    return root


@pytest.fixture
def root(_faces, tmp_path) -> Path:
    """A small root of its own: 33 pictures of three subjects, 25 of them not of SN003."""
    return Path(shutil.copytree(_faces, tmp_path / "root"))


def train(root: Path, *options: str) -> Path:
    """Run the script in this process; gives the folder it wrote."""
    stage.main(["--root", str(root), *SMALL, *options])
    return root / "AU_models"


def same_tensors(first: Path, second: Path) -> bool:
    """Whether two checkpoints are the same to the last bit."""
    a, b = load_state(first), load_state(second)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A root on which the tiny network has learned drawn faces; SN011 and SN012 were held out."""
    root = tmp_path_factory.mktemp("learned") / "root"
    write_faces(root, "DISFA", {f"SN{person:03}": 26 for person in range(1, 13)})
    write_faces(root, "DISFAPlus", {f"SN{person:03}": 16 for person in (1, 2, 12)}, seed=1)
    train(root, *FAST, "--batch-size", "16", "--epochs", "6", "--held-out", "SN011", "SN012")
    return root


def test_it_learns(learned):
    """The loss falls, and people it never saw are read with an ICC above 0.8. Drawn faces: no word about real ones."""
    log = pd.read_csv(learned / "AU_models" / "training_log.csv")
    training, held_out = log[log.part == "training"], log[log.part == "held-out"]
    assert training.loss.iloc[-1] < 0.25 * training.loss.iloc[0]
    assert held_out.loss.iloc[-1] < 0.25 * held_out.loss.iloc[0]
    assert (training.frames == 10 * 26 + 2 * 16).all() and (held_out.frames == 2 * 26 + 16).all()
    assert held_out.AU4_ICC.iloc[-1] > 0.8 and held_out.AU12_ICC.iloc[-1] > 0.8


def test_the_log_has_every_au(learned):
    """Losses, and three metrics an AU; empty where there are no labels."""
    log = pd.read_csv(learned / "AU_models" / "training_log.csv")
    metrics = [f"AU{unit}_{name}" for unit in ACTION_UNITS for name in ("ICC", "MSE", "MAE")]
    losses = ["loss", "mse_loss", "cosine_loss", "cross_entropy_loss"]
    assert list(log) == ["epoch", "part", "frames", *losses, *metrics]
    assert log.epoch.tolist() == [epoch for epoch in range(1, 7) for _ in range(2)]
    assert_allclose(log.loss, log[losses[1:]].sum(axis=1))
    assert log.AU1_ICC.isna().all() and log.AU4_ICC.notna().all()


def test_the_model_does_what_the_log_says(learned):
    """Read by its own name, it estimates the held-out pictures with the logged mean squared error."""
    network = load_network(learned / "AU_models" / "checkpoint_epoch6.pth", "ir10-thin")
    predicted, actual = [], []
    for dataset in ("DISFA", "DISFAPlus"):
        folder = learned / "preparation" / f"{dataset}_faces"
        index = pd.read_csv(folder / "index.csv").query("subject in ['SN011', 'SN012']")
        pictures = torch.from_numpy(np.stack([read_picture(folder / name) for name in index.image]))
        with torch.inference_mode():
            predicted.append(intensities(network(network_input(pictures)), [4, 12]).numpy())
        actual.append(index[["AU4", "AU12"]].to_numpy())
    logged = pd.read_csv(learned / "AU_models" / "training_log.csv").iloc[-1]
    errors = np.square(np.concatenate(predicted) - np.concatenate(actual)).mean(0)
    assert_allclose(errors, [logged.AU4_MSE, logged.AU12_MSE], rtol=1e-4)


def test_tensorboard_reads_the_log(learned):
    """Every epoch once, the same numbers."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(learned / "AU_models" / "tensorboard")).Reload()
    log = pd.read_csv(learned / "AU_models" / "training_log.csv").query("part == 'held-out'")
    for tag, column in (("held-out/losses/loss", "loss"), ("held-out/ICC/AU12", "AU12_ICC")):
        read = events.Scalars(tag)
        assert [event.step for event in read] == [1, 2, 3, 4, 5, 6]
        assert_allclose([event.value for event in read], log[column], rtol=1e-6)


def test_the_settings_are_written_beside_the_weights(learned):
    """Who was trained on and who was not, with nobody in both."""
    description = json.loads((learned / "AU_models" / "training.json").read_text())
    parts = description["faces"]
    assert parts["held_out"]["subjects"] == ["SN011", "SN012"]
    assert not set(parts["held_out"]["subjects"]) & set(parts["training"]["subjects"])
    assert parts["training"]["frames"] == {"DISFA": 260, "DISFAPlus": 32}
    assert description["settings"]["seed"] == 42 and description["settings"]["start"] == "random"
    assert sum(description["training_labels_by_intensity"]["AU4"]) == 292


def test_running_it_again_does_nothing(learned, capsys):
    """All epochs are done."""
    folder = learned / "AU_models"
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    for epochs in ("6", "1"):
        train(learned, *FAST, "--batch-size", "16", "--epochs", epochs, "--held-out", "SN011", "SN012")
        assert capsys.readouterr().out == "Nothing is left to do: 6 epochs were done before.\n"
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


class Stop(Exception):
    """What ends a training in the middle."""


def interrupt_after(monkeypatch, steps: int) -> None:
    """Let the training of this process end in the middle of a step."""
    original, done = Training.step, []

    def step(self, batch, n):
        if len(done) == steps:
            raise Stop
        done.append(n)
        original(self, batch, n)

    monkeypatch.setattr(Training, "step", step)


@pytest.mark.parametrize("steps", [2, 3, 5, 6, 7], ids=lambda steps: f"after-{steps}-steps")
def test_going_on_gives_what_not_stopping_gives(root, tmp_path, monkeypatch, steps):
    """To the last bit, wherever it stopped: four steps an epoch, a state after every second and every epoch."""
    whole = Path(shutil.copytree(root, tmp_path / "whole"))
    options = [*FAST, "--batch-size", "7", "--epochs", "2", "--held-out", "SN003", "--state-every", "2"]
    expected = train(whole, *options)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupt_after(patch, steps)
        train(root, *options)
    folder = train(root, *options)
    for name in ("checkpoint_epoch1.pth", "checkpoint_epoch2.pth"):
        assert same_tensors(folder / name, expected / name)
    for name in ("training_log.csv", "training.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    assert len(list((folder / "tensorboard").iterdir())) == 2


def test_a_finished_training_can_be_prolonged(root, tmp_path):
    """One epoch and another one are two epochs."""
    whole = Path(shutil.copytree(root, tmp_path / "whole"))
    train(root, "--batch-size", "11", "--epochs", "1")
    folder = train(root, "--batch-size", "11", "--epochs", "2")
    assert same_tensors(
        folder / "checkpoint_epoch2.pth",
        train(whole, "--batch-size", "11", "--epochs", "2") / "checkpoint_epoch2.pth",
    )


def test_two_processes_give_what_one_gives(root, tmp_path):
    """One epoch at the paper's rates, with torchrun and gloo. The last batch is one picture: a share is empty.

    In float64: where a gradient is nothing but rounding, Adam makes a whole step of it in float32, whose rounding is as
    large as Adam's epsilon, 1e-8, to the side that the order of the sums gives. On some processors that moved a loss by
    3e-4 of itself. In float64 the rounding is far below that epsilon, and such weights stay where they are. Three steps
    through ten layers lose a few of the 16 digits; 1e-9 leaves room for seven.
    """
    alone = Path(shutil.copytree(root, tmp_path / "alone"))
    options = ["--batch-size", "12", "--epochs", "1", "--held-out", "SN003", "--precision", "float64"]
    expected = pd.read_csv(train(alone, *options) / "training_log.csv")
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(CHECKOUT / "DISFAwithPlus_train_model.py"), "--root", str(root), *SMALL, *options, "--workers", "1"),
        ],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=180,
    )
    found = pd.read_csv(root / "AU_models" / "training_log.csv")
    assert found.frames.tolist() == expected.frames.tolist() == [25, 8]
    for name in ("loss", "mse_loss", "cosine_loss", "cross_entropy_loss", "AU4_MSE", "AU12_MAE"):
        assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    weights = load_state(root / "AU_models" / "checkpoint_epoch1.pth")
    assert list(weights) == list(random_network("ir10-thin", 0).state_dict())


def _one_of_two(rank: int, roots: list[str], ports: list[int]) -> None:
    """What one of two processes does in the test below."""
    signal.alarm(100)  # rather than wait for the other one for ever
    torch.set_num_threads(1)
    more = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    options = ["--datasets", "DISFAPlus", "--batch-size", "2", "--precision", "bfloat16", "--epochs"]
    os.environ |= {name: str(value) for name, value in more.items()} | {"MASTER_PORT": str(ports[0])}
    train(Path(roots[0]), *options, "1")
    os.environ["MASTER_PORT"] = str(ports[1])
    with pytest.raises(FergiError) as caught:
        train(Path(roots[rank]), *options, "2")
    Path(roots[rank], "message").write_text(str(caught.value))


def test_two_processes_in_half_precision_and_with_a_root_each(root, tmp_path):
    """The first trains as in float32, nearly; going on from one's own disk, as on two machines, is refused by both."""
    other = Path(shutil.copytree(root, tmp_path / "other"))
    alone = Path(shutil.copytree(root, tmp_path / "alone"))
    with contextlib.ExitStack() as sockets:
        free = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in range(2)]
        ports = [each.getsockname()[1] for each in free]
    torch.multiprocessing.start_processes(_one_of_two, ([str(root), str(other)], ports), nprocs=2, start_method="spawn")
    expected = pd.read_csv(
        train(alone, "--datasets", "DISFAPlus", "--batch-size", "2", "--epochs", "1") / "training_log.csv"
    )
    assert_allclose(pd.read_csv(root / "AU_models" / "training_log.csv").loss, expected.loss, rtol=0.03)
    for each, done in ((root, 1), (other, 0)):
        assert (each / "message").read_text() == (
            "The 2 processes found different data or states to go on from (this one: "
            f"after {done} epochs and 0 steps). Every machine needs the same --root, on a disk that they share."
        )


def _gradients(network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, all_labels, scale: float) -> None:
    weights = loss_weights(all_labels, "paper")
    weights = type(weights)(weights.mse.double(), weights.cross_entropy.double())
    (loss_parts(network(pictures), labels, weights).sum() * scale).backward()


def _share_of_gradients(rank: int, folder: str, n: int) -> None:
    """What one of two processes does in the test below."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/{n}", rank=rank, world_size=2)
    process = Process(rank, 2, torch.device("cpu"))
    given = torch.load(f"{folder}/batch.pth")
    network = synchronise_batch_norms(random_network("ir10-thin", 7), process).double()
    assert isinstance(network.bn1, SynchronisedBatchNorm)
    assert SynchronisedBatchNorm(1)(torch.zeros(1, 1, 2, 2, dtype=torch.float16)).dtype is torch.float16
    pictures, labels = given["pictures"][:n][rank::2], given["labels"][:n][rank::2]
    _gradients(process.spread(network), pictures, labels, given["labels"], 2 / n)
    if process.leads:
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        save_weights({"gradients": gradients, "state": network.state_dict()}, Path(folder, f"result{n}.pth"))
    distributed.destroy_process_group()


@pytest.mark.parametrize("n", [4, 5, 1], ids=["even", "uneven", "empty share"])
def test_gradients_and_batch_statistics_are_those_of_the_whole_batch(tmp_path, n):
    """In double precision the two ways agree to ten digits."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(5, 3, 112, 112, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 6, (5, 64), generator=generator, dtype=torch.int8)
    save_weights({"pictures": pictures, "labels": labels}, tmp_path / "batch.pth")
    network = random_network("ir10-thin", 7).double()
    _gradients(network, pictures[:n], labels[:n], labels, 1 / n)
    torch.multiprocessing.start_processes(_share_of_gradients, (str(tmp_path), n), nprocs=2, start_method="spawn")
    result = torch.load(tmp_path / f"result{n}.pth")
    for name, parameter in network.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert_allclose(result["gradients"][name], parameter.grad, rtol=1e-8, atol=1e-10 * scale + 1e-12, err_msg=name)
    for name, value in network.state_dict().items():
        assert_allclose(result["state"][name], value, rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_last_layer_learns_faster(root):
    """Each group moves by its own rate: Adam's first step is the rate itself, whatever the gradient."""
    folder = train(root, "--batch-size", "33", "--epochs", "1", "--rate", "1e-4", "--last-layer-rate", "1e-2")
    start, end = random_network("ir10-thin", 42).state_dict(), load_state(folder / "checkpoint_epoch1.pth")
    for name, rate in (("fc.weight", 1e-2), ("layer2.0.conv1.weight", 1e-4)):
        assert_allclose((end[name] - start[name]).abs().median(), rate, rtol=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_loses_little(root, tmp_path, precision):
    """The first loss is that of float32 to a hundredth, and the weights move (float16 with scaled gradients)."""
    other = Path(shutil.copytree(root, tmp_path / "other"))
    options = ["--datasets", "DISFAPlus", "--batch-size", "7", "--epochs", "1"]
    single = pd.read_csv(train(root, *options) / "training_log.csv").iloc[0]
    folder = train(other, *options, "--precision", precision)
    assert_allclose(pd.read_csv(folder / "training_log.csv").loss[0], single.loss, rtol=0.01)
    weights = load_state(folder / "checkpoint_epoch1.pth")
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights.values())
    moved = weights["fc.weight"] - random_network("ir10-thin", 42).state_dict()["fc.weight"]
    assert_allclose(moved.abs().median(), 1e-4, rtol=0.02)


def test_modes_differ(root, tmp_path):
    """The numerators of eq. 16 make the squared error larger."""
    other = Path(shutil.copytree(root, tmp_path / "other"))
    options = ["--batch-size", "33", "--epochs", "1"]
    paper = pd.read_csv(train(root, *options) / "training_log.csv").iloc[0]
    released = pd.read_csv(train(other, *options, "--mode", "released") / "training_log.csv").iloc[0]
    assert 2 < paper.mse_loss / released.mse_loss < 4
    assert_allclose(paper.cross_entropy_loss, released.cross_entropy_loss, rtol=1e-6)


def test_pretrained_weights_fill_all_but_the_head(root):
    """IR-50, with a head of the face recognition's size that is not used."""
    state = random_network("ir50", 3).state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(512, 25088), torch.zeros(512)
    state |= {f"features.{name}": torch.zeros(512) for name in ("weight", "bias", "running_mean", "running_var")}
    source = root / "pretrained_models" / "glint360k_cosface_r50_fp16_0.1.pth"
    save_weights(state, source)
    options = ["--root", str(root), "--device", "cpu", "--epochs", "1", "--held-out", "SN001", "SN002"]
    # Rates of 0 leave every weight as it was.
    stage.main([*options, "--rate", "0", "--last-layer-rate", "0", "--weight-decay", "0"])
    end = load_state(root / "AU_models" / "checkpoint_epoch1.pth")
    assert torch.equal(end["layer3.7.conv1.weight"], state["layer3.7.conv1.weight"])
    assert end["fc.weight"].shape == (384, 25088) and "features.weight" not in end
    description = json.loads((root / "AU_models" / "training.json").read_text())
    assert description["settings"]["start"].startswith(f"{source.name}, SHA-256 ")


def expect(message: str, *arguments: str) -> None:
    """The script ends with that sentence."""
    with pytest.raises(FergiError, match=message):
        stage.main(list(arguments))


def test_without_the_pretrained_file(root):
    """Before anything else is looked at."""
    expect(r"glint360k_cosface_r50_fp16_0\.1\.pth\)\. Put the file .*--from-scratch", "--root", str(root))


def test_with_a_pretrained_file_of_another_layout(root):
    """Named as what it is."""
    save_weights({"conv.weight": torch.zeros(1)}, root / "pretrained_models" / "glint360k_cosface_r50_fp16_0.1.pth")
    expect(r"does not fit IResNet .* 468 missing \(first: conv1\.weight\); 1 not known", "--root", str(root))


def test_with_a_pretrained_file_that_is_cut_off(root):
    """An interrupted download."""
    path = root / "pretrained_models" / "glint360k_cosface_r50_fp16_0.1.pth"
    save_weights({"conv1.weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    expect(r"cannot be read: it is cut off or not a PyTorch file\. Put the file", "--root", str(root))


def test_a_smaller_network_has_no_pretrained_weights(root):
    """So random ones must be asked for."""
    expect(r"is for ir50, not for ir18-thin\. Pass --from-scratch", "--root", str(root), "--network", "ir18-thin")


def test_without_one_of_the_folders(root):
    """Unless only the other one is asked for."""
    shutil.rmtree(root / "preparation" / "DISFAPlus_faces")
    expect(r"Run preprocess_DISFAPlus\.py first, or leave DISFAPlus out", "--root", str(root), *SMALL)
    assert (train(root, "--datasets", "DISFA", "--epochs", "1") / "checkpoint_epoch1.pth").exists()


def test_with_labels_that_are_no_intensity(root, capsys):
    """They count as missing, and the script says how many there are."""
    path = root / "preparation" / "DISFA_faces" / "index.csv"
    table = pd.read_csv(path)
    table.loc[:4, "AU4"] = 7
    table.to_csv(path, index=False)
    description = json.loads((train(root, "--epochs", "1") / "training.json").read_text())
    assert "5 labels that are no intensity count as missing" in capsys.readouterr().out
    assert sum(description["training_labels_by_intensity"]["AU4"]) == 33 - 5


def test_without_any_label(root):
    """Nothing could be learned."""
    for dataset in ("DISFA", "DISFAPlus"):
        path = root / "preparation" / f"{dataset}_faces" / "index.csv"
        table = pd.read_csv(path)
        table[["AU4", "AU12"]] = -1
        table.to_csv(path, index=False)
    expect("None of the 33 training pictures has a label", "--root", str(root), *SMALL)


def test_with_a_picture_that_is_none(root):
    """It is named; with it made again, training goes on."""
    picture = root / "preparation" / "DISFA_faces" / "SN002" / "4.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:100])
    expect(
        r"SN002/4\.png is not a readable picture\. Delete it and make it again",
        "--root",
        str(root),
        *SMALL,
        "--workers",
        "1",
    )
    picture.write_bytes(content)
    assert (train(root, "--epochs", "1") / "checkpoint_epoch1.pth").exists()


def test_with_other_settings_it_does_not_go_on(root, monkeypatch):
    """Unless told to begin anew, which removes the old checkpoints and logs, and nobody else's files."""
    folder = train(root, "--epochs", "2", "--batch-size", "33")
    (folder / "tensorboard" / "events.mine").touch()
    again = ["--root", str(root), *SMALL, "--epochs", "1", "--batch-size", "33"]
    expect(r"belongs to a training with other seed \(42, now 43\)\. Repeat its settings", *again, "--seed", "43")
    expect(r"belongs to a training with other training faces", *again, "--held-out", "SN002")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupt_after(patch, 0)
        train(root, *again[2:], "--seed", "43", "--restart")
    assert sorted(path.name for path in folder.rglob("*")) == ["events.mine", "tensorboard", "training.json"]
    train(root, *again[2:], "--seed", "43")
    assert [path.name for path in sorted(folder.glob("checkpoint*"))] == ["checkpoint_epoch1.pth"]


def test_with_faces_made_in_another_way_it_does_not_go_on(root):
    """Which landmarks, luma and detector stands beside the weights."""
    file = root / "preparation" / "DISFA_faces" / "settings.json"
    made = json.loads(file.read_text()) | {"landmarks": "facemesh"}
    file.write_text(json.dumps(made))
    description = json.loads((train(root, "--epochs", "1") / "training.json").read_text())
    assert description["face_settings"] == {"DISFA": made, "DISFAPlus": {"format": 1, "camera": "both"}}
    file.write_text(json.dumps(made | {"landmarks": "mobilefacenet"}))
    expect(r"training with other DISFA landmarks \(facemesh, now mobilefacenet\)\.", "--root", str(root), *SMALL)


def test_a_state_from_another_device(root, monkeypatch):
    """How the optimizer computes is the device's, not the state's, which on CUDA says "fused"."""
    folder = train(root, "--epochs", "1", "--batch-size", "33")
    state = torch.load(folder / "last_training_state.pth")
    for group in state["optimizer"]["param_groups"]:
        assert not group["fused"]
        group["fused"] = True
    save_weights(state, folder / "last_training_state.pth")
    used = []
    step = Training.step
    monkeypatch.setattr(
        Training,
        "step",
        lambda self, *more: (used.extend(g["fused"] for g in self.optimizer.param_groups), step(self, *more)),
    )
    train(root, "--epochs", "2", "--batch-size", "33")
    assert used == [False, False]


def test_too_little_memory_on_the_device(root, monkeypatch):
    """What to change."""

    def step(self, batch, n):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Training, "step", step)
    expect(r"^The CUDA device has not enough memory\. Choose a smaller --batch-size, or", "--root", str(root), *SMALL)


@pytest.mark.parametrize(
    ("fate", "cause"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGKILL), r"DataLoader worker \(pid.*\) .*"),
        (lambda *_: time.sleep(2), r"DataLoader timed out after 0\.5 seconds"),
    ],
    ids=["killed", "silent"],
)
def test_a_worker_that_gives_nothing(root, monkeypatch, fate, cause):
    """Neither a traceback nor waiting for ever."""
    monkeypatch.setattr(faces_dataset, "TIMEOUT", 0.5)
    monkeypatch.setattr(faces_dataset.FaceBatches, "__getitem__", fate)
    expect(
        rf"^Reading pictures failed \({cause}\), most likely for want .* /dev/shm\. Choose fewer --workers and",
        *("--root", str(root), *SMALL, "--workers", "1"),
    )


@pytest.mark.parametrize(("n", "reduced"), [(3, False), (4, True)])
def test_a_batch_with_an_empty_share_is_computed_in_float32(root, tmp_path, monkeypatch, n, reduced):
    """Of four processes; which types the shares have follows from the whole batch."""
    seen = []

    def step(self, batch, _):
        self.process = Process(3, 4, torch.device("cpu"))
        self.network.conv1.register_forward_hook(lambda *more: seen.append(more[-1].dtype is torch.bfloat16))
        original(self, batch, n)
        raise Stop

    original = Training.step
    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(Stop):
        train(root, "--precision", "bfloat16")
    assert seen == [reduced]


def test_checkpoints_of_unknown_origin_are_kept(root):
    """Somebody's trained weights are not written over."""
    save_weights({"weight": torch.zeros(1)}, root / "AU_models" / "checkpoint_epoch3.pth")
    message = r"1 trained checkpoints \(first: checkpoint_epoch3\.pth\) but no last_training_state\.pth"
    expect(message, "--root", str(root), *SMALL)


def test_a_state_that_is_cut_off(root):
    """Begin anew, says the sentence."""
    folder = train(root, "--epochs", "1", "--batch-size", "33")
    state = folder / "last_training_state.pth"
    state.write_bytes(state.read_bytes()[:5000])
    expect(r"last_training_state\.pth cannot be read.*Pass --restart", "--root", str(root), *SMALL)


def test_a_full_disk(root):
    """One sentence; what was there before is whole, and the next run goes on from it."""
    options = ["--batch-size", "33", "--epochs"]
    folder = train(root, *options, "1")
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    with largest_file(1_000_000):
        expect(r"Cannot write .*checkpoint_epoch2\.pth: .* Make room", "--root", str(root), *SMALL, *options, "2")
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth")} == before
    assert not list(folder.glob(".*"))
    assert (train(root, *options, "2") / "checkpoint_epoch2.pth").exists()


@pytest.mark.parametrize("pages", [0, 1000])
def test_a_small_disk(root, pages, tmp_path):
    """The same where the whole disk is full: with room for nothing or for a part of the checkpoint."""
    options = ["--batch-size", "33", "--epochs"]
    folder = train(root, *options, "1")
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    left, message = run_with_room_for(
        pages,
        root,
        tmp_path / "small",
        "DISFAwithPlus_train_model.py",
        *("--root", "{disk}", *SMALL, *options, "2", "--workers", "1"),
    )
    expected = r"DISFAwithPlus_train_model\.py: Cannot write .*\. Make room or choose another --root\."
    assert re.fullmatch(expected, message)
    assert {path.name: path.read_bytes() for path in (left / "AU_models").glob("*.pth")} == before
    assert not list((left / "AU_models").glob(".*"))
    assert (train(left, *options, "2") / "checkpoint_epoch2.pth").exists()


def test_a_loss_that_is_not_finite(root, monkeypatch):
    """Nothing is saved, and the sentence says what to try."""
    monkeypatch.setattr(
        "fergi.action_units.training.loss_parts", lambda outputs, labels, weights: outputs[:, :3] * torch.inf
    )
    expect(r"The loss is (nan|-?inf) in epoch 1, step 1: training has failed", "--root", str(root), *SMALL)
    assert not list((root / "AU_models").glob("*.pth"))


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--batch-size", "none"], ["--rate", "-1"]])
def test_impossible_numbers(root, option, capsys):
    """Refused while the arguments are read."""
    with pytest.raises(SystemExit, match="2"):
        stage.main(["--root", str(root), *SMALL, *option])
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(("precision", "convolutions"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")])
def test_float32_is_exact_on_cuda(monkeypatch, precision, convolutions):
    """PyTorch's default is tf32; the benchmark's plain loop keeps that."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32")
    monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    set_cuda_arithmetic(precision)
    with benchmark.plain_arithmetic():
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert torch.backends.cudnn.conv.fp32_precision == convolutions
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_the_benchmark(capsys):
    """It goes through; how long the GPU works is the union of what runs on it."""
    benchmark.main(["--device", "cpu", "--network", "ir10-thin", "--batch-size", "2", "--steps", "1", "--repeats", "1"])
    assert capsys.readouterr().out.count("\n| ours") == 2
    assert benchmark.covered([(5, 6), (1, 3), (0, 2), (1, 2)]) == 4
    assert benchmark.gpu_share(iter([1]), 1, lambda: None) is None


@pytest.mark.parametrize(
    ("ours", "share", "end"),
    [
        (50.0, 0.4, "share: 40% of the time. Reading pictures bounds it; try more --workers."),
        (99.0, 0.4, "share: 40% of the time. Starting the GPU's work bounds it; a larger --batch-size would use more."),
        (99.0, 0.95, "share: 95% of the time. The network bounds it."),
        (99.0, None, "share: not measured. The network bounds it."),
    ],
)
def test_what_bounds_the_training(ours, share, end):
    """By what is left when no picture is read, and by whether the GPU ever waits."""
    best = {benchmark.OURS: ours, benchmark.REPEATED: 100.0}
    assert benchmark.verdict(best, share, on_cuda=True).endswith(end)


def test_devices():
    """Named ones must exist."""
    assert choose_device("cpu").type == "cpu"
    assert choose_precision("auto", torch.device("cpu")) == "float32"
    assert choose_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    with pytest.raises(FergiError, match=r"^There is no tf32 on cpu, only on CUDA\. Use --precision float32\.$"):
        choose_precision("tf32", torch.device("cpu"))
    with pytest.raises(FergiError, match=r"There is no device 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(FergiError, match=r"There is no device 'gpu'\. Choose cpu or cuda"):
        choose_device("gpu")
