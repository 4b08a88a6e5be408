"""Stage 5 as a script: small scorers whose weights are files, the tables, resuming, and how it refuses."""

import importlib
import json
import os
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
from conftest import snapshot
from PIL import Image
from small_scorers import BLACK, LAYOUTS, drawn, load_small, write_sessions, write_small_models

from fergi.dataset import Folders
from fergi.files import FergiError, sha256
from fergi.scorers.hps import HpsV2
from fergi.scorers.interface import Scorer
from fergi.scorers.origin import read_table_settings, score_origins, scorer_agreement, untrained_columns
from fergi.scorers.registry import PAPER_SCORERS, SCORERS
from fergi.weights import CLIP_L, PICK_SCORE

STAGE = importlib.import_module("preprocess_image_data")
SEARCH = importlib.import_module("image_preference_binary_classification_based_on_ranking")
SIX = [SCORERS[name].column for name in PAPER_SCORERS]
SCORES = "preparation/image_scores"
UNKNOWN_ORIGIN = "Scores: published, or of an unknown origin (no settings of them beside the tables)."


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared") / "root"
    write_sessions(root)
    (root / "layouts.json").write_text(json.dumps(LAYOUTS))
    with pytest.MonkeyPatch.context() as patch:
        write_small_models(root, patch)
    return root


@pytest.fixture
def root(_prepared, tmp_path):
    """Sessions, small models and their layouts."""
    return shutil.copytree(_prepared, tmp_path / "root")


def run(root, *options):
    """The script, on the CPU."""
    options = ("--device", "cpu", "--workers", "2", "--scorer-layouts", str(root / "layouts.json"), *options)
    STAGE.main(["--root", str(root), *options])


def tables(root):
    """Participant → image table."""
    folder = root / "preparation/preprocessed_image_data"
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.csv"))}


def refuses(root, *options, message):
    """It stops with the sentence before any network is loaded, and changes nothing."""
    before = snapshot(root)
    with pytest.raises(FergiError, match=message) as caught:
        run(root, *options)
    assert "\n" not in str(caught.value) and snapshot(root) == before


def test_the_six_scores(root, capsys, monkeypatch):
    """Each value is the scorer's own; columns as released; the settings name the files; no connection is tried."""
    monkeypatch.setattr(socket.socket, "connect", None)
    run(root, "--batch-size", "3")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    out = capsys.readouterr().out
    assert "9 images of 3 sessions of 2 participants, 1 of them black." in out
    assert "model.safetensors is not the published file" in out
    found = pd.read_csv(root / "preparation/preprocessed_image_data/009.csv")
    assert found.columns[-6:].tolist() == SIX
    assert found[["session_index", "image_index"]].values.tolist() == [[2, 1], [2, 2], [2, 4]]
    for name, column in zip(PAPER_SCORERS, SIX, strict=True):
        pictures = [drawn(64, 64, 200 + image) for image in (1, 2, 4)]
        expected = load_small(name, root).score(["a red cat on the moon 2"] * 3, pictures)
        np.testing.assert_allclose(found[column], expected, atol=1e-5)
    first = tables(root)["001"].splitlines()[1]
    assert first.startswith("1,1,1,7,0,,,,,,,,,False,True,")  # 001 is one of those with spoilt answers
    assert json.loads((root / "preparation/invalid_images.json").read_text())["009"] == {"2": [BLACK[2]]}
    kept = (root / SCORES / "CLIP/scores.csv").read_text()
    assert "009,2,3," not in kept and "009,2,4," in kept

    settings = json.loads((root / "preparation/preprocessed_image_data/settings.json").read_text())
    assert settings[f"CLIP_score: {CLIP_L.path}"] == sha256(CLIP_L.under(root))
    assert settings["CLIP_score: transformers"] and settings["HPS_V2_score: method"].startswith("cosine; picture: ")
    assert json.loads(settings["BLIP_score: layout"]) == LAYOUTS["BLIP"]
    assert all(isinstance(value, str) for value in settings.values())
    assert "Scores: CLIP_score made here with model.safetensors (" in out


