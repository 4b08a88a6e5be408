"""Which participants, sessions, clips and images there are, and what does not fit together."""

import pandas as pd
import pytest

from fergi.dataset import (
    Folders,
    find_clips,
    read_black_images,
    read_excluded_participants,
    read_image_reactions,
    read_valid_sessions,
)
from fergi.files import FergiError

COLUMNS = {
    "image_columns": ["rank_score", "PickScore"],
    "activation_columns": ["AU4_activation_value"],
}


def with_file(tmp_path, name, content):
    """Folders with one file in preparation/."""
    folders = Folders(tmp_path)
    folders.preparation.mkdir()
    (folders.preparation / name).write_text(content)
    return folders


def test_sessions_in_order_and_black_images(tmp_path):
    """Participants and sessions ascend, whatever the order in the file. Who is not asked for is not returned."""
    folders = with_file(tmp_path, "valid_sessions.json", '{"010": [3, 1], "002": [12, 2]}')
    assert list(read_valid_sessions(folders).items()) == [("002", [2, 12]), ("010", [1, 3])]
    folders.black_images.write_text('{"101": {"1": [2, 4], "10": []}, "102": {}, "103": {"1": [1]}}')
    assert read_black_images(folders, ["101", "102"]) == {"101": {(1, 2), (1, 4)}, "102": set()}


SESSIONS, BLACK, EXCLUDED = (
    (read_valid_sessions, "valid_sessions.json"),
    (lambda folders: read_black_images(folders, ["101"]), "invalid_images.json"),
    (lambda folders: read_excluded_participants(folders, ["101", "104"]), "AU4_excluded_participants.json"),
)
NEEDS_NUMBERS = "participant 101 needs a list of session numbers, not "
NEEDS_IMAGES = "must map participants to sessions to lists of image numbers. Run preprocess_image_data.py first"
NEEDS_PEOPLE = "must be a list of participants. Run filter_participants_based_on_AU4.py again."


@pytest.mark.parametrize(
    ("read", "content", "cause"),
    [
        (SESSIONS, "{}", "must map participants to lists of session numbers"),
        (SESSIONS, "[1, 2]", "must map participants to lists of session numbers"),
        (SESSIONS, '{"101": []}', f"{NEEDS_NUMBERS}[]"),
        (SESSIONS, '{"101": 3}', f"{NEEDS_NUMBERS}3"),
        (SESSIONS, '{"101": [1, "2"]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1, true]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1.0]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1, 2, 1]}', "participant 101 has a session twice: [1, 1, 2]"),
        (SESSIONS, '{"101": [1, 2]', "is not JSON"),
        (SESSIONS, None, "valid_sessions.json). Fetch the published files with: python -m"),
        *((BLACK, content, NEEDS_IMAGES) for content in ("[]", '{"101": [1]}', '{"101": {"one": [1]}}', "3")),
        (BLACK, '{"101": {"1": 2}}', NEEDS_IMAGES),
        (BLACK, '{"102": {}}', "invalid_images.json (first: 101). Add them"),
        (EXCLUDED, '["105", "104"]', "AU4_excluded_participants.json is not in the data (first: 105). Run filter_"),
        (EXCLUDED, '{"104": true}', NEEDS_PEOPLE),
        (EXCLUDED, "[104]", NEEDS_PEOPLE),
        (EXCLUDED, None, "AU4_excluded_participants.json). Run filter_participants_based_on_AU4.py first."),
    ],
)
def test_unusable_file(tmp_path, read, content, cause):
    """Named with what came and what to do; another form is not read as if it were empty."""
    function, name = read
    folders = Folders(tmp_path) if content is None else with_file(tmp_path, name, content)
    with pytest.raises(FergiError) as caught:
        function(folders)
    assert str(folders.preparation / name) in str(caught.value)
    assert cause in str(caught.value)


def test_clips_in_order_of_numbers(tmp_path):
    """Image 10 comes after image 9, and both kinds have the same images."""
    folder = tmp_path / "data" / "101" / "session_2"
    folder.mkdir(parents=True)
    for image in range(1, 12):
        for kind in ("baseline", "reaction"):
            (folder / f"{kind}_clip_{image}_features.csv").touch()
    (folder / "notes.txt").touch()
    clips = find_clips(Folders(tmp_path), "baseline", {"101": [2]})["101"]
    assert list(clips) == [(2, image) for image in range(1, 12)]
    assert clips[2, 10] == folder / "baseline_clip_10_features.csv"


