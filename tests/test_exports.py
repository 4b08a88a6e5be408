"""Exports: each read back by the reader that it is for, or field by field; consent; all or nothing."""

import csv
import io
import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import snapshot
from PIL import Image
from test_annotation import BY_HAND, reactions, refuses, run, write_people

from fergi.dataset import Folders
from fergi.files import FergiError, new_folder
from fergi.preference.exports import EXPORTS, liked_and_disliked
from fergi.preference.model import PreferenceModel
from fergi.script import CHECKOUT

PROMPTS = {1: 'a "red" cat, at noon', 2: "ein Haus für Zwölf"}
# Session 1: valences 1/4, 0, −3/8; session 2: 7/16 (AU12 of 3), −1/4, 0; the last image of session 2 has no file.
SEEN = [(1, 1, 0, 1), (1, 2, 0, 0), (1, 3, 2, 0), (2, 1, 0, 3), (2, 2, 1, 0), (2, 3, 0, 0)]
# With at least 3/4 all pairs get a verdict: preferred, other, difference of valence.
VERDICTS = [(1, 1, 2, 1 / 4), (1, 1, 3, 5 / 8), (1, 2, 3, 3 / 8), (2, 1, 2, 11 / 16)]
OPTIONS = ("--valence", "aucomb", "--minimum-probability", "0.75")


@pytest.fixture
def root(tmp_path):
    """Three people who saw the same; 102 does not share, and 103 withdrew."""
    root = tmp_path / "root"
    folders = write_people(root, pd.concat(reactions(SEEN).assign(participant=name) for name in ("101", "102", "103")))
    BY_HAND.save(folders.au_models / "preference_aucomb.json")
    for number, name in enumerate(("101", "102", "103")):
        for session, prompt in PROMPTS.items():
            folder = folders.session(name, session)
            folder.mkdir(parents=True)
            secret = "" if name == "101" else f" seen by {name}"
            (folder / "data.json").write_text(json.dumps({"prompt": prompt + secret}, ensure_ascii=False))
            for image in (1, 2, 3)[: 4 - session]:
                level = 60 * image + 10 * session + 3 * number
                Image.fromarray(np.full((8, 12, 3), (level, 100, 200), np.uint8)).save(folder / f"image{image}.png")
    for name, sharing, withdrawn in (("102", False, False), ("103", True, True)):
        consent = {"sharing": sharing, "withdrawn": withdrawn}
        (folders.data / name / "consent.json").write_text(json.dumps(consent))
    return root


def export(root, *names, options=()):
    """The folder of an export."""
    out = root.parent / "out"
    run(root, *OPTIONS, "--export", *names, "--out", out, *options)
    return out


def probability(preferred, other, difference):
    """Of the first image of a pair."""
    certain = 1 / (1 + np.exp(-BY_HAND.slope * difference))
    return certain if preferred < other else 1 - certain


def level(picture):
    """The red level by which a picture is known."""
    return np.asarray(picture.convert("RGB"))[..., 0].mean()


def test_pick_a_pic_is_read_by_datasets_and_holds_what_trainers_look_up(root):
    from datasets import load_dataset

    out = export(root, "pick-a-pic")
    rows = load_dataset(
        "parquet", data_files=str(out / "pick-a-pic/data/train.parquet"), split="train", cache_dir=str(root)
    )
    assert rows.num_rows == len(VERDICTS)
    for row, (session, preferred, other, difference) in zip(rows, VERDICTS, strict=True):
        assert row["caption"] == PROMPTS[session]
        expected = probability(preferred, other, difference)
        assert (row["label_0"], row["label_1"]) == pytest.approx((expected, 1 - expected))
        for side, image in (("jpg_0", min(preferred, other)), ("jpg_1", max(preferred, other))):
            picture = Image.open(io.BytesIO(row[side]))
            assert picture.format == "JPEG" and picture.size == (12, 8)
            assert level(picture) == pytest.approx(60 * image + 10 * session, abs=3)
        assert row["best_image_uid"] == f"1/session_{session}/image{preferred}.png" == row["image_0_uid"]
        assert row["has_label"] and row["are_different"] and row["user_id"] == 1
        assert row["num_example_per_prompt"] == {1: 3, 2: 1}[session]
    schema = pq.read_schema(out / "pick-a-pic/data/train.parquet")
    kinds = {"caption": "string", "jpg_0": "binary", "label_0": "double", "has_label": "bool", "user_id": "int64"}
    assert {name: str(schema.field(name).type) for name in kinds} == kinds


