"""Aligned faces as training data: reading, labels, splitting, augmentation, batches."""

from contextlib import nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from drawn import write_faces
from numpy.testing import assert_array_equal

from fergi.action_units import faces_dataset
from fergi.action_units.faces_dataset import (
    BatchOrder,
    FaceBatches,
    batch_loader,
    read_faces,
    read_picture,
    split_by_subject,
)
from fergi.files import FergiError

RELEASED = {"scale": (0.9, 1.0), "ratio": (19 / 20, 20 / 19)}


@pytest.fixture
def folder(tmp_path):
    """DISFA with three subjects of four frames."""
    return write_faces(tmp_path, "DISFA", {"SN001": 4, "SN002": 4, "SN003": 4})


def change_index(folder, change) -> None:
    """Edit the index as a table of texts."""
    change(pd.read_csv(folder / "index.csv", dtype=str)).to_csv(folder / "index.csv", index=False)


def test_pictures_and_labels_are_read(folder, tmp_path):
    """In the order of the index; AU i in column i − 1, the unlabelled ones −1.

    A label that is missing, 7, −2 or 2.5 is −1; the last three are reported.
    """
    faces, settings, n_ignored = read_faces(tmp_path, "DISFA")
    table = pd.read_csv(folder / "index.csv")
    assert len(faces) == 12 and n_ignored == 0 and settings["DISFA camera"] == "both"
    assert faces.subjects.tolist() == ["SN001"] * 4 + ["SN002"] * 4 + ["SN003"] * 4
    assert_array_equal(faces.labels[:, 3], table["AU4"])
    assert_array_equal(faces.labels[:, 11], table["AU12"])
    assert (np.delete(faces.labels, [3, 11], axis=1) == -1).all()
    column = ["", "7", "-2", "2.5", "-1", "0", "5", "3.0", "1", "1", "1", "1"]
    change_index(folder, lambda table: table.assign(AU1=column))
    faces, _, n_ignored = read_faces(tmp_path, "DISFA")
    assert faces.labels[:, 0].tolist() == [-1, -1, -1, -1, -1, 0, 5, 3, 1, 1, 1, 1]
    assert n_ignored == 3


@pytest.mark.parametrize(("change", "message"), [
    (lambda table: table.drop(columns="AU20"), r"index\.csv has no column AU20\. Run preprocess_DISFA\.py again\."),
    (lambda table: table.iloc[:0], r"index\.csv has a header but no rows"),
    (lambda table: table.assign(AU6=["-1"] * 11 + ["high"]), r"line 13, column AU6: 'high' is no number"),
    (lambda table: table.assign(subject=["SN001"] * 11 + [""]), r"line 13: no subject"),
    (lambda table: table.assign(image=[table.image[0]] * 12), r"line 3: image SN001/1\.png, subject SN001 app"),
    (lambda table: table.assign(image=[*table.image[:10], "SN003/8.png", "SN003/9.png"]),
     r"2 of 12 pictures of .* are missing \(first: SN003/8\.png\)\. Run preprocess_DISFA\.py again\."),
])  # fmt: skip
def test_an_index_that_cannot_be_used(folder, tmp_path, change, message):
    """One sentence with the place and what to run."""
    change_index(folder, change)
    with pytest.raises(FergiError, match=message):
        read_faces(tmp_path, "DISFA")


def test_nobody_is_on_both_sides(folder, tmp_path):
    """A held-out subject is out of DISFA and of DISFA+, must exist, and somebody must remain."""
    write_faces(tmp_path, "DISFAPlus", {"SN001": 3, "SN002": 2}, seed=1)
    both, _, _ = read_faces(tmp_path, "DISFA", "DISFAPlus")
    training, held_out = split_by_subject(both, ["SN002"])
    assert (len(training), len(held_out)) == (4 + 4 + 3, 4 + 2)
    assert set(held_out.subjects) == {"SN002"} and set(held_out.datasets) == {"DISFA", "DISFAPlus"}
    assert "SN002" not in set(training.subjects)
    message = r"1 of 2 held-out subjects is not in the data \(first: SN9\)\. Choose from SN001, SN002, SN003\."
    with pytest.raises(FergiError, match=message):
        split_by_subject(both, ["SN001", "SN9"])
    with pytest.raises(FergiError, match="All 3 subjects are held out"):
        split_by_subject(both, ["SN001", "SN002", "SN003"])


