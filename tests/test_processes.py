"""Which device each process gets, how it joins its group (CUDA is feigned), and how workers start."""

import time

import cv2
import numpy as np
import pytest
import torch
from torch import distributed
from torch.utils.data import DataLoader

from fergi.files import FergiError
from fergi.processes import choose_device, joined_process, start_worker


@pytest.fixture
def calls(monkeypatch) -> list:
    """A machine with two CUDA devices on which nothing happens but the listed calls."""
    made: list = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(("set", str(device))))
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, device_id, timeout: made.append((backend, str(device_id)))
    )
    monkeypatch.setattr(distributed, "get_rank", lambda: 5)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: made.append("destroyed"))
    return made


def started_by_torchrun(monkeypatch, *, rank: int, of: int) -> None:
    """The environment of one process of a machine; there is a second machine."""
    for name, value in (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", of), ("WORLD_SIZE", 2 * of)):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("rank", "name", "chosen"), [
    (0, None, "cuda:0"), (1, None, "cuda:1"), (1, "cuda", "cuda:1"), (2, None, "cuda:0"), (1, "cuda:0", "cuda:0"),
    (1, "cpu", "cpu"),
])  # fmt: skip
def test_processes_get_devices_in_turn(calls, monkeypatch, rank, name, chosen):
    """Unless one is named with its number."""
    started_by_torchrun(monkeypatch, rank=rank, of=3)
    assert str(choose_device(name)) == chosen


def test_without_torchrun(calls, monkeypatch):
    """CUDA if it is there, alone."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert str(choose_device(None)) == "cuda"
    with joined_process(torch.device("cuda:1")) as process:
        assert (process.rank, process.world_size, str(process.device)) == (0, 1, "cuda:1")
    assert not calls


@pytest.mark.parametrize("name", ["mps", "meta"])
def test_other_kinds_of_devices(name):
    """For every script the same sentence."""
    with pytest.raises(FergiError, match=rf"^The device '{name}' is not supported\. Choose cpu or cuda\.$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:1", "cuda"])
def test_joining_with_nccl(calls, monkeypatch, name):
    """Every process on its own device, which the group is told."""
    started_by_torchrun(monkeypatch, rank=1, of=2)
    with joined_process(torch.device(name)) as process:
        assert (process.rank, process.world_size, str(process.device)) == (5, 4, "cuda:1")
        assert calls == [("set", "cuda:1"), ("nccl", "cuda:1")]
    assert calls[2:] == ["destroyed"]


def test_joining_on_the_cpu(calls, monkeypatch):
    """As many processes as wanted."""
    started_by_torchrun(monkeypatch, rank=2, of=3)
    with joined_process(torch.device("cpu")) as process:
        assert process.device.type == "cpu"
    assert calls == [("gloo", "None"), "destroyed"]


def test_a_process_that_fails_does_not_wait_for_the_others(calls, monkeypatch):
    """It ends with its error, and torchrun ends the others."""
    started_by_torchrun(monkeypatch, rank=0, of=2)
    with pytest.raises(FergiError, match="no picture"), joined_process(torch.device("cuda")):
        raise FergiError("no picture")
    assert "destroyed" not in calls


def test_more_processes_than_devices(calls, monkeypatch):
    started_by_torchrun(monkeypatch, rank=0, of=3)
    message = r"^3 processes were started on this machine, which has 2 CUDA devices\. Start 2 with torchrun --nproc-"
    with pytest.raises(FergiError, match=message), joined_process(choose_device(None)):
        pass
    assert not calls


def test_processes_that_are_to_share_a_device(calls, monkeypatch):
    started_by_torchrun(monkeypatch, rank=1, of=2)
    message = r"^2 processes cannot share cuda:0\. Pass --device cuda, which gives each its own"
    with pytest.raises(FergiError, match=message), joined_process(choose_device("cuda:0")):
        pass
    assert not calls


def test_a_forked_worker_starts_beside_threads_of_opencv():
    """Threads that the parent has and the worker has not must not be waited for."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((3000, 3000, 3), np.uint8), (31, 31), 0)
        time.sleep(0.5)  # until they wait for work
        loader = DataLoader(
            [1, 2],
            batch_size=None,
            num_workers=1,
            worker_init_fn=start_worker,
            multiprocessing_context="fork",
            timeout=30,
        )
        assert list(loader) == [1, 2]
    finally:
        cv2.setNumThreads(before)
