"""Weight files: reading them, loading all of one or nothing, their table, and fetching from a hub of the tests' own."""

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import torch
from conftest import CHECKOUT
from small_disk import largest_file
from torch import nn

from fergi import weights
from fergi.action_units.network import random_network
from fergi.files import FergiError
from fergi.weights import (
    AESTHETIC_HEAD,
    AU_MODEL,
    BERT_VOCABULARY,
    CLIP_L,
    FACE_LANDMARKER,
    GLINT360K_IR50,
    MOBILEFACENET,
    OWN_RECORDINGS,
    SCORER_FILES,
    WEIGHT_FILES,
    fetch,
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


def test_what_was_saved_comes_back(tmp_path):
    """Numbers, texts and lists; the state into another module. Names of parallel training lose their ``module.``."""
    first, second = Small(), Small()
    state = {f"module.{name}": value for name, value in first.state_dict().items()}
    plain = {"step": 3, "log": [{"loss": 0.5, "part": "training"}]}
    save_weights(plain | {"state_dict": state, "sums": torch.ones(2, dtype=torch.float64)}, tmp_path / "small.pth.tar")
    read = read_weights_file(tmp_path / "small.pth.tar")
    assert {name: read[name] for name in plain} == plain
    assert torch.equal(read["sums"], torch.ones(2, dtype=torch.float64))
    load_strictly(second, load_state(tmp_path / "small.pth.tar", key="state_dict"), source="small.pth.tar")
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


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


def test_what_is_called_weights_and_is_not(tmp_path):
    """Texts that a broken download leaves, and a whole module, which would run code when it is read."""
    for content in ("version https://git-lfs.github.com/spec/v1\n", "<html>Not found</html>", "x"):
        (tmp_path / "page.pth").write_text(content)
        with pytest.raises(FergiError, match=UNREADABLE):
            load_state(tmp_path / "page.pth", advice="Put it there.")
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


def test_ignoring_does_not_hide_the_rest():
    """A missing entry of the body is still an error; and so is a name that nothing has."""
    with pytest.raises(FergiError, match=r"with its 2 entries: 1 missing \(first: body\.bias\)"):
        load_strictly(Small(), altered(lambda s: s.pop("body.bias")), source="x", except_for=("fc.", "features."))
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


# ---- the table of files, and fetching


CONTENT = bytes(range(256)) * 5000
FILE = replace(BERT_VOCABULARY, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


DRIVE = "https://drive.google.com/file/d/1abcdefghijklmnopqrstuvwxyz_-0123/view"
# What Google Drive answers about a file too large for its virus check, and about one that is in too much demand.
CONFIRM = (
    '<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="hidden" name="id" value="1abc"><input type="hidden" name="confirm" value="t"></form></html>'
)
QUOTA = """<!DOCTYPE html><html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file
 recently. Please try accessing the file again later.</p></html>""".replace("\n", "")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one file: ``content``, ``cut`` (bytes after which it stops), ``status``, and what was ``asked``.

    It is Google Drive as well, with a ``page`` before the file.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(0)

        def do_GET(self):
            asked = self.headers.get("Range")
            server.asked.append((self.path, asked))
            if self.path.startswith("/uc?") and server.page:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(server.page.encode())
                return
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.resumes else 0
            self.answer(begin)
            self.wfile.write(server.content[begin : server.cut])

        def answer(self, begin):
            n_bytes = len(server.content)
            self.send_response(206 if begin else server.status)
            self.send_header("Content-Length", str(n_bytes - begin))
            self.send_header("Content-Type", "application/octet-stream")
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{n_bytes - 1}/{n_bytes}")
            if self.path.startswith("/download?"):
                self.send_header("Content-Disposition", 'attachment; filename="another name.bin"')
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", FILE.revision)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library tries five times, with up to eight seconds between
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.cut, server.asked, server.status = CONTENT, None, [], 200
    server.page, server.resumes = CONFIRM, True
    server.address = f"http://127.0.0.1:{server.server_port}"

    def get(session, url, _get=requests.Session.get, **options):
        assert options["timeout"] and not session.cookies  # no wait without end, no cookies of earlier visits
        return _get(session, re.sub(r"https://drive\.(usercontent\.)?google\.com", server.address, url), **options)

    monkeypatch.setattr("requests.Session.get", get)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["hub", "url", "drive"])
def file(hub, request):
    """A file of the model hub, one that lies elsewhere, and one on Google Drive."""
    if request.param == "hub":
        return FILE
    return replace(FILE, repository=None, url=DRIVE if request.param == "drive" else f"{hub.address}/vocab.txt")


def there(root: Path) -> dict[str, int]:
    """Files below the root and their sizes."""
    return {path.name: path.stat().st_size for path in root.rglob("*") if path.is_file()}


def test_a_file_is_fetched(hub, file, tmp_path):
    """To its place, whole, nothing else; from the hub at the pinned revision."""
    assert fetch(file, tmp_path, hub=hub.address) == FILE.sha256
    assert FILE.under(tmp_path).read_bytes() == CONTENT and there(tmp_path) == {"vocab.txt": len(CONTENT)}
    of_hub = f"/google-bert/bert-base-uncased/resolve/{FILE.revision}/vocab.txt"
    of_drive = ["/uc?id=1abcdefghijklmnopqrstuvwxyz_-0123", "/download?id=1abc&confirm=t"]
    expected = [of_hub] if file.repository else of_drive if file.url == DRIVE else ["/vocab.txt"]
    assert hub.asked == [(path, None) for path in expected]


def test_an_interrupted_download_is_resumed(hub, file, tmp_path, capsys):
    """Behind the last whole chunk that came: of 64 KiB from the hub, of 512 KiB from elsewhere."""
    hub.cut = 600_000
    with pytest.raises(FergiError, match=r"vocab\.txt .*Run the same command again") as caught:
        fetch(file, tmp_path, hub=hub.address)
    assert "\n" not in str(caught.value)
    kept = 589_824 if file.repository else 524_288
    assert kept in there(tmp_path).values() and "vocab.txt" not in there(tmp_path)
    weights.main(["--root", str(tmp_path)])
    assert re.search(r"bert-vocabulary +begun", capsys.readouterr().out)
    hub.cut = None
    fetch(file, tmp_path, hub=hub.address)
    assert there(tmp_path) == {"vocab.txt": len(CONTENT)} and hub.asked[-1][1] == f"bytes={kept}-"


@pytest.mark.parametrize("file", ["url", "drive"], indirect=True)
def test_a_server_that_does_not_resume(hub, file, tmp_path):
    """What was there is dropped, so that the next call begins anew; a lost connection drops nothing."""
    hub.cut = 600_000
    with pytest.raises(FergiError, match="incomplete: received 524288 bytes but the server announced 1280000 bytes"):
        fetch(file, tmp_path)
    hub.cut, hub.status = None, 503
    with pytest.raises(FergiError, match="503"):
        fetch(file, tmp_path)
    assert 524_288 in there(tmp_path).values()
    hub.status, hub.resumes = 200, False
    with pytest.raises(FergiError, match=r"did not honor the requested byte range.*Run the same command again"):
        fetch(file, tmp_path)
    assert there(tmp_path) == {}
    assert fetch(file, tmp_path) == FILE.sha256 and there(tmp_path) == {"vocab.txt": len(CONTENT)}


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (QUOTA, "because too many people have fetched it lately; try again in a day"),
        ("<html>Sign in</html>", "because it is no longer shared, has another address, or was fetched too often"),
    ],
)
def test_a_page_in_place_of_a_file(hub, tmp_path, page, reason):
    """Google Drive's reason, the address for a browser, and nothing kept."""
    hub.page = page
    with pytest.raises(FergiError) as caught:
        fetch(replace(FILE, repository=None, url=DRIVE), tmp_path)
    said = f"vocab.txt could not be fetched from {DRIVE}: Google Drive gave a web page in place of the file, {reason}"
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    assert there(tmp_path) == {}


