"""Reading weight files, and loading all of one or nothing."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from fergi.files import FergiError
from fergi.weights import (
    WEIGHT_FILES,
    load_state,
    load_strictly,
    read_weights_file,
    save_weights,
)


class Small(nn.Module):
    """A body and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)


@contextmanager
def largest_file(size: int):
    """No file of this process can grow beyond ``size`` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    """Into another module, entry by entry."""
    first, second = Small(), Small()
    save_weights(first.state_dict(), tmp_path / "small.pth")
    load_strictly(second, load_state(tmp_path / "small.pth"), source="small.pth")
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_the_state_may_be_an_entry_of_the_file(tmp_path):
    """As in the landmark network's file; names of parallel training lose what stands before them."""
    state = {f"module.{name}": value for name, value in Small().state_dict().items()}
    save_weights({"epoch": 3, "state_dict": state}, tmp_path / "small.pth.tar")
    assert list(load_state(tmp_path / "small.pth.tar", key="state_dict")) == list(Small().state_dict())


UNREADABLE = r"\.pth .*(cut off|not a file of plain PyTorch weights).* Put it there\."


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off(tmp_path, kept, zipped):
    """Wherever it ends; PyTorch before 1.6 wrote no zip archives, and the landmark network's file is of that time."""
    path = tmp_path / "small.pth"
    torch.save({"state_dict": Small().state_dict()}, path, _use_new_zipfile_serialization=zipped)
    assert list(load_state(path, key="state_dict")) == list(Small().state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FergiError, match=UNREADABLE):
        load_state(path, advice="Put it there.")


@pytest.mark.parametrize("content", ["version https://git-lfs.github.com/spec/v1\n", "<html>Not found</html>", "x"])
def test_a_text_that_is_called_weights(tmp_path, content):
    """What a broken download leaves."""
    (tmp_path / "page.pth").write_text(content)
    with pytest.raises(FergiError, match=UNREADABLE):
        load_state(tmp_path / "page.pth", advice="Put it there.")


def test_a_whole_module_is_not_run(tmp_path):
    """A file that would run code when read is refused."""
    torch.save(Small(), tmp_path / "module.pth")
    with pytest.raises(FergiError, match=r"module\.pth is not a file of plain PyTorch weights"):
        load_state(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ([1, 2], None, "holds a list, not a state dict"),
        ({}, None, "holds a dict, not a state dict"),
        ({"weight": torch.zeros(1), "epoch": 3}, None, r"1 of its 2 entries are not tensors \(first: 'epoch'\)"),
        ({"weight": torch.zeros(1)}, "state_dict", "has no entry 'state_dict'"),
        (torch.zeros(3), "state_dict", "has no entry 'state_dict'"),
    ],
)
def test_a_file_without_a_state_dict(tmp_path, content, key, message):
    """The sentence says what is in it instead."""
    save_weights(content, tmp_path / "other.pth")
    with pytest.raises(FergiError, match=message):
        load_state(tmp_path / "other.pth", key=key)


@pytest.mark.parametrize("file", WEIGHT_FILES, ids=lambda file: Path(file.path).name)
def test_every_missing_file_has_its_advice(tmp_path, file):
    """And where it belongs."""
    with pytest.raises(FergiError) as caught:
        file.read(tmp_path)
    assert str(tmp_path / file.path) in str(caught.value) and file.advice in str(caught.value)
    assert file.source and file.licence and file.what


def altered(change) -> dict[str, torch.Tensor]:
    """The small module's entries after a change."""
    state = {name: torch.zeros_like(value) for name, value in Small().state_dict().items()}
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("body.bias"), r"1 missing \(first: body\.bias\)"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 not known \(first: extra\)"),
        (
            lambda state: state.update({"body.weight": torch.zeros(4, 1, 3, 3)}),
            r"1 of another shape \(first: body\.weight, \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)\)",
        ),
        (
            lambda state: state.update({"fc.bias": torch.zeros(2, dtype=torch.int32)}),
            r"1 of another kind \(first: fc\.bias, torch\.int32 instead of torch\.float32\)",
        ),
        (lambda state: state["fc.bias"].fill_(torch.nan), r"1 not finite \(first: fc\.bias\)"),
        (
            lambda state: (state.pop("fc.bias"), state.pop("fc.weight"), state.update(head=torch.zeros(1))),
            r"2 missing \(first: fc\.weight\); 1 not known \(first: head\)",
        ),
    ],
    ids=["missing", "unexpected", "shape", "kind", "nan", "both"],
)
def test_nothing_is_loaded_unless_all_fits(change, message):
    """Every kind of misfit is counted, its first entry named, and the module is as before."""
    module = Small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(FergiError, match="other.pth does not fit Small with its 4 entries: .*" + message):
        load_strictly(module, altered(change), source="other.pth")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_named_head_is_ignored():
    """The body is loaded; a head of other size and entries that only the file has are not used."""
    module = Small()
    head = module.fc.weight.detach().clone()
    state = altered(lambda state: state.update({"fc.weight": torch.ones(9, 4), "features.bias": torch.ones(9)}))
    load_strictly(module, state, source="pretrained.pth", except_for=("fc.", "features."))
    assert (module.body.weight == 0).all() and torch.equal(module.fc.weight, head)


def test_ignoring_does_not_hide_the_rest():
    """A missing entry of the body is still an error."""
    with pytest.raises(FergiError, match=r"with its 2 entries: 1 missing \(first: body\.bias\)"):
        load_strictly(Small(), altered(lambda s: s.pop("body.bias")), source="x", except_for=("fc.", "features."))


def test_ignoring_an_unknown_name_is_an_error():
    """A wrong name would otherwise pass."""
    with pytest.raises(ValueError, match=r"nothing is named head\. in the module"):
        load_strictly(Small(), Small().state_dict(), source="x", except_for=("head.",))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """And no half of the new one."""
    path = tmp_path / "weights.pth"
    save_weights({"weight": torch.zeros(3)}, path)
    before = path.read_bytes()
    with largest_file(100_000), pytest.raises(FergiError, match=r"Cannot write .*weights\.pth: .* Make room"):
        save_weights({"weight": torch.zeros(1_000_000)}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_plain_values_come_back(tmp_path):
    """Numbers, texts and lists beside tensors, as a training state has them."""
    content = {"step": 3, "log": [{"loss": 0.5, "part": "training"}], "sums": torch.ones(2, dtype=torch.float64)}
    save_weights(content, tmp_path / "state.pth")
    read = read_weights_file(tmp_path / "state.pth")
    assert read["step"] == 3 and read["log"] == content["log"] and torch.equal(read["sums"], content["sums"])