def test_hard_labels_are_winners_and_losers(root):
    rows = pq.read_table(export(root, "pick-a-pic", options=["--hard-labels"]) / "pick-a-pic/data/train.parquet")
    assert [rows["label_0"].to_pylist(), rows["label_1"].to_pylist()] == [[1.0] * 4, [0.0] * 4]


def test_formats_that_hold_paths(root):
    """Paths of the pictures where they are; HPD v3 has the preferred one first, and every label says the same."""
    home = Folders(root).data / "101"
    out = export(root, "hpd-v2", "hpd-v3", "image-reward", "social-reward")
    two, three, reward = (
        json.loads((out / name / "train.json").read_text()) for name in ("hpd-v2", "hpd-v3", "image-reward")
    )
    social = pq.read_table(out / "social-reward/train.parquet").to_pylist()
    for number, (session, preferred, other, difference) in enumerate(VERDICTS):
        paths = [str(home / f"session_{session}/image{image}.png") for image in (preferred, other)]
        certain = probability(1, 2, difference)
        assert two[number] == {"prompt": PROMPTS[session], "file_path": paths, "human_preference": [1, 0]}
        assert three[number] == {
            **{"prompt": PROMPTS[session], "path1": paths[0], "path2": paths[1], "choice_dist": [1, 0]},
            **{"confidence": pytest.approx(certain), "model1": "", "model2": ""},
        }
        assert reward[number] == {
            **{"id": f"1-session_{session}-image{preferred}-image{other}", "prompt": PROMPTS[session]},
            **{"generations": paths, "ranking": [1, 2]},
        }
        assert social[number] == {"prompt": PROMPTS[session], "pos_path": paths[0], "neg_path": paths[1]}
    assert len(two) == len(three) == len(reward) == len(social) == len(VERDICTS)


def test_the_second_image_can_be_the_preferred_one(root):
    """The reactions of session 1 turned round."""
    turned = [(1, 1, 2, 0), (1, 2, 0, 0), (1, 3, 0, 1)]
    write_people(root, reactions(turned).assign(participant="101"))
    out = export(root, *EXPORTS)
    first = [json.loads((out / name / "train.json").read_text())[0] for name in ("hpd-v2", "hpd-v3", "image-reward")]
    assert first[0]["human_preference"] == [0, 1] and first[2]["ranking"] == [2, 1]
    assert first[1]["path1"].endswith("image2.png") and first[1]["confidence"] > 0.75
    assert pq.read_table(out / "social-reward/train.parquet")["pos_path"][0].as_py().endswith("image2.png")
    row = pq.read_table(out / "pick-a-pic/data/train.parquet").to_pylist()[0]
    assert row["label_0"] < 0.25 and row["best_image_uid"] == row["image_1_uid"]
    assert pq.read_table(out / "datasets/data/train.parquet")["preferred"].to_pylist() == [1, 1, 1]


def test_single_pictures_liked_or_disliked(root):
    """A part of the valence of at least d = 1/4 decides; an AU of 1 has exactly that."""
    found = liked_and_disliked(reactions([(1, 1, 1, 0), (1, 2, 0, 1), (1, 3, 1, 1), (1, 4, 0.99, 0.99)]), BY_HAND.model)
    assert [each.tolist() for each in found] == [[False, True, True, False], [True, False, True, False]]
    write_people(root, reactions([*SEEN[:2], (1, 3, 2, 4), *SEEN[3:]]).assign(participant="101"))
    out = export(root, "diffusion-kto", options=["--copy-pictures"])
    with (out / "diffusion-kto/train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        ("images/1/session_1/image1.png", PROMPTS[1], "exclusive_win"),
        ("images/1/session_1/image3.png", PROMPTS[1], "intersections"),
        ("images/1/session_2/image1.png", PROMPTS[2], "exclusive_win"),
        ("images/1/session_2/image2.png", PROMPTS[2], "exclusive_lose"),
    ]
    assert list(rows[0]) == ["file_name", "caption", "split"]
    assert all((out / "diffusion-kto" / row["file_name"]).is_file() for row in rows)


