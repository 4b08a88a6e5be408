"""Training of the AU model: it learns, any number of processes gives the same, and so does resuming."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from drawn import write_faces
from numpy.testing import assert_allclose
from small_disk import run_with_room_for
from synchronised import SynchronisedBatchNorm, in_two_processes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config
import DISFAwithPlus_train_model as stage
from benchmarks import training as benchmark
from fergi.action_units import faces_dataset
from fergi.action_units.faces_dataset import Batch, Faces, read_faces, read_picture, split_by_subject
from fergi.action_units.network import intensities, load_network, network_input, random_network
from fergi.action_units.training import Training, TrainingSettings, choose_precision, set_cuda_arithmetic
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.processes import Process, choose_device, joined_process
from fergi.weights import load_state, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SMALL = ["--network", "ir10-thin", "--from-scratch", "--device", "cpu"]
FAST = ["--rate", "1e-3", "--last-layer-rate", "1e-3"]
GLINT360K = "glint360k_cosface_r50_fp16_0.1.pth"


@pytest.fixture
def root(tmp_path) -> Path:
    """A small root: 33 pictures of three subjects, 25 of them not of SN003."""
    write_faces(tmp_path / "root", "DISFA", {"SN001": 10, "SN002": 10, "SN003": 6})
    write_faces(tmp_path / "root", "DISFAPlus", {"SN001": 5, "SN003": 2}, seed=1)
    return tmp_path / "root"


@pytest.fixture
def other(root, tmp_path) -> Path:
    """Another one, equal to it."""
    return Path(shutil.copytree(root, tmp_path / "other"))


def train(root: Path, *options: str) -> Path:
    """Run the script in this process; gives the folder it wrote."""
    stage.main(["--root", str(root), *SMALL, *options])
    return root / "AU_models"


def log_of(root: Path) -> pd.DataFrame:
    """Losses and metrics of a training."""
    return pd.read_csv(root / "AU_models" / "training_log.csv")


def expect(message: str, root: Path, *options: str) -> None:
    """The script ends with that sentence."""
    with pytest.raises(FergiError, match=message) as caught:
        stage.main(["--root", str(root), *options])
    assert "\n" not in str(caught.value)


def events_of(root: Path, tag: str) -> dict[int, float]:
    """What TensorBoard shows: epoch → value; no epoch is there twice."""
    events = EventAccumulator(str(root / "AU_models" / "tensorboard")).Reload().Scalars(tag)
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.value for event in events}


# ---- learning


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A root on which the tiny network has learned drawn faces; SN011 and SN012 were held out."""
    root = tmp_path_factory.mktemp("learned") / "root"
    write_faces(root, "DISFA", {f"SN{person:03}": 26 for person in range(1, 13)})
    write_faces(root, "DISFAPlus", {f"SN{person:03}": 16 for person in (1, 2, 12)}, seed=1)
    train(root, *FAST, "--batch-size", "16", "--epochs", "6", "--held-out", "SN011", "SN012")
    return root


