"""Stages 6 to 9 as scripts: what they write and say, and how they refuse what they cannot use."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import CHECKOUT, SCORES, STAGES, clip_text

from fergi.preference.results import search_preferences

BASELINE, REACTION, FILTER, SEARCH = STAGES
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
    assert written == {f"preparation/preprocessed_baseline_data/{who}.csv" for who in people}
    assert "20 baseline clips of 4 participants, 600 frames." in capsys.readouterr().out

    tiny_inputs.run(REACTION)
    out = capsys.readouterr().out
    assert "20 clips are valid, 1 of them reactions to black images" in out
    assert "19 clips x 12 AUs = 228 activation values." in out
    table = pd.read_csv(tiny_inputs.path(f"{REACTIONS}/101.csv"))
    assert table.iloc[:, :2].values.tolist() == [[1, 1], [1, 3], [1, 4], [2, 1], [2, 2], [2, 3]]

    tiny_inputs.run(FILTER)
    assert json.loads(tiny_inputs.path("preparation/AU4_excluded_participants.json").read_text()) == ["104"]
    out = capsys.readouterr().out
    assert "104  3.000  excluded" in out
    assert "1 of 4 participants excluded: 104." in out

    tiny_inputs.run(SEARCH)
    out = capsys.readouterr().out
    assert "3 participants (1 excluded), 17 images with a valid reaction." in out
    assert "/20 " in out  # pairs: 3 + 3 of 101, 3 + 1 of 102, 10 of 103
    tiny_inputs.run(SEARCH, "--mode", "released")
    tiny_inputs.run(SEARCH, "--strict-lopo")
    tiny_inputs.run(SEARCH, "--mode", "released", "--strict-lopo")
    written = {name for name in tiny_inputs.snapshot() if name.startswith("results/")}
    assert written == {f"{RESULTS}{suffix}.csv" for suffix in ("", "_released", "_strict", "_released_strict")}
    found = pd.read_csv(tiny_inputs.path(f"{RESULTS}.csv"), dtype={"user_id": str})
    assert found["user_id"].tolist() == ["101", "102", "103"]
    assert (found["PickScore_n_correct"] + found["PickScore_n_incorrect"]).tolist() == [6, 4, 10]


def test_columns_are_the_released_ones(published, tiny):
    """Names and order of the released results, activation and baseline tables."""
    expected = pd.read_csv(published / "expected" / "image_preference_binary_classification_based_on_ranking.csv")
    assert list(pd.read_csv(tiny.path(f"{RESULTS}.csv")).columns) == list(expected.columns)
    for kind in ("baseline", "reaction"):
        name = f"preparation/preprocessed_{kind}_data"
        expected = pd.read_csv(published / name / "001.csv")
        assert list(pd.read_csv(tiny.path(f"{name}/101.csv")).columns) == list(expected.columns)


def test_a_second_run_writes_the_same_bytes(tiny):
    """Nothing depends on the time, on chance or on what lies there already."""
    before = tiny.snapshot()
    for stage in STAGES:
        tiny.run(stage)
    assert tiny.snapshot() == before


@pytest.mark.parametrize("mode", ["paper", "released"])
@pytest.mark.parametrize("strict", [False, True])
def test_options_reach_the_search(tiny, monkeypatch, mode, strict):
    """Both switches, and the file's name with them."""
    script = importlib.import_module(SEARCH)
    searches = []

    def recorded(images, search):
        searches.append(search)
        return search_preferences(images, search)

    monkeypatch.setattr(script, "search_preferences", recorded)
    before = set(tiny.snapshot())
    tiny.path(f"{RESULTS}.csv").unlink()
    tiny.run(SEARCH, "--mode", mode, *(["--strict-lopo"] if strict else []))
    assert [(each.strict, each.product_valence) for each in searches] == [(strict, mode == "released")]
    suffix = ("_released" if mode == "released" else "") + ("_strict" if strict else "")
    assert set(tiny.snapshot()) == before - {f"{RESULTS}.csv"} | {f"{RESULTS}{suffix}.csv"}


