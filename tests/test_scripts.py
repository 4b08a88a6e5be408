"""Stages 6 to 9 as scripts: what they write and say, and how they refuse what they cannot use."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CHECKOUT, STAGES, clip_text

from fergi import section_6_1
from fergi.files import FergiError

BASELINE, REACTION, FILTER, SEARCH = STAGES
CLIP_STAGES = (BASELINE, REACTION)
CLIP_3 = "data/102/session_1/reaction_clip_3_features.csv"
REACTIONS = "preparation/preprocessed_reaction_data"
IMAGES = "preparation/preprocessed_image_data"
RESULTS = "results/image_preference_binary_classification_based_on_ranking"


# ---- what they write and say


def test_the_chain(tiny_inputs, capsys):
    """Every stage writes exactly its files; what is said has the counts."""
    inputs = set(tiny_inputs.snapshot())
    people = tiny_inputs.IMAGES

    tiny_inputs.run(BASELINE)
    written = set(tiny_inputs.snapshot()) - inputs
    names = ("settings.json", *(f"{who}.csv" for who in people))
    assert written == {f"preparation/preprocessed_baseline_data/{name}" for name in names}
    assert "20 baseline clips of 4 participants, 600 frames." in capsys.readouterr().out
    table = pd.read_csv(tiny_inputs.path("preparation/preprocessed_baseline_data/101.csv"))
    assert table.iloc[:, :2].values.tolist() == [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [2, 3]]
    np.testing.assert_allclose(table["AU4_activation_value"], 0.1, atol=1e-12)

    tiny_inputs.run(REACTION)
    out = capsys.readouterr().out
    assert "20 clips are valid, 1 of them reactions to black images" in out
    assert "19 clips x 12 AUs = 228 activation values." in out
    table = pd.read_csv(tiny_inputs.path(f"{REACTIONS}/101.csv"))  # without the black image 2 of session 1
    assert table.iloc[:, :2].values.tolist() == [[1, 1], [1, 3], [1, 4], [2, 1], [2, 2], [2, 3]]

    tiny_inputs.run(FILTER)
    assert json.loads(tiny_inputs.path("preparation/AU4_excluded_participants.json").read_text()) == ["104"]
    out = capsys.readouterr().out
    assert "104  3.000  excluded" in out
    assert "1 of 4 participants excluded: 104." in out

    tiny_inputs.run(SEARCH)
    out = capsys.readouterr().out
    assert "3 participants (1 excluded), 17 images with a valid reaction." in out
    assert re.search(r"AUcomb, all +\d+ +20 ", out)  # pairs: 3 + 3 of 101, 3 + 1 of 102, 10 of 103
    tiny_inputs.run(SEARCH, "--mode", "released")
    tiny_inputs.run(SEARCH, "--strict-lopo")
    tiny_inputs.run(SEARCH, "--mode", "released", "--strict-lopo")
    written = {name for name in tiny_inputs.snapshot() if name.startswith("results/")}
    assert written == {f"{RESULTS}{suffix}.csv" for suffix in ("", "_released", "_strict", "_released_strict")}
    found = pd.read_csv(tiny_inputs.path(f"{RESULTS}.csv"), dtype={"user_id": str})
    assert found["user_id"].tolist() == ["101", "102", "103"]
    assert (found["PickScore_n_correct"] + found["PickScore_n_incorrect"]).tolist() == [6, 4, 10]


def test_a_second_run_writes_the_same_bytes(tiny, capsys):
    """Nothing depends on chance or on what lies there already. Sessions that are not in the list are only reported."""
    before = tiny.snapshot()
    for session in ("102/session_9", "205/session_1"):
        for kind in ("baseline", "reaction"):
            path = tiny.path(f"data/{session}/{kind}_clip_1_features.csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(clip_text(np.zeros(30)))
    unlisted = "2 session folders are not in valid_sessions.json and were not used (first: {}/data/102/session_9)."
    for stage in STAGES:
        tiny.run(stage)
        assert (unlisted.format(tiny.root) in capsys.readouterr().out) == (stage in CLIP_STAGES)
    after = tiny.snapshot()
    assert {name: after[name] for name in before} == before


def test_limit_of_the_movement_at_rest(tiny, capsys):
    """The 80th percentile of six values is the fifth: 0.5 is out, 0.499 is not."""
    clips = pd.read_csv(tiny.path("preparation/preprocessed_baseline_data/103.csv"))
    for participant, fifth in (("101", 0.5), ("102", 0.499), ("103", 0.51), ("104", 0.0)):
        table = clips.assign(AU4_activation_value=[0.0, 9.0, 0.0, fifth, 0.0, 0.0])
        table.to_csv(tiny.path(f"preparation/preprocessed_baseline_data/{participant}.csv"), index=False)
    tiny.run(FILTER)
    assert json.loads(tiny.path("preparation/AU4_excluded_participants.json").read_text()) == ["101", "103"]
    assert "2 of 4 participants excluded: 101, 103." in capsys.readouterr().out


# ---- what they refuse, in one sentence, with all files as they were

TABLES = {FILTER: "preparation/preprocessed_baseline_data/102.csv", SEARCH: f"{REACTIONS}/102.csv"}
EXCLUDED, LISTED = "preparation/AU4_excluded_participants.json", "preparation/valid_sessions.json"
BLACK = "preparation/invalid_images.json"
FACELESS = clip_text(np.full(30, -1.0), face_detection_confidence_score=0.0)  # a clip that is not valid


def without(name):
    """A change of the data set: a file or folder is not there."""
    return lambda tiny: tiny.path(name).rename(tiny.root.parent / "elsewhere")


def with_json(name, change):
    """Another content of a list."""
    return lambda tiny: tiny.edit_json(name, change)


def with_images(participant, change):
    """Another table of images."""
    return lambda tiny: tiny.edit_table(f"{IMAGES}/{participant}.csv", change)


def with_equal_scores(tiny):
    """Three times 20.1 does not have the mean 20.1."""
    for participant in ("101", "102", "103"):
        with_images(participant, lambda table: table.assign(PickScore=20.1))(tiny)


def numbered_from_0(tiny):
    """Else each clip would be taken for the image before it."""
    for kind in ("baseline", "reaction"):
        for image in (1, 2, 3):
            old, new = (tiny.path(f"data/102/session_1/{kind}_clip_{each}_features.csv") for each in (image, image - 1))
            old.rename(new)


def with_broken_windows(tiny):
    """At 60 FPS a window is 6 frames: with every sixth lost, 25 of 30 are valid and none of the windows is."""
    confidence = np.where(np.arange(30) % 6 == 5, 0.0, 0.95)
    tiny.path(CLIP_3).write_text(clip_text(np.zeros(30), 60.0, face_detection_confidence_score=confidence))


# What is wrong: stages, the change that makes it so, what the sentence says.
REFUSALS = {
    # Folders and clips: the first that is missing, of how many.
    "no session": (CLIP_STAGES, without("data/103/session_2"),
        ["1 of 7 sessions", "{root}/data/103/session_2 does not exist", "fergi.published"]),
    "no data": (CLIP_STAGES, without("data"), ["7 of 7 sessions", "{root}/data/101/session_1 does not exist"]),
    "no list of sessions": (STAGES, without(LISTED), ["{root}/" + LISTED, "python -m fergi.published"]),
    "numbered from 0": (CLIP_STAGES, numbered_from_0, ["1 of 7 sessions", "102/session_1 has clips numbered 0"]),
    "broken windows": ([REACTION], with_broken_windows,
        [f"{CLIP_3}: enough valid frames but never as many in a row as a window has"]),
    "black only": ([REACTION], with_json(BLACK, lambda black: black.update({"104": {"1": [1, 2]}})),
        ["1 of 4 participants has no valid reaction clip", "(first: 104"]),
    "not in the black list": ([REACTION, SEARCH], with_json(BLACK, lambda black: black.pop("103")),  # not "none black"
        ["participants is missing from", "invalid_images.json", "(first: 103)"]),
    # Lists and tables that do not fit together.
    "session not in the list": ([SEARCH], with_json(LISTED, lambda sessions: sessions["102"].remove(3)),
        [f"{IMAGES}/102.csv has session 3, valid_sessions.json does not"]),
    "reaction without image": ([SEARCH], with_images("102", lambda table: table.drop(index=1)),
        [f"{REACTIONS}/102.csv has session 1, image 2, {{root}}/{IMAGES}/102.csv does not"]),
    "somebody else excluded": ([SEARCH], lambda tiny: tiny.path(EXCLUDED).write_text('["104", "204"]'),
        ["AU4_excluded_participants.json", "(first: 204)", f"Run {FILTER}.py again."]),
    "no image table": ([SEARCH], without(f"{IMAGES}/103.csv"),
        ["1 of 3 participants has no table in", "preprocessed_image_data (first: 103.csv)"]),
    # What cannot be searched. 103 can be found, the third of three cannot.
    "tied ranks": ([SEARCH], with_images("103", lambda table: table.assign(rank_score=[5, 5, 3, 2, 1, 5])),
        ["{root}/preparation", "participant 103, session 2 share a rank"]),
    "equal scores": ([SEARCH], with_equal_scores, ["{root}/preparation", "PickScore is the same for all training"]),
    "nobody": ([SEARCH], lambda tiny: tiny.path(EXCLUDED).write_text('["101", "102", "103", "104"]'),
        ["excludes all 4 participants"]),
}  # fmt: skip


@pytest.mark.parametrize(("stages", "change", "fragments"), REFUSALS.values(), ids=REFUSALS)
def test_refused(tiny, stages, change, fragments):
    """The file or folder, what is wrong with it and what to do."""
    change(tiny)
    for stage in stages:
        tiny.refuses(stage, *(fragment.replace("{root}", str(tiny.root)) for fragment in fragments))


@pytest.mark.parametrize("stage", STAGES)
def test_mistyped_root(tmp_path, stage):
    """A root that is not there is not made."""
    with pytest.raises(FergiError, match="mistyped"):
        importlib.import_module(stage).main(["--root", str(tmp_path / "mistyped")])
    assert os.listdir(tmp_path) == []


# The third column of line 3 is AU4.
AU4_IS_TEXT = (
    lambda text: re.sub(r"^(1,2,[^,]+,[^,]+,)[^,]+", r"\1strong", text, flags=re.M),
    ", line 3, column AU4_activation_value: 'strong' is not a number",
)
TWICE = (lambda text: text.replace("\n1,2,", "\n1,1,"), ", line 3: session_index 1, image_index 1 appears twice")


@pytest.mark.parametrize(
    ("stage", "name", "what", "advice", "change", "cause"),
    [
        *((FILTER, TABLES[FILTER], "4 tables", f"Run {BASELINE}.py", *each) for each in (AU4_IS_TEXT, TWICE)),
        *((SEARCH, TABLES[SEARCH], "3 tables", f"Run {REACTION}.py", *each) for each in (AU4_IS_TEXT, TWICE)),
        *(
            (SEARCH, f"{IMAGES}/102.csv", "3 tables", "fergi.published --replace", *each)
            for each in (
                TWICE,
                (lambda text: text.replace("PickScore", "Score"), " has no column PickScore"),
                (lambda text: text.rsplit(",", 1)[0] + "\n", ", line 6, column HPS_V2_score: nothing is not a number"),
            )
        ),
    ],
)
def test_unusable_file(tiny, stage, name, what, advice, change, cause):
    """Named, with the place, the cause and what to do; test_files.py has all causes."""
    path = tiny.path(name)
    path.write_text(change(path.read_text()))
    tiny.refuses(stage, f"1 of {what} is unusable (first: {path}{cause}", advice)


def test_all_feature_files_are_looked_at(tiny):
    """How many are unusable is counted over all participants; test_features.py has all causes."""
    for name in (CLIP_3, *(f"data/103/session_{each}/reaction_clip_1_features.csv" for each in (2, 4))):
        tiny.path(name).write_text("")
    advice = ". Make them again with clips_facial_process.py, or: python -m fergi.published --replace"
    first = f"(first: {tiny.path(CLIP_3)} is empty)"
    tiny.refuses(REACTION, f"3 of 20 reaction feature files are unusable {first}{advice}")


def test_feature_file_of_another_participant(tiny):
    """No two recordings agree to the last digit; clips without a face do, and are not valid anyway."""
    other = "data/103/session_2/reaction_clip_1_features.csv"
    tiny.path(other).write_bytes(tiny.path(CLIP_3).read_bytes())
    same = f"(first: {tiny.path(other)} has the frames of {tiny.path(CLIP_3)}, another clip)"
    tiny.refuses(REACTION, "1 of 20 reaction feature files is unusable", same)
    for name in (other, CLIP_3):
        tiny.path(name).write_text(FACELESS)
    tiny.run(REACTION)


@pytest.mark.parametrize("kind", ["baseline", "reaction"])
def test_participant_with_no_valid_clip(tiny, kind):
    """Named, since nothing can be said about this person later on."""
    for path in tiny.root.glob(f"data/103/*/{kind}_clip_*"):
        path.write_text(FACELESS)
    what = f"1 of 4 participants has no valid {kind} clip"
    tiny.refuses(f"preprocess_{kind}_data", what, "(first: 103", "6 clips", "valid_sessions.json")


def test_stages_in_the_wrong_order(tiny_inputs):
    """Each names the script that has to run before it."""
    tiny_inputs.refuses(FILTER, "4 of 4 participants have no table in", f"Run {BASELINE}.py first.")
    tiny_inputs.refuses(SEARCH, "AU4_excluded_participants.json", f"Run {FILTER}.py first.")
    tiny_inputs.path(EXCLUDED).write_text('["104"]')
    tiny_inputs.refuses(SEARCH, "3 of 3 participants have no table in", f"Run {REACTION}.py")


# ---- estimators: one per table, and AUs that it does not give


def without_units(tiny, folder, *units):
    """Empty columns in the feature files of a folder."""
    for path in sorted(tiny.root.glob(f"{folder}/*_features.csv")):
        table = pd.read_csv(path)
        table[[f"AU{unit}" for unit in units]] = np.nan
        table.to_csv(path, index=False)


def made_by(tiny, folder, estimator, version="1"):
    """Settings in a folder."""
    tiny.path(f"{folder}/settings.json").write_text(
        json.dumps({"estimator": estimator, "estimator_version": version, "device": "cpu"})
    )


def test_tables_say_which_estimator(tiny):
    """The published one without settings; else the one in the settings of the features; and never two in one folder."""
    tables = "preparation/preprocessed_reaction_data/settings.json"
    published = {"estimator": "fergi", "estimator_version": "published", "missing_action_units": []}
    assert json.loads(tiny.path(tables).read_text()) == published
    made_by(tiny, "data", "blendshapes")
    tiny.run(REACTION)
    own = {"estimator": "blendshapes", "estimator_version": "1", "missing_action_units": []}
    assert json.loads(tiny.path(tables).read_text()) == own
    between = "The AU intensities come from 2 estimators: fergi published in {}, blendshapes 1 in {}. "
    folders = (tiny.path(f"preparation/preprocessed_{kind}_data") for kind in ("baseline", "reaction"))
    tiny.refuses(SEARCH, between.format(*folders), "make all of them with one")
    tiny.run(BASELINE)
    tiny.run(SEARCH)

    made_by(tiny, "data/103/session_4", "fergi", "64184e229b263107")
    here, there = (tiny.path(f"data/{each}") for each in ("101/session_1", "103/session_4"))
    named = f"2 estimators: blendshapes 1 in {here}, fergi 64184e229b26 in {there}. Intensities of different"
    for stage in CLIP_STAGES:
        tiny.refuses(stage, named)
    tiny.edit_json(LISTED, lambda sessions: sessions["103"].remove(4))
    made_by(tiny, "data", "openface-2.2", "2.2.0")
    tiny.edit_json(LISTED, lambda sessions: sessions.pop("104"))
    staying = "1 tables of other participants in {} (first: 104.csv) come from the estimator blendshapes 1, and these "
    for stage, kind in zip(CLIP_STAGES, ("baseline", "reaction"), strict=True):
        folder = tiny.path(f"preparation/preprocessed_{kind}_data")
        tiny.refuses(stage, staying.format(folder) + "features from openface-2.2 2.2.0. Remove them")


def test_aus_that_are_missing_are_named(tiny, capsys):
    """They stay empty to the end; what needs one says so; clips must agree on them."""
    made_by(tiny, "data", "some-tool")
    for folder in ("data/101/*", "data/102/*"):
        without_units(tiny, folder, 9, 15)
    for stage in CLIP_STAGES:
        kind = stage.split("_")[1]
        first = "(first: 101, session 1, image 1), and has values in the others. Make all of them again"
        tiny.refuses(stage, f"AU9 is empty in 12 of 20 valid {kind} clips {first}")
    for folder in ("data/103/*", "data/104/*"):
        without_units(tiny, folder, 9, 15)
    capsys.readouterr()
    for stage in STAGES[:3]:
        tiny.run(stage)
    out = capsys.readouterr().out
    assert out.count("x 10 AUs") == out.count("AU9, AU15 are empty: some-tool does not give them.") == 2
    before = tiny.path(f"{RESULTS}.csv").read_bytes()
    tiny.run(SEARCH)
    assert tiny.path(f"{RESULTS}.csv").read_bytes() == before  # AUcomb takes AU4 and AU12 only

    emotions = ("disappointed", "satisfied", "surprised", "disgusted", "amused", "scared")
    for who in tiny.IMAGES:
        with_images(who, lambda table: table.assign(**{name: table.index % 2 for name in emotions}))(tiny)
    section_6_1.main(["--root", str(tiny.root)])
    found = pd.read_csv(tiny.path("results/overall_rating_correlations.csv"), index_col="AU")
    assert found.index[found["rating_rho"].isna()].tolist() == [9, 15]
    assert re.search(r"^9 +– +–", capsys.readouterr().out, flags=re.M)

    without_units(tiny, "data/*/*", 4)
    for stage in CLIP_STAGES:
        tiny.run(stage)
    for stage, what, kind in ((FILTER, "Excluding participants", "baseline"), (SEARCH, "AUcomb", "reaction")):
        folder = tiny.path(f"preparation/preprocessed_{kind}_data")
        tiny.refuses(stage, f"{what} needs AU4, which the estimator of {folder}, some-tool, does not give.")


# ---- outputs that cannot be written


@pytest.mark.parametrize("stage", [BASELINE, REACTION])
def test_a_disk_that_is_full_at_the_last_table(tiny, stage, monkeypatch):
    """None of the tables is replaced, so that none is older than the others."""
    synced = []

    def until_full(descriptor):
        if len(synced) == 4:  # the settings and three tables
            raise OSError(28, "No space left on device")
        synced.append(descriptor)

    tiny.edit(CLIP_3.replace("reaction", stage.split("_")[1]), ",0.95,", ",0.96,")
    monkeypatch.setattr(os, "fsync", until_full)
    tiny.refuses(stage, "104.csv: No space left on device. Make room")
    assert len(synced) == 4


@pytest.mark.parametrize(
    ("stage", "name", "occupied_by", "message"),
    [
        (BASELINE, "preparation/preprocessed_baseline_data", Path.touch, "into {}: File exists"),
        (REACTION, REACTIONS, Path.touch, "into {}: File exists"),
        (SEARCH, "results", Path.touch, "into {}: File exists"),
        (FILTER, EXCLUDED, Path.mkdir, "{}: Is a directory"),
        (SEARCH, f"{RESULTS}.csv", Path.mkdir, "{}: Is a directory"),
    ],
)
def test_output_name_that_is_taken(tiny, stage, name, occupied_by, message):
    """A file in place of a folder is found before the work and stays; no temporary file stays behind."""
    without(name)(tiny)
    occupied_by(tiny.path(name))
    tiny.refuses(stage, f"Cannot write {message.format(tiny.path(name))}")


# ---- as a command


def command(stage, *options, **environment):
    """Run a script as a process of its own, from another folder."""
    return subprocess.run(
        [sys.executable, str(CHECKOUT / f"{stage}.py"), *options],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **environment},
        check=False,
    )


def test_command_that_works(tiny):
    """Exit code 0, nothing on the error stream; FERGI_ROOT is as good as --root."""
    before = tiny.snapshot()
    tiny.path("preparation/AU4_excluded_participants.json").unlink()
    run = command(FILTER, FERGI_ROOT=str(tiny.root))
    assert (run.returncode, run.stderr) == (0, "")
    assert "1 of 4 participants excluded: 104." in run.stdout
    assert tiny.snapshot() == before


@pytest.mark.parametrize("stage", STAGES)
def test_command_that_fails(tiny, stage):
    """Exit code 1, one line that starts with the script's name, no traceback, nothing written."""
    tiny.path(CLIP_3).write_text("")
    tiny.path(CLIP_3.replace("reaction", "baseline")).write_text("")
    tiny.path(TABLES[FILTER]).write_text("")
    tiny.path(TABLES[SEARCH]).write_text("")
    before = tiny.snapshot()
    run = command(stage, "--root", str(tiny.root))
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(f"{stage}.py: 1 of ")
    assert run.stderr.count("\n") == 1
    assert str(tiny.root) in run.stderr
    assert "is empty" in run.stderr
    assert tiny.snapshot() == before


@pytest.mark.parametrize("stage", STAGES)
def test_help(stage):
    """The docstring, without any work."""
    run = command(stage, "--help")
    assert run.returncode == 0 and "--root DIR" in run.stdout and "Reads " in run.stdout


@pytest.mark.parametrize("option", ["--mode=original", "--strict"])
def test_unknown_option_and_mode(option):
    """Exit code 2, as usual; no option is guessed from its beginning."""
    assert command(SEARCH, option).returncode == 2


def test_output_that_nobody_reads(tmp_path):
    """As with ``| head``: one sentence, no traceback."""
    (tmp_path / "long.py").write_text(
        "from fergi.script import run\n\ndef main(_):\n    print('a line\\n' * 100_000)\n\nrun(main)\n"
    )
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "long.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert script.stdout.readline() == "a line\n"
    script.stdout.close()
    assert script.stderr.read() == "The output was closed (Broken pipe); finished files are complete.\n"
    assert script.wait(60) == 1
