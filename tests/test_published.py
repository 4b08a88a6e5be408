"""Fetching the published files: verified, all or nothing, and only once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import snapshot

from fergi import published
from fergi.files import FergiError
from fergi.published import PATHS, Entry, fetch, read_entries

RESULTS = "image_preference_binary_classification_based_on_ranking.csv"
NOWHERE = "/nonexistent/repository"


def list_entries(folder: Path) -> list[Entry]:
    """The entries that a copy of the repository has: this is how published_files.txt was made."""
    sessions = [f"{path.relative_to(folder).as_posix()}/" for path in folder.glob("data/*/session_*")]
    files = [path for path in (*folder.glob("preparation/**/*"), folder / PATHS[-1]) if path.is_file()]
    paths = sorted([*sessions, *(path.relative_to(folder).as_posix() for path in files)])
    return [Entry(path, Entry(path, "").digest(folder / path)) for path in paths]


UNCHANGED = {
    "data/001/session_1/baseline_clip_1_features.csv": b"frame\n1\n",
    "data/001/session_1/reaction_clip_1_features.csv": b"frame\n2\n",
    "data/002/session_3/baseline_clip_1_features.csv": b"frame\n3\n",
    "preparation/valid_sessions.json": b'{"001": [1], "002": [3]}',
    "preparation/preprocessed_image_data/001.csv": b"image\n",
}
IN_PLACE = UNCHANGED | {
    "results/published/preprocessed_reaction_data/001.csv": b"reaction\n",
    "results/published/AU4_excluded_participants.json": b"[]",
    f"results/published/{RESULTS}": b"results\n",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small repository of the published layout, with things in it that are not wanted."""
    content = UNCHANGED | {
        "preparation/preprocessed_reaction_data/001.csv": b"reaction\n",
        "preparation/AU4_excluded_participants.json": b"[]",
        f"results/{RESULTS}": b"results\n",
        "results/another.csv": b"not wanted\n",
        "weights.bin": b"not wanted\n",
    }
    folder = tmp_path / "copy"
    for path, each in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(each)
    return folder


@pytest.fixture
def entries(copy: Path) -> list[Entry]:
    """What that repository publishes."""
    return list_entries(copy)


def commit_all(folder: Path) -> str:
    """Make a git repository of a folder; its only commit."""
    author = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message=All"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return shown.stdout.strip()


@pytest.mark.parametrize("way", ["git", "copy", "copy with its results as expected ones"])
def test_what_is_published_arrives_and_what_the_stages_compute_is_kept_apart(copy, entries, tmp_path, way):
    root, source = tmp_path / "root", {"remote": NOWHERE, "copy": copy}
    if way == "git":
        source = {"remote": str(copy), "commit": commit_all(copy)}
    elif way != "copy":
        (copy / "results").rename(copy / "expected")
    assert fetch(root, entries=entries, **source) == len(entries) == 7
    assert snapshot(root) == IN_PLACE


def test_only_what_is_missing_is_fetched_again(copy, entries, tmp_path):
    root = tmp_path / "root"
    fetch(root, entries=entries, copy=copy)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert fetch(root, entries=entries, remote=NOWHERE) == 0  # it needs no source
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    shutil.rmtree(root / "data" / "001" / "session_1")
    (root / "preparation" / "valid_sessions.json").unlink()
    assert fetch(root, entries=entries, copy=copy) == 2
    assert snapshot(root) == IN_PLACE


def test_a_source_that_cannot_be_reached_leaves_nothing(copy, entries, tmp_path, monkeypatch):
    root = tmp_path / "root"
    with pytest.raises(FergiError, match=f"^Cannot fetch commit 02c8a2f from {NOWHERE} .*git.*FERGI_DATA"):
        fetch(root, entries=entries, remote=NOWHERE)
    commit_all(copy)
    with pytest.raises(FergiError, match=f"Cannot fetch commit 0000000 from {copy}"):
        fetch(root, entries=entries, remote=str(copy), commit="0" * 40)
    with pytest.raises(FergiError, match=r"FERGI_DATA is .*nowhere, which is not a folder"):
        fetch(root, entries=entries, copy=tmp_path / "nowhere")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FergiError, match="git: not installed"):
        fetch(root, entries=entries, remote=NOWHERE)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("data/002/session_3/baseline_clip_1_features.csv", "frame\n", "session_3/ is different"),
        ("data/001/session_1/reaction_clip_1_features.csv", None, "session_1/ is different"),
        ("preparation/valid_sessions.json", None, "valid_sessions.json is missing"),
    ],
)
def test_a_damaged_copy_is_refused_whole(copy, entries, tmp_path, path, content, message):
    (copy / path).unlink() if content is None else (copy / path).write_text(content)
    with pytest.raises(FergiError, match=f"^1 of 7 published files or sessions is unusable .first: .*{message}"):
        fetch(tmp_path / "root", entries=entries, copy=copy)
    assert snapshot(tmp_path / "root") == {}