def test_a_spike_of_one_frame_is_divided_by_three(tiny):
    """30 FPS and a tenth of a second: 1.5 in one frame of 30 gives 0.5."""
    tiny.path(CLIP_3).write_text(clip_text(np.where(np.arange(30) == 20, 1.5, 0.0)))
    tiny.run(REACTION)
    table = pd.read_csv(tiny.path(f"{REACTIONS}/102.csv")).set_index(["session_index", "image_index"])
    np.testing.assert_allclose(table.loc[(1, 3)], 0.5, atol=1e-12)


def test_limit_of_the_movement_at_rest(tiny, capsys):
    """The 80th percentile of six values is the fifth: 0.5 is out, 0.499 is not."""
    clips = pd.read_csv(tiny.path("preparation/preprocessed_baseline_data/103.csv"))
    for participant, fifth in (("101", 0.5), ("102", 0.499), ("103", 0.51), ("104", 0.0)):
        table = clips.assign(AU4_activation_value=[0.0, 9.0, 0.0, fifth, 0.0, 0.0])
        table.to_csv(tiny.path(f"preparation/preprocessed_baseline_data/{participant}.csv"), index=False)
    tiny.run(FILTER)
    assert json.loads(tiny.path("preparation/AU4_excluded_participants.json").read_text()) == ["101", "103"]
    assert "2 of 4 participants excluded: 101, 103." in capsys.readouterr().out


def test_unlisted_sessions_are_reported(tiny, capsys):
    """Not used, and not passed over in silence; the tables stay as they were."""
    before = tiny.snapshot()
    extra = tiny.path("data/102/session_9")
    extra.mkdir()
    for kind in ("baseline", "reaction"):
        (extra / f"{kind}_clip_1_features.csv").write_text(clip_text(np.zeros(30)))
    for stage in (BASELINE, REACTION):
        tiny.run(stage)
        assert f"1 session folders are not in valid_sessions.json and were not used (first: {extra})." in (
            capsys.readouterr().out
        )
    after = tiny.snapshot()
    assert {name: after[name] for name in before} == before


def test_order_of_columns_and_rows_of_tables_does_not_matter(tiny):
    """Tables are read by name and by key."""
    before = tiny.snapshot()[f"{RESULTS}.csv"]
    tiny.edit_table(f"{IMAGES}/101.csv", lambda table: table[table.columns[::-1]])
    tiny.edit_table(f"{REACTIONS}/103.csv", lambda table: table[::-1])
    tiny.run(SEARCH)
    assert tiny.snapshot()[f"{RESULTS}.csv"] == before


def test_participants_with_no_pair_keep_their_row(tiny):
    """One image a session: nothing to predict, all counts 0."""
    for name in (IMAGES, REACTIONS):
        tiny.edit_table(f"{name}/102.csv", lambda table: table.drop_duplicates("session_index"))
    tiny.run(SEARCH)
    found = pd.read_csv(tiny.path(f"{RESULTS}.csv"), dtype={"user_id": str}).set_index("user_id")
    assert (found.loc["102"].filter(regex="_n_") == 0).all()
    assert found.loc["103", ["PickScore_n_correct", "PickScore_n_incorrect"]].sum() == 10


# ---- feature files that cannot be used


@pytest.mark.parametrize("stage", [BASELINE, REACTION])
def test_missing_folders(tiny, stage):
    """The data, a participant, a session: the first that is missing, of how many."""
    tiny.path("data/103/session_2").rename(tiny.root / "elsewhere")
    tiny.refuses(stage, "1 of 7 sessions", f"{tiny.root}/data/103/session_2 does not exist")
    tiny.path("data/102").rename(tiny.root / "elsewhere" / "102")
    tiny.refuses(stage, "3 of 7 sessions", f"{tiny.root}/data/102/session_1 does not exist", "fergi.published")
    tiny.path("data").rename(tiny.root / "elsewhere" / "data")
    tiny.refuses(stage, "7 of 7 sessions", f"{tiny.root}/data/101/session_1 does not exist")


@pytest.mark.parametrize("stage", STAGES)
def test_missing_preparation(tiny, stage):
    """Without the list of sessions no stage starts; it says how to get it."""
    tiny.path("preparation/valid_sessions.json").unlink()
    tiny.refuses(stage, f"{tiny.root}/preparation/valid_sessions.json", "python -m fergi.published")