def test_it_learns(learned):
    """The loss falls, and people it never saw are read with an ICC above 0.8. Drawn faces: no word about real ones.

    The log has losses, and three metrics an AU, empty where there are no labels; TensorBoard shows the same. The
    settings say who was trained on.
    """
    log = log_of(learned)
    training, held_out = log[log.part == "training"], log[log.part == "held-out"]
    assert training.loss.iloc[-1] < 0.25 * training.loss.iloc[0]
    assert held_out.loss.iloc[-1] < 0.25 * held_out.loss.iloc[0]
    assert (training.frames == 10 * 26 + 2 * 16).all() and (held_out.frames == 2 * 26 + 16).all()
    assert held_out.AU4_ICC.iloc[-1] > 0.8 and held_out.AU12_ICC.iloc[-1] > 0.8
    metrics = [f"AU{unit}_{name}" for unit in ACTION_UNITS for name in ("ICC", "MSE", "MAE")]
    losses = ["loss", "mse_loss", "cosine_loss", "cross_entropy_loss"]
    assert list(log) == ["epoch", "part", "frames", *losses, *metrics]
    assert log.epoch.tolist() == [epoch for epoch in range(1, 7) for _ in range(2)]
    assert_allclose(log.loss, log[losses[1:]].sum(axis=1))
    assert log.AU1_ICC.isna().all() and log.AU4_ICC.notna().all()
    for tag, column in (("held-out/losses/loss", "loss"), ("held-out/ICC/AU12", "AU12_ICC")):
        assert list(events_of(learned, tag)) == [1, 2, 3, 4, 5, 6]
        assert_allclose(list(events_of(learned, tag).values()), held_out[column], rtol=1e-6)
    settings = json.loads((learned / "AU_models" / "settings.json").read_text())
    assert settings["held-out subjects"] == ["SN011", "SN012"]
    assert not set(settings["held-out subjects"]) & set(settings["training subjects"])
    assert (settings["training frames of DISFA"], settings["training frames of DISFAPlus"]) == (260, 32)
    assert settings["seed"] == 42 and settings["start"] == "random" and settings["epochs"] == 6
    assert sum(settings["training labels of AU4 by intensity"]) == 292


def test_the_model_does_what_the_log_says(learned):
    """The checkpoint estimates the held-out pictures with the logged mean squared error."""
    network = load_network(learned / "AU_models" / "checkpoint_epoch6.pth", "ir10-thin")
    predicted, actual = [], []
    for dataset in ("DISFA", "DISFAPlus"):
        folder = learned / "preparation" / f"{dataset}_faces"
        index = pd.read_csv(folder / "index.csv").query("subject in ['SN011', 'SN012']")
        pictures = torch.from_numpy(np.stack([read_picture(folder / name) for name in index.image]))
        with torch.inference_mode():
            predicted.append(intensities(network(network_input(pictures)), [4, 12]).numpy())
        actual.append(index[["AU4", "AU12"]].to_numpy())
    logged = log_of(learned).iloc[-1]
    errors = np.square(np.concatenate(predicted) - np.concatenate(actual)).mean(0)
    assert_allclose(errors, [logged.AU4_MSE, logged.AU12_MSE], rtol=1e-4)


def test_running_it_again_does_nothing(learned, capsys):
    """All epochs are done."""
    folder = learned / "AU_models"
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    for epochs in ("6", "1"):
        train(learned, *FAST, "--batch-size", "16", "--epochs", epochs, "--held-out", "SN011", "SN012")
        assert capsys.readouterr().out == "Nothing is left to do: 6 epochs were done before.\n"
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_the_last_layer_learns_faster(root):
    """Each group moves by its own rate: Adam's first step is the rate itself, whatever the gradient."""
    folder = train(root, "--batch-size", "33", "--epochs", "1", "--rate", "1e-4", "--last-layer-rate", "1e-2")
    start, end = random_network("ir10-thin", 42).state_dict(), load_state(folder / "checkpoint_epoch1.pth")
    for name, rate in (("fc.weight", 1e-2), ("layer2.0.conv1.weight", 1e-4)):
        assert_allclose((end[name] - start[name]).abs().median(), rate, rtol=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_loses_little(root, other, precision):
    """The first loss is that of float32 to a hundredth, and the weights move (float16 with scaled gradients)."""
    options = ["--datasets", "DISFAPlus", "--batch-size", "7", "--epochs", "1"]
    train(other, *options)
    weights = load_state(train(root, *options, "--precision", precision) / "checkpoint_epoch1.pth")
    assert_allclose(log_of(root).loss[0], log_of(other).loss[0], rtol=0.01)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights.values())
    moved = weights["fc.weight"] - random_network("ir10-thin", 42).state_dict()["fc.weight"]
    assert_allclose(moved.abs().median(), 1e-4, rtol=0.02)