def test_a_file_without_a_known_sum(hub, tmp_path, monkeypatch, capsys):
    """It is kept with a record of its sum, so that a change is noticed; a web page is not taken for it."""
    file = replace(FILE, repository=None, sha256=None, url=hub.address)
    hub.content = QUOTA.encode()
    with pytest.raises(FergiError, match=r"vocab\.txt from http\S+ is a web page; nothing was kept\. Run"):
        fetch(file, tmp_path)
    assert there(tmp_path) == {}
    hub.content = CONTENT
    assert fetch(file, tmp_path) == FILE.sha256 and FILE.under(tmp_path).read_bytes() == CONTENT
    record = json.loads(file.record(tmp_path).read_text())
    assert file.record(tmp_path).name == "vocab.txt.fetched.json" and record.pop("time")[:2] == "20"
    assert record == {"sha256": FILE.sha256, "size": len(CONTENT), "from": hub.address}
    monkeypatch.setattr(weights, "WEIGHT_FILES", (file,))
    weights.main(["--root", str(tmp_path), "check"])
    assert f"SHA-256 {FILE.sha256}, as fetched on 20" in capsys.readouterr().out
    file.under(tmp_path).write_bytes(CONTENT[:-1])
    weights.main(["--root", str(tmp_path), "check"])
    assert ", not the file that was fetched on 20" in capsys.readouterr().out