@pytest.mark.parametrize(
    "stage",
    [BASELINE, REACTION, FILTER, SEARCH],
)
def test_mistyped_root(tmp_path, stage):
    """A root that is not there is not made."""
    run = subprocess.run(
        [sys.executable, str(CHECKOUT / f"{stage}.py"), "--root", str(tmp_path / "mistyped")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "mistyped" in run.stderr
    assert os.listdir(tmp_path) == []


def cell(line, column, value):
    """A change of one cell of a feature file, whose line 1 is the header."""

    def change(lines):
        cells = lines[line - 1].split(",")
        cells[lines[0].split(",").index(column)] = value
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return change


def without_column(name):
    """A change that takes a column out of a CSV."""

    def change(lines):
        index = lines[0].split(",").index(name)
        return [",".join(value for i, value in enumerate(row.split(",")) if i != index) for row in lines]

    return change


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda lines: lines[:1], "has a header but no frames"),
        (without_column("AU12"), "has no column AU12"),
        (lambda lines: [lines[0].replace("AU1,AU2", "AU2,AU1"), *lines[1:]], "has its columns in another order"),
        (cell(7, "AU4", "strong"), "line 7, column AU4: 'strong' is not a number"),
        (cell(7, "AU4", "nan"), "line 7, column AU4: 'nan' is not a number"),
        (cell(7, "AU4", ""), "line 7, column AU4: '' is not a number"),
        (cell(7, "AU4", "inf"), "line 7, column AU4: 'inf' is not a number"),
        (cell(7, "timestamp", "0.0"), "line 7: time 0 s does not come after 0.133 s"),
        (lambda lines: [*lines[:6], lines[5], *lines[6:]], "line 7: frame 5 stands where frame 6 belongs"),
        (lambda lines: [*lines[:6], *lines[7:]], "line 7: frame 7 stands where frame 6 belongs"),
    ],
    ids=["no rows", "column", "order", "text", "NaN", "empty", "inf", "backwards", "duplicate", "missing frame"],
)
def test_unusable_feature_file(tiny, change, cause):
    """One sentence with the file, the place and the cause; all tables stay as they were."""
    tiny.edit_lines(CLIP_3, change)
    message = tiny.refuses(REACTION, f"1 of 20 reaction feature files is unusable (first: {tiny.path(CLIP_3)}", cause)
    assert message.endswith("Make them again with clips_facial_process.py, or: python -m fergi.published --replace")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text[:-30], "is cut off in line 31"),
        (lambda text: text[:-1], "is cut off in line 31"),
        (lambda text: text[: len(text) // 2], "is cut off in line"),
    ],
    ids=["empty", "in a line", "last line end", "half"],
)
def test_truncated_feature_file(tiny, content, cause):
    """Whatever the place where it was cut."""
    text = tiny.path(CLIP_3).read_text()
    tiny.path(CLIP_3).write_text(content(text))
    tiny.refuses(REACTION, f"{CLIP_3} {cause}")


def test_all_feature_files_are_looked_at(tiny):
    """How many are unusable is counted over all participants."""
    for name in (
        CLIP_3,
        "data/103/session_2/reaction_clip_1_features.csv",
        "data/103/session_4/reaction_clip_1_features.csv",
    ):
        tiny.path(name).write_text("")
    tiny.refuses(REACTION, "3 of 20 reaction feature files are unusable", f"(first: {tiny.path(CLIP_3)} is empty)")


def test_feature_file_of_another_participant(tiny):
    """No two recordings agree to the last digit; clips without a face do, and are not valid anyway."""
    other = "data/103/session_2/reaction_clip_1_features.csv"
    tiny.path(other).write_bytes(tiny.path(CLIP_3).read_bytes())
    tiny.refuses(
        REACTION,
        "1 of 20 reaction feature files is unusable",
        f"(first: {tiny.path(other)} has the frames of {tiny.path(CLIP_3)}, another clip)",
    )
    faceless = clip_text(np.full(30, -1.0), face_detection_confidence_score=0.0)
    for name in (other, CLIP_3):
        tiny.path(name).write_text(faceless)
    tiny.run(REACTION)