def test_a_datasets_folder_with_its_card(root):
    """``load_dataset`` takes the folder as it is, pictures decoded; the card says what it must."""
    from datasets import load_dataset

    out = export(root, "datasets")
    rows = load_dataset(str(out / "datasets"), split="train", cache_dir=str(root / "cache"))
    assert rows.num_rows == len(VERDICTS)
    for row, (session, preferred, other, difference) in zip(rows, VERDICTS, strict=True):
        assert (row["prompt"], row["session"], row["participant"], row["preferred"]) == (
            PROMPTS[session],
            session,
            1,
            0,
        )
        assert row["valence_0"] - row["valence_1"] == pytest.approx(difference)
        assert row["probability_0"] == pytest.approx(probability(preferred, other, difference))
        pictures = [row[side] for side in ("image_0", "image_1")]
        assert [level(each) for each in pictures] == [60 * image + 10 * session for image in (preferred, other)]
    card = (out / "datasets" / "README.md").read_text()
    for heading in ("How it was annotated", "How sure it is", "Known limits", "Consent"):
        assert f"\n## {heading}\n" in card
    assert "Pairs: 4. Participants: 1." in card and "of whom nothing is in it: 2." in card
    assert "of 6 verdicts. Probabilities were calibrated on 2 people" in card  # not those of others
    assert "the model `aucomb`" in card and "at least 0.750" in card


def test_nothing_of_people_who_do_not_share_is_exported(root, capsys):
    """Not a prompt, not a picture, not a name; how many there are is said."""
    out = export(root, *EXPORTS, options=["--copy-pictures"])
    said = capsys.readouterr().out
    assert "Nothing of 2 participants was exported, who do not share or withdrew (12 pairs)." in said
    assert "2 pairs were not exported, for lack of a prompt or a picture in data/." in said
    assert "4 rows as hpd-v3, for HPS v3's trainer." in said
    files = snapshot(out)
    assert {name.split("/")[0] for name in files} == {*EXPORTS, "settings.json"}
    hidden = {(Folders(root).session(who, 1) / "image1.png").read_bytes() for who in ("102", "103")}
    for name, content in files.items():
        assert not any(each in content for each in (b"seen by", b"102", b"103")), name
        assert not any(each in content for each in hidden), name
    assert json.loads(files["settings.json"])["rows_diffusion-kto"] == 4
    kept = [name for name in files if "/images/" in name and name.startswith("hpd-v2/")]
    assert kept == [
        f"hpd-v2/images/1/session_{place}.png" for place in ("1/image1", "1/image2", "1/image3", "2/image1", "2/image2")
    ]
    (Folders(root).data / "101" / "consent.json").write_text('{"sharing": false, "withdrawn": false}')
    assert "18 are of people who do not share" in refuses(root, *OPTIONS, "--export", "hpd-v3", "--out", root / "new")
    (Folders(root).data / "101" / "consent.json").write_text('{"sharing": "yes"}')
    assert "must say whether sharing is allowed" in refuses(root, *OPTIONS, "--export", "hpd-v3", "--out", root / "new")


def test_a_damaged_picture_stops_the_export_and_leaves_nothing(root):
    (Folders(root).session("101", 2) / "image2.png").write_bytes(b"\x89PNG cut off")
    assert "Put the whole picture there" in refuses(
        root, *OPTIONS, "--export", "hpd-v3", "pick-a-pic", "--out", root / "new"
    )


def test_diffusion_kto_of_another_model_needs_that_of_aucomb(root):
    folders = Folders(root)
    (folders.au_models / "preference_aucomb.json").rename(root / "other.json")
    assert PreferenceModel.load(root / "other.json").threshold == 0.25
    out = ("--out", root.parent / "out")
    run(root, "--model", root / "other.json", "--minimum-probability", "0.75", "--export", "diffusion-kto", *out)
    linear = {"weights": {"AU4": -1.0, "AU12": 1.0}}
    content = json.loads((root / "other.json").read_text()) | {"valence_model": "linear", "parameters": linear}
    (folders.au_models / "preference_linear.json").write_text(json.dumps(content))
    message = refuses(root, "--export", "diffusion-kto", "--out", root / "new")
    assert "preference_aucomb.json" in message and "fit_preference_model.py --valence aucomb" in message


@pytest.mark.parametrize(("name", "package"), [("pick-a-pic", "pyarrow"), ("datasets", "datasets")])
def test_a_missing_package_is_named(root, name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    message = refuses(root, *OPTIONS, "--export", name, "--out", root / "new")
    assert message == f"{name} needs the package {package}, which is not installed: make setup."


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path):
    """An error or a killed process leaves nothing under that name, and the next run removes what was left."""
    place = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), new_folder(place) as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert not list(place.parent.iterdir())
    code = f"""
import time
from pathlib import Path
from fergi.files import new_folder
with new_folder(Path({str(place)!r})) as folder:
    (folder / "file").write_text("half")
    print(flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert len(list(place.parent.iterdir())) == 1
    place.mkdir()
    with new_folder(place) as folder:
        (folder / "file").write_text("whole")
    assert snapshot(place.parent) == {"out/file": b"whole"}
    with pytest.raises(FergiError, match="is no empty folder"), new_folder(place):
        pass