def test_a_file_that_git_knows(hub, tmp_path):
    """``git hash-object`` of "hello world" and a line feed is 3b18e512dba79e4c8300dd08aeb37f8e728b8dad."""
    hub.content = b"hello world\n"
    file = replace(FILE, repository=None, sha256=None, url=DRIVE, git_blob="3b18e512dba79e4c8300dd08aeb37f8e728b8dad")
    fetch(file, tmp_path)
    assert there(tmp_path) == {"vocab.txt": 12}
    hub.content = b"hello w0rld\n"
    with pytest.raises(FergiError, match=f"has the git blob id [0-9a-f]{{40}}, not {file.git_blob}; nothing was kept"):
        fetch(file, tmp_path)


def test_a_file_whose_layout_is_known(hub, tmp_path):
    """Only a file that fits the network is kept."""
    file = replace(AU_MODEL, url=DRIVE, network="ir10-thin")
    state = random_network("ir10-thin", seed=3).state_dict()
    for content, message in (
        (state | {"extra": torch.zeros(1)}, r"1 not known \(first: extra\)"),
        ([1], "holds a list, not a state dict"),
    ):
        torch.save(content, tmp_path / "served")
        hub.content = (tmp_path / "served").read_bytes()
        with pytest.raises(FergiError, match=rf"cannot be used: it .*{message}; nothing was kept") as caught:
            fetch(file, tmp_path / "root")
        assert "\n" not in str(caught.value) and there(tmp_path / "root") == {}
    torch.save(state, tmp_path / "served")
    hub.content = (tmp_path / "served").read_bytes()
    fetch(file, tmp_path / "root")
    assert there(tmp_path / "root").keys() == {"checkpoint_epoch3.pth", "checkpoint_epoch3.pth.fetched.json"}


def test_another_content_is_not_kept(hub, file, tmp_path):
    """The sum is the published one or nothing is there."""
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(FergiError, match=f"not {FILE.sha256}; nothing was kept"):
        fetch(file, tmp_path, hub=hub.address)
    assert there(tmp_path) == {}


@pytest.mark.parametrize("file", ["hub", "url"], indirect=True)
@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(hub, file, tmp_path, status):
    """With its answer, and where else to get the file."""
    hub.status = status
    with pytest.raises(FergiError, match=rf"could not be fetched .*{status}.* {FILE.source} there by hand") as caught:
        fetch(file, tmp_path, hub=hub.address)
    assert there(tmp_path) == {} and "\n" not in str(caught.value)


def test_no_room(hub, file, tmp_path):
    """Found while writing; then the rest can follow."""
    with largest_file(400_000), pytest.raises(FergiError, match=r"vocab\.txt could not be fetched.*too large"):
        fetch(file, tmp_path, hub=hub.address)
    fetch(file, tmp_path, hub=hub.address)
    assert FILE.under(tmp_path).read_bytes() == CONTENT


def test_the_list(tmp_path, capsys):
    """There or missing; sizes; licences. Nothing is fetched or written."""
    path = BERT_VOCABULARY.under(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"123")
    before = there(tmp_path)
    weights.main(["--root", str(tmp_path)])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == ["name", *(file.name for file in WEIGHT_FILES)]
    assert re.search(r"there +0\.0 MB +Apache-2\.0 +pretrained_models/bert-base-uncased", rows["bert-vocabulary"])
    assert re.search(r"missing +1\.7 GB +MIT", rows["clip"])
    assert re.search(r"missing +3\.7 MB", rows["aesthetic"])
    weights.main(["--root", str(tmp_path), "check"])
    out = capsys.readouterr().out
    assert f"SHA-256 {hashlib.sha256(b'123').hexdigest()}, not the published file" in out
    assert there(tmp_path) == before


def test_fetching_by_name(hub, tmp_path, monkeypatch, capsys):
    """Only what is asked for, once."""
    monkeypatch.setattr(weights, "WEIGHT_FILES", (FILE, CLIP_L))
    weights.main(["--root", str(tmp_path), "--hub", hub.address, "fetch", "bert-vocabulary"])
    out = capsys.readouterr().out
    assert out.index("Terms of use: Apache-2.0.") < out.index(f"SHA-256 {FILE.sha256}, as published.")
    weights.main(["--root", str(tmp_path), "--hub", hub.address, "fetch", "bert-vocabulary"])
    assert "vocab.txt is there already." in capsys.readouterr().out
    assert len(hub.asked) == 1 and there(tmp_path) == {"vocab.txt": len(CONTENT)}