@pytest.mark.parametrize("kind", ["baseline", "reaction"])
@pytest.mark.parametrize("lost", ["baseline_clip_1", "baseline_clip_3", "reaction_clip_1", "reaction_clip_3"])
def test_lost_clip(tiny, kind, lost):
    """First, last, of this kind or of the other: its name is in the message."""
    tiny.path(f"data/102/session_1/{lost}_features.csv").unlink()
    with pytest.raises(FergiError) as caught:
        find_clips(Folders(tiny.root), kind, {"101": [1, 2], "102": [1, 3]})
    assert f"1 of 4 sessions named in valid_sessions.json is unusable (first: {tiny.root}" in str(caught.value)
    assert f"session_1/{lost}_features.csv does not exist)" in str(caught.value)


def test_missing_and_empty_session_folders(tiny):
    """A folder that is not there and one without features are told apart."""
    tiny.path("data/102/session_5").mkdir()
    with pytest.raises(FergiError, match=r"1 of 1 .*session_5 has no feature files"):
        find_clips(Folders(tiny.root), "baseline", {"102": [5]})
    with pytest.raises(FergiError, match=r"2 of 3 .*\(first: .*data/102/session_6 does not exist\)"):
        find_clips(Folders(tiny.root), "baseline", {"102": [6, 1], "999": [1]})


def test_images_and_reactions_are_joined_by_participant_session_and_image(tiny):
    """Each row has its own numbers of both tables, in whatever order the tables' rows and columns are."""
    folders = Folders(tiny.root)
    sessions = {"101": [1, 2], "103": [2, 4]}
    joined = read_image_reactions(folders, sessions, **COLUMNS)
    wanted = ["session_index", "image_index", "rank_score", "PickScore", "AU4_activation_value"]
    assert list(joined.columns) == ["participant", *wanted]
    assert len(joined) == 12  # 7 images of 101 without the black one, 6 of 103
    for row in joined.itertuples():
        images = pd.read_csv(folders.image_tables / f"{row.participant}.csv")
        reactions = pd.read_csv(folders.activation_tables("reaction") / f"{row.participant}.csv")
        where = f"session_index == {row.session_index} and image_index == {row.image_index}"
        assert images.query(where)[["rank_score", "PickScore"]].values.tolist() == [[row.rank_score, row.PickScore]]
        assert reactions.query(where)["AU4_activation_value"].tolist() == [row.AU4_activation_value]
    tiny.edit_table("preparation/preprocessed_reaction_data/101.csv", lambda table: table[::-1])
    tiny.edit_table("preparation/preprocessed_image_data/103.csv", lambda table: table[table.columns[::-1]])
    again = read_image_reactions(folders, sessions, **COLUMNS)
    pd.testing.assert_frame_equal(again, joined, check_exact=True)
    # An image without a valid reaction has no row.
    tiny.edit_table("preparation/preprocessed_reaction_data/103.csv", lambda table: table.drop(index=2))
    fewer = read_image_reactions(folders, sessions, **COLUMNS)
    pd.testing.assert_frame_equal(fewer, joined.drop(index=8).reset_index(drop=True), check_exact=True)


def test_session_of_black_images_may_be_missing_from_the_images(tiny):
    """Where all its images are black there is no row; otherwise there must be."""
    folders = Folders(tiny.root)
    for kind in ("image", "reaction"):
        tiny.edit_table(
            f"preparation/preprocessed_{kind}_data/103.csv", lambda table: table.query("session_index != 4")
        )
    with pytest.raises(FergiError, match=r"valid_sessions\.json has session 4, .*103\.csv does not"):
        read_image_reactions(folders, {"103": [2, 4]}, **COLUMNS)
    tiny.edit_json("preparation/invalid_images.json", lambda black: black["103"].update({"4": [1]}))
    assert len(read_image_reactions(folders, {"103": [2, 4]}, **COLUMNS)) == 5