def test_modes_differ(root, other):
    """The numerators of eq. 16 make the squared error larger."""
    options = ["--batch-size", "33", "--epochs", "1"]
    train(root, *options)
    train(other, *options, "--mode", "released")
    paper, released = log_of(root).iloc[0], log_of(other).iloc[0]
    assert 2 < paper.mse_loss / released.mse_loss < 4
    assert_allclose(paper.cross_entropy_loss, released.cross_entropy_loss, rtol=1e-6)


def test_pretrained_weights_fill_all_but_the_head(root):
    """IR-50, with a head of the face recognition's size that is not used."""
    state = random_network("ir50", 3).state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(512, 25088), torch.zeros(512)
    state |= {f"features.{name}": torch.zeros(512) for name in ("weight", "bias", "running_mean", "running_var")}
    save_weights(state, root / "pretrained_models" / GLINT360K)
    options = ["--root", str(root), "--device", "cpu", "--epochs", "1", "--held-out", "SN001", "SN002"]
    # Rates of 0 leave every weight as it was.
    stage.main([*options, "--rate", "0", "--last-layer-rate", "0", "--weight-decay", "0"])
    end = load_state(root / "AU_models" / "checkpoint_epoch1.pth")
    assert torch.equal(end["layer3.7.conv1.weight"], state["layer3.7.conv1.weight"])
    assert end["fc.weight"].shape == (384, 25088) and "features.weight" not in end
    settings = json.loads((root / "AU_models" / "settings.json").read_text())
    assert settings["start"].startswith(f"{GLINT360K}, SHA-256 ")


# ---- resuming


class Stop(Exception):
    """Ends a training in the middle."""


def interrupt_after(monkeypatch, steps: int) -> None:
    """Let the training of this process end in the middle of a step."""
    original, done = Training.step, []

    def step(self, batch, n):
        if len(done) == steps:
            raise Stop
        done.append(n)
        original(self, batch, n)

    monkeypatch.setattr(Training, "step", step)