def test_files_that_differ_are_replaced_only_when_asked_for(copy, entries, tmp_path):
    root = tmp_path / "root"
    fetch(root, entries=entries, copy=copy)
    own_features = root / "data/001/session_1/baseline_clip_1_features.csv"
    own_features.write_text("mine")
    own_video = root / "data/001/session_1/baseline_clip_1.mp4"
    own_video.write_text("also mine")
    with pytest.raises(FergiError, match=r"^1 of 7 .* differ .*session_1\).*--replace"):
        fetch(root, entries=entries, copy=copy)
    assert own_features.read_text() == "mine"
    assert fetch(root, entries=entries, copy=copy, replace=True) == 1
    assert snapshot(root) == IN_PLACE | {"data/001/session_1/baseline_clip_1.mp4": b"also mine"}


def test_features_of_another_estimator_are_in_the_way(copy, entries, tmp_path):
    """The published files have no settings of their own: those of the others would count for them."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "data" / "settings.json").write_text('{"estimator": "blendshapes", "estimator_version": "1"}')
    before = snapshot(root)
    with pytest.raises(FergiError, match=r"data has features of blendshapes, .* Choose another --root or move"):
        fetch(root, entries=entries, copy=copy, replace=True)
    assert snapshot(root) == before


def test_interrupted_while_putting_in_place(copy, entries, tmp_path, monkeypatch):
    root, calls = tmp_path / "root", []

    def interrupted(source, target, really=os.replace):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        really(source, target)

    monkeypatch.setattr(published.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(root, entries=entries, copy=copy)
    assert len(snapshot(root)) > 0
    assert not list(root.glob(".fetching-*"))
    monkeypatch.undo()
    leftover = root / ".fetching-killed"  # as a killed call leaves it
    leftover.mkdir()
    (leftover / "half").write_text("half")
    assert fetch(root, entries=entries, copy=copy) == 5
    assert snapshot(root) == IN_PLACE and not leftover.exists()


def test_unwritable_root(entries, copy, tmp_path):
    (tmp_path / "root").write_text("a file in the way")
    with pytest.raises(FergiError, match=r"Cannot write into .*root"):
        fetch(tmp_path / "root", entries=entries, copy=copy)
    assert (tmp_path / "root").read_text() == "a file in the way"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_digest_of_a_session_is_what_the_shell_says(copy, entries):
    session = next(entry for entry in entries if entry.path == "data/001/session_1/")
    command = "LC_ALL=C; sha256sum *_features.csv | sha256sum"
    said = subprocess.run(["sh", "-c", command], cwd=copy / session.path, check=True, capture_output=True, text=True)
    assert said.stdout.split()[0] == session.sha256


def test_the_list_names_all_published_files():
    listed = [entry.path for entry in read_entries()]
    assert len(set(listed)) == len(listed) == 576 + 3 * 33 + 3 + 1
    assert sum(path.startswith("data/") for path in listed) == 576
    assert all(len(entry.sha256) == 64 for entry in read_entries())


def test_the_list_is_that_of_the_published_files(published):
    listed = {entry for entry in read_entries() if not entry.path.startswith("results/")}
    assert set(list_entries(published)) == listed


def test_command_line(copy, entries, tmp_path, monkeypatch, capsys):
    listing = tmp_path / "published_files.txt"
    listing.write_text("".join(f"{entry.sha256}  {entry.path}\n" for entry in entries))
    monkeypatch.setattr(published, "read_entries", lambda: read_entries(listing))
    monkeypatch.setenv("FERGI_DATA", str(copy))
    published.main(["--root", str(tmp_path / "root")])
    assert "features of 2 sessions, 5 tables and lists; 7 of them fetched now" in capsys.readouterr().out
    monkeypatch.delenv("FERGI_DATA")
    monkeypatch.setenv("FERGI_REMOTE", NOWHERE)
    published.main(["--root", str(tmp_path / "root")])
    assert "none of them fetched now" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "root" / "data")
    with pytest.raises(FergiError, match=f"from {NOWHERE}"):
        published.main(["--root", str(tmp_path / "root")])