def test_an_interrupted_run_is_resumed(root, tmp_path, capsys, monkeypatch):
    """Interrupted in the third batch of the second scorer; the end is that of a run in one piece."""
    whole = shutil.copytree(root, tmp_path / "whole")
    options = ("--scorers", "CLIP", "HPSv2", "--batch-size", "2")
    run(whole, *options)
    calls = []

    def interrupted(self, prompts, pixels, really=HpsV2.compute):
        if "a picture" not in prompts:  # with which every scorer is asked once it is loaded
            calls.append(len(prompts))
            if len(calls) == 3:
                raise KeyboardInterrupt
        return really(self, prompts, pixels)

    monkeypatch.setattr(HpsV2, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(root, *options)
    assert not tables(root)
    capsys.readouterr()
    run(root, *options)
    out = capsys.readouterr().out
    assert "CLIP: 8 images scored already, 0 to do" in out and "HPSv2: 4 images scored already, 4 to do" in out
    assert calls == [2, 2, 2, 2, 2]
    assert tables(root) == tables(whole)
    before = snapshot(root)
    monkeypatch.setattr(STAGE, "score_images", None)  # nothing is left to do
    run(root, *options)
    assert snapshot(root) == before


def test_some_scorers_now_and_others_later(root):
    """Columns in the order of the released ones, whichever came first; 2.1 behind them.

    Those whose answers on issues stay empty can be named, also nobody, instead of the seven.
    """
    run(root, "--scorers", "HPSv2.1", "PickScore", "--unreliable-issues", "009")
    assert tables(root)["001"].splitlines()[1].startswith("1,1,1,7,0,False,True,")
    header, first = tables(root)["009"].splitlines()[:2]
    assert first.startswith("2,1,1,7,0,,,,,,,,,") and header.endswith("rank_score,PickScore,HPS_V2_1_score")
    run(root, "--scorers", "CLIP", "--unreliable-issues")
    header, first = tables(root)["009"].splitlines()[:2]
    assert first.startswith("2,1,1,7,0,False,True,")
    assert header.endswith("rank_score,CLIP_score,PickScore,HPS_V2_1_score")


def test_own_study_has_no_spoilt_answers(root):
    """Participant 001 with a consent of one's own study is not the paper's 001."""
    run(root, "--scorers", "CLIP")
    assert tables(root)["001"].splitlines()[1].startswith("1,1,1,7,0,,,,,,,,,")
    (root / "data/001/consent.json").write_text('{"sharing": true, "withdrawn": false}')
    run(root, "--scorers", "CLIP")
    assert tables(root)["001"].splitlines()[1].startswith("1,1,1,7,0,False,True,")


def test_a_new_picture_or_prompt_is_scored_again(root, capsys):
    """What was finished for another picture is not taken for this one."""
    run(root, "--scorers", "CLIP")
    before = tables(root)
    drawn(64, 64, 999).save(root / "data/001/session_1/image2.png")
    path = root / "data/009/session_2/data.json"
    path.write_text(path.read_text().replace("red cat", "dog"))
    capsys.readouterr()
    run(root, "--scorers", "CLIP")
    assert "CLIP: 4 images scored already, 4 to do" in capsys.readouterr().out
    changed = [a != b for a, b in zip(before["001"].splitlines(), tables(root)["001"].splitlines(), strict=True)]
    assert changed == [False, False, True, False, False, False]
    Image.new("RGB", (64, 64)).save(root / "data/009/session_2/image4.png")
    refuses(root, "--scorers", "CLIP", message="session 2, image 4 is black")


def test_everything_is_checked_before_a_network_is_loaded(root, monkeypatch):
    """A picture, an answer, a black image, a weight file."""
    monkeypatch.setattr(Scorer, "__init__", None)
    CLIP_L.under(root).unlink()
    refuses(root, message=r"1 of \d weight files is missing .* python -m fergi\.weights fetch clip$")
    (root / "preparation/invalid_images.json").write_text('{"001": {"1": [2]}, "009": {"2": [3]}}')
    refuses(root, message="participant 001, session 1, image 2 is not black")
    (root / "data/009/session_2/image4.png").write_bytes(b"")
    refuses(root, message=r"1 of 3 sessions .*image4\.png is not a picture")
    refuses(root, "--unreliable-issues", "003", message=r"not in valid_sessions\.json \(first: 003\)")
    (root / "preparation/valid_sessions.json").unlink()
    refuses(root, message=r"valid_sessions\.json")


def test_a_broken_checkpoint_is_put_right(root, capsys):
    """No table is written; the scorers before it keep what they finished; settings without scores restrict nothing."""
    path = root / "pretrained_models/HPS_v2_compressed.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(FergiError, match=r"HPS_v2_compressed\.pt .*(cut off|not a file of plain PyTorch weights)"):
        run(root, "--scorers", "CLIP", "HPSv2")
    assert not tables(root)
    path.write_bytes(whole)
    capsys.readouterr()
    run(root, "--scorers", "CLIP", "HPSv2")
    out = capsys.readouterr().out
    assert "CLIP: 8 images scored already, 0 to do" in out and "HPSv2: 0 images scored already, 8 to do" in out


def test_other_tables_are_replaced_only_on_request(root):
    """Only with --replace."""
    folder = root / "preparation/preprocessed_image_data"
    folder.mkdir()
    (folder / "001.csv").write_text("published\n")
    refuses(root, "--scorers", "CLIP", message=r"1 of 2 tables .* were not made by this script.* --replace")
    run(root, "--scorers", "CLIP", "--replace")
    run(root, "--scorers", "CLIP")


# ---- layouts of networks


def changed(name, **sizes):
    """A scorer's small layout with some other sizes; None takes one away."""
    made = {**LAYOUTS[name], **sizes}
    return {name: {key: value for key, value in made.items() if value is not None}}


TEXT, VISION = LAYOUTS["CLIP"]["text_config"], LAYOUTS["CLIP"]["vision_config"]
FOUR_HEADS = changed("CLIP", vision_config=VISION | {"num_attention_heads": 4})  # which the weights fit as well as two


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (CLIP_L.path, PICK_SCORE, r"CLIP/settings\.json says that pretrained_models/clip.* was .*--redo"),
        ("layouts.json", json.dumps(LAYOUTS | FOUR_HEADS), r"CLIP/settings\.json says that layout was .*--redo"),
        (f"{SCORES}/CLIP/scores.csv", "participant\n", r"CLIP/scores\.csv is not a table of finished scores.*--redo"),
    ],
    ids=["checkpoint", "layout", "damaged"],
)
def test_what_needs_redo(root, path, content, message):
    """Scores of two networks in one column would be of neither; a damaged table of finished scores is named."""
    run(root, "--scorers", "CLIP")
    before = tables(root)
    content = content.encode() if isinstance(content, str) else content.under(root).read_bytes()
    (root / path).write_bytes(content)
    refuses(root, "--scorers", "CLIP", message=message)
    run(root, "--scorers", "CLIP", "--redo")
    assert (tables(root) == before) == (message.startswith("CLIP/scores"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Mine": {}}, r"1 of 10 scorers in .*layouts\.json are not known \(first: Mine\); there are CLIP, "),
        (changed("CLIP", depth=3), "an unusable layout of CLIP: depth is not known"),
        (changed("CLIP", text_config=TEXT | {"depth": 3}), r"layout of CLIP: text_config\.depth is not known"),
        (changed("BLIP", side=None, patch=None), "an unusable layout of BLIP: side is missing"),
        ({"HPSv2": [1]}, r"layout of HPSv2: it must be an object, not \[1\]"),
        (changed("ImageReward", text=3), "layout of ImageReward: text must be an object, not 3"),
        ("{", "is not JSON"),
        ("[]", "holds no object"),
        (None, "is missing"),
    ],
)
def test_files_of_layouts_that_cannot_be_used(root, content, message):
    """Named before anything is done, and nothing is written."""
    if content is None:
        (root / "layouts.json").unlink()
    else:
        text = content if isinstance(content, str) else json.dumps(LAYOUTS | content)
        (root / "layouts.json").write_text(text)
    refuses(root, message=message)