@pytest.mark.parametrize("steps", [2, 3, 5, 6, 7, None], ids=lambda steps: f"after-{steps}-steps")
def test_resuming_gives_what_an_uninterrupted_training_gives(root, other, monkeypatch, steps):
    """To the last bit, wherever it stopped: four steps an epoch, a state after every second and every epoch.

    None: the first epoch was finished, and the training is prolonged.
    """
    options = [*FAST, "--batch-size", "7", "--held-out", "SN003", "--state-every", "2", "--epochs"]
    expected = train(other, *options, "2")
    if steps is None:
        train(root, *options, "1")
    else:
        with monkeypatch.context() as patch, pytest.raises(Stop):
            interrupt_after(patch, steps)
            train(root, *options, "2")
    folder = train(root, *options, "2")
    for name in ("checkpoint_epoch1.pth", "checkpoint_epoch2.pth"):
        found, whole = load_state(folder / name), load_state(expected / name)
        assert list(found) == list(whole) and all(torch.equal(found[entry], whole[entry]) for entry in found)
    for name in ("training_log.csv", "settings.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    assert list(events_of(root, "training/losses/loss")) == [1, 2]


def test_a_training_with_other_settings_is_not_resumed(root, monkeypatch):
    """Unless told to begin anew, which removes the old checkpoints and logs, and nobody else's files.

    The landmarks, luma and detector of each data set's faces are among the settings.
    """
    made = root / "preparation" / "DISFA_faces" / "settings.json"
    made.write_text(json.dumps({"landmarks": "facemesh"}))
    folder = train(root, "--epochs", "2", "--batch-size", "33")
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["DISFA landmarks"] == "facemesh" and settings["DISFAPlus camera"] == "both"
    (folder / "tensorboard" / "events.mine").touch()
    again = ["--epochs", "1", "--batch-size", "33"]
    expect(r"settings\.json says that seed was 42 .* now it is 43\. Repeat its", root, *SMALL, *again, "--seed", "43")
    expect(r"settings\.json says that training faces was ", root, *SMALL, *again, "--held-out", "SN002")
    expect(r"says that crop was .* now it is 'None'\.", root, *SMALL, *again, "--no-augmentation")
    made.write_text(json.dumps({"landmarks": "mobilefacenet"}))
    expect(r"says that DISFA landmarks was 'facemesh' .* now it is 'mobilefacenet'\.", root, *SMALL, *again)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupt_after(patch, 0)
        train(root, *again, "--seed", "43", "--restart")
    assert sorted(path.name for path in folder.rglob("*")) == ["events.mine", "settings.json", "tensorboard"]
    train(root, *again, "--seed", "43")
    assert [path.name for path in sorted(folder.glob("checkpoint*"))] == ["checkpoint_epoch1.pth"]
    assert list(events_of(root, "training/losses/loss")) == [1]


def test_a_state_from_another_device(root, monkeypatch):
    """How the optimizer computes depends on the device, not on the state, which on CUDA says "fused"."""
    folder = train(root, "--epochs", "1", "--batch-size", "33")
    state = torch.load(folder / "last_training_state.pth")
    for group in state["optimizer"]["param_groups"]:
        assert not group["fused"]
        group["fused"] = True
    save_weights(state, folder / "last_training_state.pth")
    used, step = [], Training.step

    def watched(self, *more):
        used.extend(group["fused"] for group in self.optimizer.param_groups)
        step(self, *more)

    monkeypatch.setattr(Training, "step", watched)
    train(root, "--epochs", "2", "--batch-size", "33")
    assert used == [False, False]


def test_a_state_that_cannot_be_resumed(root):
    """It is cut off, or its settings or the state itself are gone: nobody's trained weights are overwritten."""
    folder = train(root, "--epochs", "1", "--batch-size", "33")
    state, again = folder / "last_training_state.pth", [*SMALL, "--batch-size", "33"]
    state.write_bytes(state.read_bytes()[:5000])
    expect(r"last_training_state\.pth cannot be read.*Pass --restart", root, *again)
    (folder / "settings.json").unlink()
    expect(r"AU_models has last_training_state\.pth, but settings\.json and last_train.* not both there", root, *again)
    state.unlink()
    expect(r"AU_models has checkpoint_epoch1\.pth, but settings\.json and .* not both there", root, *again)


@pytest.mark.parametrize("pages", [0, 1000])
def test_a_full_disk(root, pages, tmp_path):
    """One sentence; what was there before is whole, and the next run resumes from it.

    With room for nothing, or for a part of the checkpoint.
    """
    options = ["--batch-size", "33", "--epochs"]
    before = {path.name: path.read_bytes() for path in train(root, *options, "1").glob("*.pth")}
    arguments = ["--root", "{disk}", *SMALL, *options, "2", "--workers", "1"]
    script = "DISFAwithPlus_train_model.py"
    left, message = run_with_room_for(pages, root, tmp_path / "small", script, *arguments)
    expected = r"DISFAwithPlus_train_model\.py: Cannot write .*\. Make room or choose another --root\."
    assert re.fullmatch(expected, message)
    folder = left / "AU_models"
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth")} == before
    assert not list(folder.glob(".*"))
    assert (train(left, *options, "2") / "checkpoint_epoch2.pth").exists()


# ---- further folders


def write_further(tmp_path: Path, name: str = "synthesised", subject: str = "SYN0001") -> Path:
    """A folder of eight aligned faces of one subject."""
    made = write_faces(tmp_path / f"{name} {subject}", "DISFA", {subject: 8}, seed=7)
    return made.rename(tmp_path / name)


def test_further_folders_are_trained_on(root, tmp_path, monkeypatch, capsys):
    """As if their pictures were in a data set: to the last bit; never held out; their order and sort are recorded.

    Two runs of the generator call their people alike, which is no clash, and folders may have one name.
    """
    first, second = write_further(tmp_path, "made"), write_further(tmp_path / "again", "made")
    (second / "settings.json").write_text(json.dumps({"luma": "rgb"}))
    options = [*FAST, "--batch-size", "7", "--held-out", "SN003", "--epochs", "1", "--state-every", "2"]
    more = ["--more", str(first), f"{second}/"]
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupt_after(patch, 3)
        train(root, *options, *more)
    expect(r"training faces was", root, *SMALL, *options, "--more", str(first))
    folder = train(root, *options, *more)
    said = capsys.readouterr().out
    assert said.count("49 pictures of 4 subjects.") == 2 and "Resuming after 0 epochs and 2 steps." in said
    assert "luma is not said (DISFA), not said (DISFAPlus), not said (made), rgb (made 2).\n" in said
    log, settings = log_of(root), json.loads((folder / "settings.json").read_text())
    assert log.frames.tolist() == [25 + 16, 8]
    assert settings["training frames of made"] == settings["training frames of made 2"] == 8
    assert settings["training subjects"] == ["SN001", "SN002", "SYN0001"]
    assert settings["held-out subjects"] == ["SN003"] and settings["made 2 luma"] == "rgb"
    faces = [read_faces(root, "DISFA", "DISFAPlus", more=[each])[0] for each in (first, second)]
    assert settings["made fingerprint"] == faces[0].where(faces[0].datasets == "made").fingerprint()
    expected = tmp_path / "joined"
    shutil.copytree(root / "preparation", expected / "preparation")
    joined = expected / "preparation" / "DISFAPlus_faces"
    tables = [pd.read_csv(joined / "index.csv")]
    for number, each in enumerate((first, second)):
        shutil.copytree(each, joined / str(number))
        table = pd.read_csv(each / "index.csv")
        tables.append(table.assign(image=f"{number}/" + table.image))
    pd.concat(tables).to_csv(joined / "index.csv", index=False)
    found, whole = (load_state(each / "checkpoint_epoch1.pth") for each in (folder, train(expected, *options)))
    assert all(torch.equal(found[entry], whole[entry]) for entry in whole)


@pytest.mark.parametrize(("change", "message"), [
    (shutil.rmtree, r"made is not a folder\. Name folders of aligned faces with --more\."),
    (lambda made: (made / "index.csv").unlink(),
     r"1 of 2 files of aligned faces in .*made is missing \(first: .*index\.csv\)\. Align its pictures with"),
    (lambda made: cv2.imwrite(str(made / "SYN0001" / "1.png"), np.zeros((64, 64, 3), np.uint8)),
     r"SYN0001/1\.png has 64 x 64 pixels instead of 112 x 112\. Align its pictures with"),
    (lambda made: pd.read_csv(made / "index.csv").assign(subject="SN002").to_csv(made / "index.csv", index=False),
     r"1 of 1 subjects of .*made is in DISFA or DISFAPlus too \(first: SN002\)\. Rename other people; "),
], ids=["folder", "index", "size", "subject"])  # fmt: skip
def test_a_further_folder_that_cannot_be_used(root, tmp_path, change, message):
    """Before any training."""
    change(made := write_further(tmp_path, "made"))
    expect(message, root, *SMALL, "--more", str(made))


def test_what_cannot_be_asked_of_further_folders(root, tmp_path):
    """A folder twice, the data set's own, synthesised people held out; people of other films may be."""
    made, filmed = write_further(tmp_path, "made"), write_further(tmp_path, "filmed", "XY7")
    own = root / "preparation" / "DISFA_faces"
    for twice in ([str(made), f"{made.parent}/./made"], [str(own)]):
        expect(r"is given twice, or is a data set's own folder\. Name every", root, *SMALL, "--more", *twice)
    more = [*SMALL, "--more", str(made), str(filmed), "--epochs", "1", "--batch-size", "49", "--held-out"]
    expect(
        r"1 of 2 held-out subjects is synthesised \(first: SYN0001\)\. Hold out people", root, *more, "XY7", "SYN0001"
    )
    train(root, *more[5:], "XY7", "--more", str(made), str(filmed))
    assert log_of(root).frames.tolist() == [33 + 8, 8]


# ---- several processes


def test_several_processes_need_cuda(root, monkeypatch):
    """One process uses all cores of a CPU."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    expect(r"^Several processes train on CUDA only\. Start one without torchrun; it uses all cores\.$", root, *SMALL)


def options_of(precision: str = "float64", **changes) -> TrainingSettings:
    """The paper's numbers with the smallest network."""
    numbers = config.AU_TRAINING | {"epochs": 1, "batch_size": 12} | changes
    return TrainingSettings("paper", "ir10-thin", "random", config.AU_CROP, precision, **numbers)


def training_of(root: Path, process: Process, **changes) -> Training:
    """A training on a root without SN003, to be driven by hand."""
    faces, settings, _ = read_faces(root, "DISFA", "DISFAPlus")
    options, folder = options_of(**changes), root / "AU_models"
    more = {"face_settings": settings, "folder": folder, "process": process, "workers": 1, "state_every": 1}
    return Training(random_network("ir10-thin", 42), *split_by_subject(faces, ["SN003"]), options, **more)


def _trained_by_two(rank: int, root: Path, half: Path, own: list[Path]) -> None:
    with joined_process(CPU) as process:
        training_of(root, process).run()
        training_of(half, process, precision="bfloat16", batch_size=2).run()
        with pytest.raises(FergiError) as caught:
            training_of(own[rank], process, epochs=2).resume(restart=False)
        (own[rank] / "message").write_text(str(caught.value))


def test_two_processes_give_what_one_gives(root, other, tmp_path):
    """One epoch at the paper's rates. The last batch is one picture: a share is empty.

    In float64: where a gradient is nothing but rounding, Adam makes a whole step of it in float32, whose rounding is as
    large as Adam's epsilon, 1e-8, in the direction that the order of the sums gives. On some processors that moved a
    loss by 3e-4 of itself. In float64 the rounding is far below that epsilon, and such weights stay where they are.
    Three steps through ten layers lose a few of the 16 digits; 1e-9 leaves room for seven.

    In half precision the loss is nearly that of float32. Resuming from a disk of its own, as on two machines, is
    refused by both processes.
    """
    alone, half, single = (Path(shutil.copytree(other, tmp_path / name)) for name in ("alone", "half", "single"))
    training_of(alone, Process(0, 1, CPU)).run()
    training_of(single, Process(0, 1, CPU), precision="float32", batch_size=2).run()
    in_two_processes(_trained_by_two, root, half, [root, other])
    found, expected = log_of(root), log_of(alone)
    assert found.frames.tolist() == expected.frames.tolist() == [25, 8]
    for name in ("loss", "mse_loss", "cosine_loss", "cross_entropy_loss", "AU4_MSE", "AU12_MAE"):
        assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    weights = load_state(root / "AU_models" / "checkpoint_epoch1.pth")
    assert list(weights) == list(random_network("ir10-thin", 0).state_dict())
    assert_allclose(log_of(half).loss[0], log_of(single).loss[0], rtol=0.03)
    for each, done in ((root, 1), (other, 0)):
        assert (each / "message").read_text() == (
            "The 2 processes found different data or states to resume from (this one: "
            f"after {done} epochs and 0 steps). Every machine needs the same --root, on a disk that they share."
        )


def one_step(process: Process, batch: Batch, folder: Path, all_labels: torch.Tensor) -> dict[str, dict]:
    """Gradients and buffers after one step on this process's share of a batch."""
    nobody = np.array([], str)
    faces = Faces(nobody, nobody, nobody, all_labels.numpy(), nobody)
    more = {"face_settings": {}, "folder": folder, "process": process, "workers": 0, "state_every": 1}
    training = Training(random_network("ir10-thin", 7), faces, faces.where(slice(0)), options_of(), **more)
    training.network.train()
    share = slice(process.rank, None, process.world_size)
    training.step(Batch(batch.pictures[share], batch.labels[share], ""), len(batch.labels))
    assert isinstance(training.network.bn1, SynchronisedBatchNorm) == (process.world_size > 1)
    gradients = {name: parameter.grad for name, parameter in training.network.named_parameters()}
    return {"gradients": gradients, "buffers": dict(training.network.named_buffers())}


def _one_step_of_two(rank: int, batches: list[Batch], folder: Path, all_labels: torch.Tensor) -> None:
    with joined_process(CPU) as process:
        for batch in batches:
            result = one_step(process, batch, folder, all_labels)
            if process.leads:
                save_weights(result, folder / f"result{len(batch.labels)}.pth")


def test_gradients_and_batch_statistics_are_those_of_the_whole_batch(tmp_path):
    """In double precision the two ways agree to ten digits, with even, uneven and empty shares."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (5, 112, 112, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(-1, 6, (5, 64), generator=generator, dtype=torch.int8)
    batches = [Batch(pictures[:n], labels[:n], "") for n in (4, 5, 1)]
    in_two_processes(_one_step_of_two, batches, tmp_path, labels)
    for batch in batches:
        expected = one_step(Process(0, 1, CPU), batch, tmp_path, labels)
        result = torch.load(tmp_path / f"result{len(batch.labels)}.pth")
        for name, gradient in expected["gradients"].items():
            bound = 1e-10 * float(gradient.abs().max()) + 1e-12
            assert_allclose(result["gradients"][name], gradient, rtol=1e-8, atol=bound, err_msg=name)
        for name, value in expected["buffers"].items():
            assert_allclose(result["buffers"][name], value, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("n", "reduced"), [(3, False), (4, True)])
def test_a_batch_with_an_empty_share_is_computed_in_float32(root, monkeypatch, n, reduced):
    """Of four processes; which types the shares have follows from the whole batch."""
    training, seen = training_of(root, Process(0, 1, CPU), precision="bfloat16"), []
    training.network.conv1.register_forward_hook(lambda *more: seen.append(more[-1].dtype is torch.bfloat16))
    training.process = Process(3, 4, CPU)
    training.step(next(iter(training.loader)), n)
    assert seen == [reduced]


# ---- what may be wrong


def test_the_pretrained_file(root):
    """Missing, of another layout, cut off, or for another network."""
    path = root / "pretrained_models" / GLINT360K
    expect(r"glint360k_cosface_r50_fp16_0\.1\.pth\)\. With a browser, open .*--from-scratch", root)
    save_weights({"conv.weight": torch.zeros(1000)}, path)
    expect(r"does not fit IResNet .* 468 missing \(first: conv1\.weight\); 1 not known", root)
    path.write_bytes(path.read_bytes()[:2000])
    expect(r"cannot be read: it is cut off or not a PyTorch file\. With a browser, open", root)
    expect(r"is for ir50, not for ir18-thin\. Pass --from-scratch", root, "--network", "ir18-thin")


def test_without_one_of_the_folders(root):
    """Unless only the other one is asked for."""
    shutil.rmtree(root / "preparation" / "DISFAPlus_faces")
    expect(r"Run preprocess_DISFAPlus\.py first, or choose --datasets without DISFAPlus\.", root, *SMALL)
    assert (train(root, "--datasets", "DISFA", "--epochs", "1") / "checkpoint_epoch1.pth").exists()


def test_labels_that_are_no_intensity(root, capsys):
    """They count as missing, and the script says how many there are; without any label nothing can be learned."""
    paths = [root / "preparation" / f"{dataset}_faces" / "index.csv" for dataset in ("DISFA", "DISFAPlus")]
    table = pd.read_csv(paths[0])
    table.loc[:4, "AU4"] = 7
    table.to_csv(paths[0], index=False)
    settings = json.loads((train(root, "--epochs", "1") / "settings.json").read_text())
    assert "5 labels that are no intensity count as missing" in capsys.readouterr().out
    assert sum(settings["training labels of AU4 by intensity"]) == 33 - 5
    for path in paths:
        pd.read_csv(path).assign(AU4=-1, AU12=-1).to_csv(path, index=False)
    expect("None of the 33 training pictures has a label", root, *SMALL)


def test_a_picture_that_cannot_be_used(root):
    """It is named; once it is made again, training resumes."""
    picture = root / "preparation" / "DISFA_faces" / "SN002" / "4.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:100])
    expect(r"SN002/4\.png is not a readable picture\. Delete it and make it again", root, *SMALL, "--workers", "1")
    cv2.imwrite(str(picture), np.zeros((50, 60, 3), np.uint8))
    expect(r"SN002/4\.png has 60 x 50 pixels instead of 112 x 112\. Delete it and make it again", root, *SMALL)
    picture.write_bytes(content)
    assert (train(root, "--epochs", "1") / "checkpoint_epoch1.pth").exists()


READING = r"^Reading pictures failed \(%s\), most likely for want .* /dev/shm\. Choose fewer --workers and"


@pytest.mark.parametrize(("place", "fate", "message"), [
    ("training.Training.step", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory.")),
     r"^The CUDA device has not enough memory\. Choose a smaller --batch-size, or"),
    ("training.loss_parts", lambda outputs, *_: outputs[:, :3] * torch.inf,
     r"The loss is (nan|-?inf) in epoch 1, step 1: training has failed"),
    ("faces_dataset.FaceBatches.__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL),
     READING % r"DataLoader worker \(pid.*\) .*"),
    ("faces_dataset.FaceBatches.__getitem__", lambda *_: time.sleep(2),
     READING % r"DataLoader timed out after 0\.5 seconds"),
], ids=["memory", "loss", "killed-worker", "silent-worker"])  # fmt: skip
def test_what_ends_a_training(root, monkeypatch, place, fate, message):
    """One sentence says what to change: neither a traceback nor waiting for ever. Nothing is saved."""
    monkeypatch.setattr(faces_dataset, "TIMEOUT", 0.5)
    monkeypatch.setattr(f"fergi.action_units.{place}", fate)
    expect(message, root, *SMALL, "--workers", "1" if "faces" in place else "0")
    assert not list((root / "AU_models").glob("*.pth"))


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--batch-size", "none"], ["--rate", "-1"]])
def test_impossible_numbers(root, option, capsys):
    """Refused while the arguments are read."""
    with pytest.raises(SystemExit, match="2"):
        stage.main(["--root", str(root), *SMALL, *option])
    assert option[0] in capsys.readouterr().err


def test_devices_and_precisions():
    """Named ones must exist."""
    assert choose_device("cpu").type == "cpu"
    assert choose_precision("auto", CPU) == "float32" and choose_precision("bfloat16", CPU) == "bfloat16"
    with pytest.raises(FergiError, match=r"^There is no tf32 on cpu, only on CUDA\. Use --precision float32\.$"):
        choose_precision("tf32", CPU)
    with pytest.raises(FergiError, match=r"There is no device 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(FergiError, match=r"There is no device 'gpu'\. Choose cpu or cuda"):
        choose_device("gpu")


# ---- speed


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
    assert benchmark.gpu_share(iter([1]), 1, CPU) is None


@pytest.mark.parametrize(("ours", "share", "end"), [
    (50.0, 0.4, "share: 40% of the time. Reading pictures bounds it; try more --workers."),
    (99.0, 0.4, "share: 40% of the time. Starting the GPU's work bounds it; a larger --batch-size would use more."),
    (99.0, 0.95, "share: 95% of the time. The network bounds it."),
    (99.0, None, "share: not measured. The network bounds it."),
])  # fmt: skip
def test_what_bounds_the_training(ours, share, end):
    """By what is left when no picture is read, and by whether the GPU ever waits."""
    best = {benchmark.OURS: ours, benchmark.REPEATED: 100.0}
    assert benchmark.verdict(best, share, on_cuda=True).endswith(end)