def test_fingerprint_sees_labels_and_pictures_but_not_the_root(folder, tmp_path):
    """It decides whether a training can be resumed."""
    first, _, _ = read_faces(tmp_path, "DISFA")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "preparation").rename(moved / "preparation")
    second, _, _ = read_faces(moved, "DISFA")
    assert first.fingerprint() == second.fingerprint()
    second.labels[0, 0] = 3
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() != first.where(np.arange(12) > 0).fingerprint()


def batches(faces, augmentation, n_epochs) -> np.ndarray:
    """The first picture of the data as so many epochs see it."""
    dataset = FaceBatches(faces, augmentation, seed=0)
    return np.stack([dataset[epoch, np.array([0])].pictures[0].numpy() for epoch in range(n_epochs)])


def test_augmentation_flips_every_other_picture(folder, tmp_path):
    """With the whole picture as crop nothing else happens."""
    faces, _, _ = read_faces(tmp_path, "DISFA")
    picture = read_picture(faces.paths[0].decode())
    seen = batches(faces, {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}, 400)
    flipped = sum(np.array_equal(each, picture[:, ::-1]) for each in seen)
    assert flipped + sum(np.array_equal(each, picture) for each in seen) == 400
    assert 160 < flipped < 240


def test_augmentation_keeps_the_picture_in_place(folder, tmp_path):
    """A smooth picture stays near itself, at most the crop's 6 pixels are lost at an edge; crops do differ.

    The random numbers of whoever reads the pictures are not touched.
    """
    faces, _, _ = read_faces(tmp_path, "DISFA")
    ramp = np.repeat(np.tile(np.arange(112, dtype=np.uint8)[:, None], (1, 112))[:, :, None], 3, axis=2)
    cv2.imwrite(faces.paths[0].decode(), ramp)
    before = torch.get_rng_state()
    seen = batches(faces, RELEASED, 50)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.abs(seen.astype(int) - ramp).max() <= 9
    assert len({each.tobytes() for each in seen}) > 20


def collected(faces, *, world_size: int, workers: int) -> list[dict]:
    """Two epochs' pictures of all processes, by batch, each batch's in a fixed order."""
    batches: list[dict] = []
    for rank in range(world_size):
        order = BatchOrder(len(faces), 5, 42, rank, world_size)
        loader = batch_loader(FaceBatches(faces, RELEASED, 42), order, workers, pinned=False)
        for epoch in range(2):
            order.epoch = epoch
            for step, batch in enumerate(loader):
                if rank == 0:
                    batches.append({})
                pictures = [picture.numpy().tobytes() for picture in batch.pictures]
                batches[epoch * len(order) + step] |= dict(zip(pictures, batch.labels.tolist(), strict=True))
    return batches


def test_order_and_augmentation_do_not_depend_on_processes_or_workers(folder, tmp_path):
    """One process reading itself, three processes, two workers: the same batches of the same pictures."""
    faces, _, _ = read_faces(tmp_path, "DISFA")
    alone = collected(faces, world_size=1, workers=0)
    assert [len(batch) for batch in alone] == [5, 5, 2, 5, 5, 2]
    assert alone[:3] != alone[3:]
    assert collected(faces, world_size=3, workers=0) == alone
    assert collected(faces, world_size=1, workers=2) == alone


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "world_size"), [(8, 1), (16, 1), (0, 1), (8, 4), (16, 4)])
def test_batches_that_do_not_fit_into_shared_memory(monkeypatch, workers, world_size):
    """64 MB, as a container has; a batch of 64 pictures is 2.4 MB, and every worker reads two ahead."""
    monkeypatch.setattr(faces_dataset.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world_size))
    message = r"^16 workers need 79 MB of shared memory, and /dev/shm has 67 MB free\. Choose fewer --workers, or"
    with pytest.raises(FergiError, match=message) if workers == 16 else nullcontext():
        loader = batch_loader(None, BatchOrder(1000, 64, 0, 0, world_size), workers, pinned=False)
        assert loader.num_workers == workers < 16