@pytest.mark.parametrize(
    "changes",
    [
        changed("CLIP", projection_dim="wide"),
        changed("CLIP", projection_dim=48),
        changed("CLIP", text_config=TEXT | {"hidden_act": "sine"}),
        changed("CLIP", text_config=TEXT | {"num_attention_heads": 5}),
        changed("BLIP", patch=0),
        changed("BLIP", vision_heads=5),
        changed("HPSv2", embed_dim=0),
        changed("HPSv2", text_cfg=LAYOUTS["HPSv2"]["text_cfg"] | {"heads": 0}),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_layouts_that_cannot_be(root, changes):
    """Or that the weights do not have: the library's own words in one sentence."""
    (root / "layouts.json").write_text(json.dumps(LAYOUTS | changes))
    (name,) = changes
    with pytest.raises(FergiError, match=f"{name} cannot be made with the layout|does not fit") as caught:
        run(root, "--scorers", name)
    assert "\n" not in str(caught.value) and not tables(root)


# ---- where scores come from


def test_published_columns_of_untrained_networks(published):
    """Aesthetic and BLIP, as found in the release's code; the other four are those of trained networks."""
    files = sorted((published / "preparation/preprocessed_image_data").glob("*.csv"))
    scores = pd.concat([pd.read_csv(path) for path in files])[SIX]
    sentences = untrained_columns(scores)
    assert [sentence.split()[0] for sentence in sentences] == ["Aesthetic_score", "BLIP_score"]


def test_what_counts_as_trained():
    """In the expected range and not all the same; of few images only the median counts."""
    for scorer in (each for each in SCORERS.values() if each.expected):
        column, (lowest, highest, least) = scorer.column, scorer.expected
        middle = np.linspace(-2 * least, 2 * least, 20) + (lowest + highest) / 2
        assert untrained_columns(pd.DataFrame({column: middle})) == []
        assert len(untrained_columns(pd.DataFrame({column: middle / 100 + highest}))) == 1
        assert len(untrained_columns(pd.DataFrame({column: [lowest + highest] * 20}) / 2)) == 1
        assert untrained_columns(pd.DataFrame({column: [(lowest + highest) / 2] * 3})) == []
    assert untrained_columns(pd.DataFrame({"mine": [0.0], "CLIP_score": [np.nan]})) == []


def test_settings_count_only_for_their_tables(root):
    """Tables that were fetched or changed afterwards are of an unknown origin."""
    run(root, "--scorers", "CLIP")
    folders = Folders(root)
    assert read_table_settings(folders, ["001", "009"]) == read_table_settings(folders, ["009"]) is not None
    assert read_table_settings(folders, ["001", "002"]) is None
    path = folders.image_tables / "009.csv"
    path.write_text(path.read_text().replace("True", "False", 1))
    assert read_table_settings(folders, ["001", "009"]) is None
    folders.score_settings.write_text("[]")
    assert read_table_settings(folders, ["001"]) is None
    assert score_origins(folders, ["009"], pd.DataFrame({"CLIP_score": [0.3]})) == [UNKNOWN_ORIGIN]


def test_stage_9_says_where_scores_come_from(tiny, capsys):
    """And warns of columns that look untrained; the small data set's are all around 0."""
    SEARCH.main(["--root", str(tiny.root)])
    out = capsys.readouterr().out
    assert UNKNOWN_ORIGIN in out
    assert "Warning: Aesthetic_score does not look like a trained network's: median" in out
    assert "Warning: ImageReward_score" not in out


def test_agreement_of_scorers():
    """Ranks by hand: the same order, the reverse, and one exchange of neighbours among four (1 - 6·2/60 = 0.8)."""
    images = pd.DataFrame(
        {
            "CLIP_score": [0.1, 0.2, 0.3, 0.9, 0.5],
            "PickScore": [20, 22, 21, 30, 25],
            "overall_rating": [4, 3, 2, 1, 0],
        }
    )
    found = scorer_agreement(images, ["CLIP_score", "PickScore"])
    assert list(found.columns) == ["CLIP_score", "PickScore", "overall_rating"]
    np.testing.assert_allclose(found.loc["CLIP_score"], [1, 0.9, -1])  # five images: 1 - 6·2/120
    np.testing.assert_allclose(found.loc["PickScore"], [0.9, 1, -0.8])  # four of them have a rating