def test_lost_clip(tiny):
    """The last reaction of a session, which no gap in the numbers shows, is missed beside its baseline clip."""
    tiny.path(CLIP_3).unlink()
    for stage in (BASELINE, REACTION):
        tiny.refuses(stage, "1 of 7 sessions", f"{CLIP_3} does not exist")


def test_clips_numbered_from_0(tiny):
    """Else each would be taken for the image before it."""
    for kind in ("baseline", "reaction"):
        for image in (1, 2, 3):
            old, new = (tiny.path(f"data/102/session_1/{kind}_clip_{each}_features.csv") for each in (image, image - 1))
            old.rename(new)
    for stage in (BASELINE, REACTION):
        tiny.refuses(stage, "1 of 7 sessions", "data/102/session_1 has clips numbered 0")


@pytest.mark.parametrize("stage", [BASELINE, REACTION])
def test_a_disk_that_is_full_at_the_last_table(tiny, stage, monkeypatch):
    """None of the tables is replaced, so that none is older than the others."""
    synced = []

    def until_full(descriptor):
        if len(synced) == 3:
            raise OSError(28, "No space left on device")
        synced.append(descriptor)

    tiny.edit(CLIP_3.replace("reaction", stage.split("_")[1]), ",0.95,", ",0.96,")
    monkeypatch.setattr(os, "fsync", until_full)
    tiny.refuses(stage, "104.csv: No space left on device. Make room")
    assert len(synced) == 3


@pytest.mark.parametrize("kind", ["baseline", "reaction"])
def test_participant_with_no_valid_clip(tiny, kind):
    """Named, since nothing can be said about this person later on."""
    faceless = clip_text(np.full(30, -1.0), face_detection_confidence_score=0.0)
    for path in tiny.root.glob(f"data/103/*/{kind}_clip_*"):
        path.write_text(faceless)
    stage = BASELINE if kind == "baseline" else REACTION
    tiny.refuses(
        stage, f"1 of 4 participants has no valid {kind} clip (first: 103, with 6 clips", "valid_sessions.json"
    )


def test_participant_with_black_images_only(tiny):
    """No reaction is left either."""
    tiny.edit_json("preparation/invalid_images.json", lambda black: black.update({"104": {"1": [1, 2]}}))
    tiny.refuses(REACTION, "1 of 4 participants has no valid reaction clip (first: 104")


def test_valid_clip_whose_windows_are_all_broken(tiny):
    """At 60 FPS a window is 6 frames: with every sixth lost, 25 of 30 are valid and none of the windows is."""
    confidence = np.where(np.arange(30) % 6 == 5, 0.0, 0.95)
    tiny.path(CLIP_3).write_text(clip_text(np.zeros(30), 60.0, face_detection_confidence_score=confidence))
    tiny.refuses(REACTION, f"{CLIP_3}: enough valid frames but never as many in a row as a window has")


# ---- lists and tables that do not fit together


def test_black_list_without_a_participant(tiny):
    """Silence is not "none black"."""
    tiny.edit_json("preparation/invalid_images.json", lambda black: black.pop("103"))
    for stage in (REACTION, SEARCH):
        tiny.refuses(stage, "1 of 4 participants is missing from", "invalid_images.json (first: 103)")


def test_session_that_only_the_list_has(tiny):
    """Stages 6 and 7 miss its folder, stage 9 its images."""
    tiny.edit_json("preparation/valid_sessions.json", lambda sessions: sessions["102"].append(8))
    for stage in (BASELINE, REACTION):
        tiny.refuses(stage, "data/102/session_8 does not exist")
    tiny.refuses(SEARCH, f"valid_sessions.json has session 8, {tiny.root}/{IMAGES}/102.csv does not")


def test_session_that_only_the_images_have(tiny):
    """Taken out of the list, or never in it."""
    tiny.edit_json("preparation/valid_sessions.json", lambda sessions: sessions["102"].remove(3))
    tiny.refuses(SEARCH, f"{IMAGES}/102.csv has session 3, valid_sessions.json does not")