def test_fetching_for_own_recordings(hub, tmp_path, monkeypatch, capsys):
    """Terms before each download, and how to cite; what one file lacks does not keep back the others."""
    files = [replace(file, sha256=None, git_blob=None, network=None) for file in OWN_RECORDINGS]
    files[0] = replace(files[0], url=f"{hub.address}/face.task")
    monkeypatch.setattr(weights, "WEIGHT_FILES", tuple(files))
    hub.page = QUOTA
    failed = r"2 of 3 files are not fetched \(first: mobilefacenet_\S+ could not .*\)\. See above what to do for each"
    with pytest.raises(FergiError, match=failed):
        weights.main(["--root", str(tmp_path), "fetch", "own-recordings"])
    out = capsys.readouterr().out
    assert there(tmp_path).keys() == {"face_landmarker.task", "face_landmarker.task.fetched.json"}
    assert out.count("Not fetched: ") == out.count("there by hand.") == 2
    assert "Terms of use: research only: trained on DISFA and DISFA+. Its users cite DISFA (Mavadati" in out
    hub.page = CONFIRM
    weights.main(["--root", str(tmp_path), "fetch", "own-recordings"])
    out = capsys.readouterr().out
    assert "face_landmarker.task is there already." in out and "Wrote AU_models/checkpoint_epoch3.pth" in out


@pytest.mark.parametrize("arguments", [["fetch"], ["fetch", "nonsense"], ["list", "clip"], ["check", "clip"]])
def test_slips_on_the_command_line(tmp_path, arguments, capsys):
    """They are told."""
    with pytest.raises(SystemExit):
        weights.main(["--root", str(tmp_path), *arguments])
    assert "error: " in capsys.readouterr().err


def test_no_connection(hub, tmp_path):
    """A closed port gives one short sentence."""
    with pytest.raises(FergiError, match=r"model\.safetensors could not be fetched .*: [^:]* refused\. Run"):
        weights.main(["--root", str(tmp_path), "--hub", "http://127.0.0.1:9", "fetch", "clip"])
    for url in ("http://127.0.0.1:9/vocab.txt", DRIVE):
        hub.address = "http://127.0.0.1:9"
        with pytest.raises(FergiError, match=r"vocab\.txt could not be fetched .*: [^:]* refused\. Run"):
            fetch(replace(FILE, repository=None, url=url), tmp_path)
    assert there(tmp_path) == {}


def test_the_list_is_quick():
    """It needs neither PyTorch nor the hub's library."""
    code = "import sys, fergi.weights as w; w.main([]); print({'torch', 'huggingface_hub'} & set(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "hps-v2.1" in listed.stdout and listed.stdout.endswith("set()\n") and listed.stderr == ""


def test_the_table_of_files(tmp_path):
    """Names differ; missing files are told with advice; files are pinned to a revision; sums are of the right form."""
    assert len({file.name for file in WEIGHT_FILES}) == len({file.path for file in WEIGHT_FILES}) == len(WEIGHT_FILES)
    for file in WEIGHT_FILES:
        with pytest.raises(FergiError) as caught:
            file.read(tmp_path)
        assert str(tmp_path / file.path) in str(caught.value) and file.advice in str(caught.value)
        assert file.what and file.licence and file.source
    for file in SCORER_FILES:
        assert file.source.startswith("https://")
        assert f"fetch {file.name}" in file.advice and file.path.startswith("pretrained_models/")
        assert (file.repository is None) == (file.url is not None)
        assert file.revision is None or re.fullmatch("[0-9a-f]{40}", file.revision)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert re.search("/[0-9a-f]{40}/", AESTHETIC_HEAD.url)
    assert [file.name for file in SCORER_FILES if file.revision is None] == ["aesthetic", "blip"]
    assert re.fullmatch("[0-9a-f]{40}", MOBILEFACENET.git_blob) and FACE_LANDMARKER.size == 3_758_596
    assert "--landmarks facemesh" in MOBILEFACENET.advice and "fetch mobilefacenet" in MOBILEFACENET.advice
    first, _, second = AU_MODEL.advice.partition("; ")  # training comes second
    assert "fetch au-model" in first and "DISFAwithPlus_train_model.py" in second
    by_hand = (
        r"cannot be fetched from here\. With a browser, open https://1drv\.ms/\S+ .*backbone\.pth.* save it as pre"
    )
    with pytest.raises(FergiError, match=by_hand):
        fetch(GLINT360K_IR50, tmp_path)
