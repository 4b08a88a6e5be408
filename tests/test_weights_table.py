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

CONTENT = bytes(range(256)) * 5000  # larger than one block
FILE = replace(BERT_VOCABULARY, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def hub():
    """A server of one file that knows ranges; ``content``, ``cut`` (bytes after which it stops) and what was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            server.asked.append((self.path, asked))
            if server.status != 200:
                return self.send_error(server.status)
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
            if begin >= len(server.content):
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(server.content) - begin))
            self.end_headers()
            self.wfile.write(server.content[begin : server.cut])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.cut, server.asked, server.ranges, server.status = CONTENT, None, [], True, 200
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def there(root: Path) -> dict[str, int]:
    """Files below the root and their sizes."""
    return {path.name: path.stat().st_size for path in root.rglob("*") if path.is_file()}


def test_a_file_is_fetched(hub, tmp_path):
    """To its place, whole, from the pinned revision."""
    sizes = []
    assert fetch(FILE, tmp_path, hub=hub.address, progress=sizes.append) == FILE.sha256
    assert FILE.under(tmp_path).read_bytes() == CONTENT and there(tmp_path) == {"vocab.txt": len(CONTENT)}
    assert hub.asked == [(f"/google-bert/bert-base-uncased/resolve/{FILE.revision}/vocab.txt", None)]
    assert sizes[-1] == len(CONTENT) and len(sizes) > 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_fetch_goes_on(hub, tmp_path, ranges):
    """Where it ended, or from the beginning if the server knows no ranges."""
    hub.cut = 300_000
    with pytest.raises(FergiError, match=r"vocab\.txt .*Run the same command again to go on"):
        fetch(FILE, tmp_path, hub=hub.address)
    assert there(tmp_path) == {"vocab.txt.part": 300_000}
    hub.cut, hub.ranges = None, ranges
    fetch(FILE, tmp_path, hub=hub.address)
    assert FILE.under(tmp_path).read_bytes() == CONTENT
    assert hub.asked[1][1] == "bytes=300000-"


def test_all_was_there_but_the_name(hub, tmp_path):
    """Interrupted just before the end: nothing is left to send."""
    partial = FILE.under(tmp_path).with_name("vocab.txt.part")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    fetch(FILE, tmp_path, hub=hub.address)
    assert FILE.under(tmp_path).read_bytes() == CONTENT


def test_another_content_is_not_kept(hub, tmp_path):
    """The sum is the published one or nothing is there."""
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(FergiError, match=f"not {FILE.sha256}; nothing was kept"):
        fetch(FILE, tmp_path, hub=hub.address)
    assert there(tmp_path) == {}


def test_a_file_without_a_known_sum(hub, tmp_path):
    """Is kept, and its sum told."""
    found = fetch(replace(FILE, sha256=None), tmp_path, hub=hub.address)
    assert found == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(hub, tmp_path, status):
    """With its answer, and where else to get the file."""
    hub.status = status
    with pytest.raises(FergiError, match=rf"answers {status} .*{FILE.source} there by hand"):
        fetch(FILE, tmp_path, hub=hub.address)
    assert there(tmp_path) == {}


def test_no_connection(tmp_path):
    """A port at which nobody listens."""
    with pytest.raises(FergiError, match=r"vocab\.txt could not be fetched from http://127\.0\.0\.1:9/"):
        fetch(FILE, tmp_path, hub="http://127.0.0.1:9")


def test_no_room(hub, tmp_path):
    """Known before, or found while writing; then the rest can follow."""
    with pytest.raises(FergiError, match=r"vocab\.txt needs \d+\.\d GB more"):
        fetch(replace(FILE, size=10**18), tmp_path, hub=hub.address)
    with largest_file(400_000), pytest.raises(FergiError, match=r"vocab\.txt could not be fetched"):
        fetch(FILE, tmp_path, hub=hub.address)
    fetch(FILE, tmp_path, hub=hub.address)
    assert FILE.under(tmp_path).read_bytes() == CONTENT


def test_a_file_that_nobody_serves(tmp_path):
    """Says where to get it by hand."""
    with pytest.raises(FergiError, match=r"cannot be fetched from here\..*InsightFace"):
        fetch(GLINT360K_IR50, tmp_path)


def test_the_list(tmp_path, capsys):
    """There, begun, missing; sizes; licences. Nothing is fetched or written."""
    for file, ending in ((BERT_VOCABULARY, ""), (CLIP_L, ".part")):
        path = file.under(tmp_path)
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ending).write_bytes(b"123")
    before = there(tmp_path)
    weights.main(["--root", str(tmp_path)])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == ["name", *(file.name for file in WEIGHT_FILES)]
    assert re.search(r"there +0\.0 MB +Apache-2\.0 +pretrained_models/bert-base-uncased", rows["bert-vocabulary"])
    assert re.search(r"begun +1\.7 GB +MIT", rows["clip"])
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
    """Are told."""
    with pytest.raises(SystemExit):
        weights.main(["--root", str(tmp_path), *arguments])
    assert "error: " in capsys.readouterr().err


def test_as_a_command(tmp_path):
    """It runs, and its errors are one sentence."""
    command = [sys.executable, "-m", "fergi.weights", "--root", str(tmp_path)]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "hps-v2.1" in listed.stdout and listed.stderr == ""
    failed = subprocess.run(
        [*command, "--hub", "http://127.0.0.1:9", "fetch", "bert-vocabulary"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1 and "could not be fetched" in failed.stderr and "Traceback" not in failed.stderr


def test_every_scorer_file_is_described():
    """Names differ; addresses are pinned to a revision where the host has them; sums are of the right form."""
    assert len({file.name for file in WEIGHT_FILES}) == len({file.path for file in WEIGHT_FILES}) == len(WEIGHT_FILES)
    for file in SCORER_FILES:
        assert file.what and file.licence and file.source.startswith("https://")
        assert f"fetch {file.name}" in file.advice and file.path.startswith("pretrained_models/")
        assert file.revision is None or (len(file.revision) == 40 and file.revision in file.url)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert AESTHETIC_HEAD.revision and [file.name for file in SCORER_FILES if file.revision is None] == ["blip"]