def test_reaction_to_an_image_that_the_images_do_not_have(tiny):
    """A row that is missing there would be lost in the join."""
    tiny.edit_table(f"{IMAGES}/102.csv", lambda table: table.drop(index=1))
    tiny.refuses(SEARCH, f"{REACTIONS}/102.csv has session 1, image 2, {tiny.root}/{IMAGES}/102.csv does not")


def test_exclusion_of_somebody_else(tiny):
    """A list made from other data."""
    tiny.path("preparation/AU4_excluded_participants.json").write_text('["104", "204"]')
    tiny.refuses(SEARCH, "AU4_excluded_participants.json is unusable (first: 204)", f"Run {FILTER}.py again.")


TABLES = {FILTER: "preparation/preprocessed_baseline_data/102.csv", SEARCH: f"{REACTIONS}/102.csv"}


@pytest.mark.parametrize("stage", [FILTER, SEARCH])
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda lines: lines[:1], " has a header but no rows"),
        (without_column("AU4_activation_value"), " has no column AU4_activation_value"),
        (cell(3, "AU4_activation_value", "strong"), ", line 3, column AU4_activation_value: 'strong' is not a number"),
        (cell(3, "AU4_activation_value", ""), ", line 3, column AU4_activation_value: nothing is not a number"),
        (cell(3, "AU4_activation_value", "-inf"), ", line 3, column AU4_activation_value: '-inf' is not a number"),
        (cell(3, "image_index", "b"), ", line 3, column image_index: 'b' is not a whole number"),
        (lambda lines: [*lines[:3], *lines[2:]], ", line 4: session_index 1, image_index 2 stands there twice"),
    ],
    ids=["no rows", "column", "text", "empty", "inf", "key", "duplicate"],
)
def test_unusable_activation_table(tiny, stage, change, cause):
    """Stages 8 and 9 refuse what stages 6 and 7 did not write."""
    tiny.edit_lines(TABLES[stage], change)
    tiny.refuses(stage, f"tables is unusable (first: {tiny.path(TABLES[stage])}{cause})")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda text: "", " is empty"),
        (lambda text: text.rsplit(",", 1)[0] + "\n", ", line 6, column HPS_V2_score: nothing is not a number"),
        (lambda text: text.replace("PickScore", "Score"), " has no column PickScore"),
        (lambda text: text.replace("PickScore", "rank_score", 1), " has no column PickScore"),
        (lambda text: text.replace("\n3,1,", "\n1,1,"), ", line 5: session_index 1, image_index 1 stands there twice"),
    ],
    ids=["empty", "short row", "no column", "column twice", "duplicate"],
)
def test_unusable_image_table(tiny, change, cause):
    """Named with the file, and the published files as a way out."""
    path = tiny.path(f"{IMAGES}/102.csv")
    path.write_text(change(path.read_text()))
    tiny.refuses(SEARCH, f"1 of 3 tables is unusable (first: {path}{cause}", "fergi.published --replace")


def test_image_table_cut_off_inside_its_last_number(tiny):
    """Two digits fewer are another score."""
    path = tiny.path(f"{IMAGES}/102.csv")
    path.write_text(path.read_text()[:-3])
    tiny.refuses(SEARCH, f"{path} is cut off in line 6")


def test_missing_participant(tiny):
    """Of each kind of table."""
    tiny.path(TABLES[FILTER]).unlink()
    tiny.refuses(
        FILTER, "1 of 4 participants has no table in", "preprocessed_baseline_data (first: 102.csv)", f"{BASELINE}.py"
    )
    tiny.path(f"{IMAGES}/103.csv").rename(tiny.root / "elsewhere")
    tiny.refuses(SEARCH, "1 of 3 participants has no table in", "preprocessed_image_data (first: 103.csv)")
    (tiny.root / "elsewhere").rename(tiny.path(f"{IMAGES}/103.csv"))
    tiny.path(TABLES[SEARCH]).unlink()
    tiny.refuses(SEARCH, "1 of 3 participants has no table in", "preprocessed_reaction_data (first: 102.csv)")


