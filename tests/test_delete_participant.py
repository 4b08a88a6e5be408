"""Deleting a participant: what goes, what stays, and how it refuses."""

import fcntl
import json
import re

import pandas as pd
import pytest
from conftest import STAGES
from numbered import write_consent

import delete_participant
from fergi.dataset import Folders, read_black_images, read_excluded_participants, read_valid_sessions
from fergi.files import FergiError
from fergi.scorers.scoring import COLUMNS as SCORE_COLUMNS


def delete(tiny, *arguments):
    """The script."""
    delete_participant.main(["--root", str(tiny.root), *arguments])


@pytest.fixture
def study(tiny):
    """The small data set after stages 6 to 9, with recordings, finished scores, a page and pictures."""
    for participant in tiny.IMAGES:
        write_consent(tiny.root / "recordings" / participant)
        session = tiny.root / "recordings" / participant / ".session_9_stopped_1"
        session.mkdir()
        (session / "recording.mkv").write_bytes(b"film")
        (tiny.root / "figures/previews" / participant).mkdir(parents=True)
        (tiny.root / "figures/previews" / participant / "clip.png").write_bytes(b"picture")
    tiny.path("figures/figure_5.pdf").write_bytes(b"faces")
    tiny.path("results/result_analysis.html").write_text("page")
    tiny.path("results/statistics.csv").write_text("AU,rho\n4,0.1\n")
    for name, people in (("data_1", ("101", "102")), ("data_2", ("101", "103"))):
        folder = tiny.root / "preparation/cut_faces" / name
        folder.mkdir(parents=True)
        pd.DataFrame({"image": "1.png", "subject": people}).to_csv(folder / "index.csv", index=False)
        (folder / "1.png").write_bytes(b"face")
    scores = pd.DataFrame([(who, 1, 1, "00", 0.1) for who in tiny.IMAGES], columns=SCORE_COLUMNS)
    tiny.path("preparation/image_scores/CLIP").mkdir(parents=True)
    scores.to_csv(tiny.path("preparation/image_scores/CLIP/scores.csv"), index=False)
    tiny.path("preparation/preprocessed_image_data/settings.json").write_text('{"101.csv": "a", "102.csv": "b"}')
    return tiny


def test_nothing_of_them_stays(study, capsys):
    """No file and no content has the name any more; everything else is as it was, and the stages run again."""
    before = study.snapshot()
    delete(study, "102", "--dry-run")
    assert study.snapshot() == before and "nothing was removed" in capsys.readouterr().out
    delete(study, "102")
    out = capsys.readouterr().out
    after = study.snapshot()
    assert not [name for name in after if "102" in name.split("/") or name.endswith("/102.csv")]
    named = {name for name, content in after.items() if re.search(rb"(?<![\d.])102(?![\d.])", content)}
    assert not named
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {
        *(f"preparation/{name}.json" for name in ("valid_sessions", "invalid_images")),
        "preparation/image_scores/CLIP/scores.csv",
        "preparation/preprocessed_image_data/settings.json",
    }
    others = {name for name in set(before) - set(after) if "102" not in name}
    results = "results/image_preference_binary_classification_based_on_ranking.csv"
    cut = {"preparation/cut_faces/data_1/index.csv", "preparation/cut_faces/data_1/1.png"}
    assert others == {results, "results/result_analysis.html", "figures/figure_5.pdf", *cut}
    for line in ("recordings/102  (2 files)", "valid_sessions.json  (2 sessions)", "scores.csv  (1 rows)", results):
        assert line in out
    assert "Run again, for the results without this person" in out and "make them again" in out
    folders = Folders(study.root)
    assert list(read_valid_sessions(folders)) == ["101", "103", "104"]
    assert read_black_images(folders, ["101"]) == {"101": {(1, 2)}}
    for stage in STAGES:
        study.run(stage)
    with pytest.raises(FergiError, match=r"nothing of a participant '102' in .*Nothing was removed\."):
        delete(study, "102")


def test_excluded_and_last(study):
    """Who was excluded leaves that list too; the last one takes the list of sessions along."""
    delete(study, "104")
    folders = Folders(study.root)
    assert read_excluded_participants(folders, ["101"]) == []
    for name in ("101", "102", "103"):
        delete(study, name)
    assert not folders.valid_sessions.exists() and not folders.black_images.exists()
    assert not [name for name in study.snapshot() if name.startswith(("data/", "recordings/"))]


def test_interrupted(study, monkeypatch):
    """What is left is found the second time."""
    monkeypatch.setattr(delete_participant, "remove_traces", lambda traces: [each.remove() for each in traces[:3]])
    delete(study, "102")
    monkeypatch.undo()
    delete(study, "102")
    assert not [name for name in study.snapshot() if "102" in name]


@pytest.mark.parametrize("name", ["105", "", ".", "..", "../data", "session_1", "settings", "10", "*", "102/session_1"])
def test_other_names_remove_nothing(study, name):
    """Unknown ones, paths, and names of other things."""
    before = study.snapshot()
    with pytest.raises(FergiError, match="There is nothing of a participant") as caught:
        delete(study, name)
    assert "\n" not in str(caught.value) and study.snapshot() == before


def test_links_and_locks(study, tmp_path):
    """Nothing outside the root is removed, and nothing while sessions are collected or cut."""
    (tmp_path / "elsewhere").mkdir()
    (study.root / "recordings/102").rename(tmp_path / "elsewhere/102")
    (study.root / "recordings/102").symlink_to(tmp_path / "elsewhere/102")
    before = study.snapshot()
    with pytest.raises(FergiError, match=r"recordings/102 is outside of .* behind a link"):
        delete(study, "102")
    (study.root / "recordings/102").unlink()
    for name, script in (("recordings/.lock", "collect_sessions"), ("data/.cutting", "cut_clips")):
        with study.path(name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(FergiError, match=rf"{script}\.py is at work"):
                delete(study, "101")
    assert study.snapshot().keys() >= before.keys() - {n for n in before if n.startswith("recordings/102")}
    assert json.loads((tmp_path / "elsewhere/102/consent.json").read_text())["recording"]
