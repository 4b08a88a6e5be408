"""The table of weight files as a command: what is there, and fetching from a hub that the tests run themselves."""

import hashlib
import http.server
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CHECKOUT
from test_weights import largest_file

from fergi import weights
from fergi.files import FergiError
from fergi.weights import AESTHETIC_HEAD, BERT_VOCABULARY, CLIP_L, GLINT360K_IR50, SCORER_FILES, WEIGHT_FILES, fetch

CONTENT = bytes(range(256)) * 5000
FILE = replace(BERT_VOCABULARY, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one file: ``content``, ``cut`` (bytes after which it stops), ``status``, and what was ``asked``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(0)

        def do_GET(self):
            asked = self.headers.get("Range")
            server.asked.append((self.path, asked))
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
            self.answer(begin)
            self.wfile.write(server.content[begin : server.cut])

        def answer(self, begin):
            self.send_response(206 if begin else server.status)
            self.send_header("Content-Length", str(len(server.content) - begin))
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
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["hub", "url"])
def file(hub, request):
    """A file of the model hub, and one that lies elsewhere."""
    return FILE if request.param == "hub" else replace(FILE, repository=None, url=f"{hub.address}/vocab.txt")


def there(root: Path) -> dict[str, int]:
    """Files below the root and their sizes."""
    return {path.name: path.stat().st_size for path in root.rglob("*") if path.is_file()}


def test_a_file_is_fetched(hub, file, tmp_path):
    """To its place, whole, nothing else; from the hub at the pinned revision."""
    assert fetch(file, tmp_path, hub=hub.address) == FILE.sha256
    assert FILE.under(tmp_path).read_bytes() == CONTENT and there(tmp_path) == {"vocab.txt": len(CONTENT)}
    of_hub = f"/google-bert/bert-base-uncased/resolve/{FILE.revision}/vocab.txt"
    assert hub.asked == [(of_hub if file.repository else "/vocab.txt", None)]


def test_an_interrupted_download_is_resumed(hub, tmp_path, capsys):
    """From the hub, behind the last whole chunk of 64 KiB."""
    hub.cut = 300_000
    with pytest.raises(FergiError, match=r"vocab\.txt .*Run the same command again"):
        fetch(FILE, tmp_path, hub=hub.address)
    assert 262_144 in there(tmp_path).values() and "vocab.txt" not in there(tmp_path)
    weights.main(["--root", str(tmp_path)])
    assert re.search(r"bert-vocabulary +begun", capsys.readouterr().out)
    hub.cut = None
    fetch(FILE, tmp_path, hub=hub.address)
    assert there(tmp_path) == {"vocab.txt": len(CONTENT)} and hub.asked[-1][1] == "bytes=262144-"


def test_a_file_without_a_known_sum(hub, tmp_path):
    """It is kept, and its sum told; cut off, it is not taken for whole."""
    file = replace(FILE, repository=None, sha256=None, url=hub.address)
    hub.cut = 300_000
    with pytest.raises(FergiError, match=r"cut off at 300000 of 1280000 bytes\. Run the same command again"):
        fetch(file, tmp_path)
    assert there(tmp_path) == {}
    hub.cut = None
    assert fetch(file, tmp_path) == FILE.sha256 and FILE.under(tmp_path).read_bytes() == CONTENT


def test_another_content_is_not_kept(hub, file, tmp_path):
    """The sum is the published one or nothing is there."""
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(FergiError, match=f"not {FILE.sha256}; nothing was kept"):
        fetch(file, tmp_path, hub=hub.address)
    assert there(tmp_path) == {}


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


def test_a_file_without_an_address(tmp_path):
    """It says where to get it by hand."""
    with pytest.raises(FergiError, match=r"cannot be fetched from here\..*InsightFace"):
        fetch(GLINT360K_IR50, tmp_path)


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
    assert f"SHA-256 {FILE.sha256}, as published; licence: Apache-2.0" in capsys.readouterr().out
    weights.main(["--root", str(tmp_path), "--hub", hub.address, "fetch", "bert-vocabulary"])
    assert "vocab.txt is there already." in capsys.readouterr().out
    assert len(hub.asked) == 1 and there(tmp_path) == {"vocab.txt": len(CONTENT)}


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


def test_the_list_is_quick():
    """It needs neither PyTorch nor the hub's library."""
    code = "import sys, fergi.weights as w; w.main([]); print({'torch', 'huggingface_hub'} & set(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "hps-v2.1" in listed.stdout and listed.stdout.endswith("set()\n") and listed.stderr == ""


def test_the_table_of_files():
    """Names differ; files are pinned to a revision where the host has them; sums are of the right form."""
    assert len({file.name for file in WEIGHT_FILES}) == len({file.path for file in WEIGHT_FILES}) == len(WEIGHT_FILES)
    for file in SCORER_FILES:
        assert file.what and file.licence and file.source.startswith("https://")
        assert f"fetch {file.name}" in file.advice and file.path.startswith("pretrained_models/")
        assert (file.repository is None) == (file.url is not None)
        assert file.revision is None or re.fullmatch("[0-9a-f]{40}", file.revision)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert re.search("/[0-9a-f]{40}/", AESTHETIC_HEAD.url)
    assert [file.name for file in SCORER_FILES if file.revision is None] == ["aesthetic", "blip"]