def test_stages_in_the_wrong_order(tiny_inputs):
    """Each names the script that has to run before it."""
    tiny_inputs.refuses(FILTER, "4 of 4 participants have no table in", f"Run {BASELINE}.py first.")
    tiny_inputs.refuses(SEARCH, "AU4_excluded_participants.json", f"Run {FILTER}.py first.")
    tiny_inputs.path("preparation/AU4_excluded_participants.json").write_text('["104"]')
    tiny_inputs.refuses(SEARCH, "3 of 3 participants have no table in", f"Run {REACTION}.py")


# ---- what stage 9 cannot search


def test_tied_ranks(tiny):
    """Two best images are no ranking."""
    tiny.edit_table(f"{IMAGES}/103.csv", lambda table: table.assign(rank_score=[5, 5, 3, 2, 1, 5]))
    tiny.refuses(SEARCH, f"{tiny.root}/preparation", "session 2 share a rank")


def test_tied_ranks_name_the_participant(tiny):
    """103 can be found, the third of three cannot."""
    tiny.edit_table(f"{IMAGES}/103.csv", lambda table: table.assign(rank_score=[5, 5, 3, 2, 1, 5]))
    tiny.refuses(SEARCH, "participant 103, session 2 share a rank")


def test_one_participant(tiny):
    """Nobody is left to learn from."""
    tiny.path("preparation/AU4_excluded_participants.json").write_text('["102", "103", "104"]')
    tiny.refuses(SEARCH, "holding out one participant needs at least two participants")


def test_nobody_left(tiny):
    """Everybody's brows moved at rest."""
    tiny.path("preparation/AU4_excluded_participants.json").write_text('["101", "102", "103", "104"]')
    tiny.refuses(SEARCH, "participants")


def test_constant_score(tiny):
    """A model that gives every image the same."""
    for participant in ("101", "102", "103"):
        tiny.edit_table(f"{IMAGES}/{participant}.csv", lambda table: table.assign(PickScore=20.5))
    tiny.refuses(SEARCH, f"{tiny.root}/preparation", "PickScore is the same for all training images")


def test_constant_score_is_named(tiny):
    """And one that is not a binary fraction."""
    for participant in ("101", "102", "103"):
        tiny.edit_table(f"{IMAGES}/{participant}.csv", lambda table: table.assign(PickScore=20.1))
    tiny.refuses(SEARCH, f"{tiny.root}/preparation", "PickScore")


# ---- outputs that cannot be written


@pytest.mark.parametrize(
    ("stage", "folder"),
    [
        (BASELINE, "preparation/preprocessed_baseline_data"),
        (REACTION, REACTIONS),
        (SEARCH, "results"),
    ],
)
def test_file_where_the_output_folder_should_be(tiny, stage, folder):
    """Found before the work, and the file stays."""
    tiny.path(folder).rename(tiny.root / "elsewhere")
    tiny.path(folder).write_text("in the way")
    tiny.refuses(stage, f"Cannot write into {tiny.root}/{folder}: File exists")


@pytest.mark.parametrize(
    ("stage", "name"),
    [(FILTER, "preparation/AU4_excluded_participants.json"), (SEARCH, f"{RESULTS}.csv")],
)
def test_folder_where_the_output_should_be(tiny, stage, name):
    """The temporary file does not stay behind."""
    if stage == FILTER:
        tiny.path(name).unlink()
    else:
        tiny.path(name).rename(tiny.root / "elsewhere")
    tiny.path(name).mkdir()
    tiny.refuses(stage, f"Cannot write {tiny.path(name)}")


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
    assert run.returncode == 0
    assert "--root DIR" in run.stdout
    assert "Reads " in run.stdout


def test_unknown_option_and_mode():
    """Exit code 2, as usual; no option is guessed from its beginning."""
    assert command(SEARCH, "--mode", "original").returncode == 2
    assert command(SEARCH, "--strict").returncode == 2


def test_scores_are_those_of_the_small_data_set(tiny):
    """The fixture has all six, so that a missing column is the test's doing."""
    assert set(SCORES) < set(pd.read_csv(tiny.path(f"{IMAGES}/102.csv")).columns)


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
    assert script.stderr.read() == "Nobody reads the output any more (Broken pipe); every finished file is whole.\n"
    assert script.wait(60) == 1
