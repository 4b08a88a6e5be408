"""The check against the paper: it confirms what holds and fails on what does not; and what is made for it before."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from fergi import accuracy_intervals, paper, section_6_1
from fergi.dataset import CLIP_KEY, Folders
from fergi.files import FergiError
from fergi.preference import results
from fergi.published import fetch, read_entries

RESAMPLES = ["--resamples", "200"]
EXPECTED = {"agrees": 74, "agrees as released": 7, "disagrees": 2, "not checkable": 10, "not in the paper": 8}
STATISTICS = ("overall_rating_correlations", "emotion_rank_sums")
RESULTS = "results/image_preference_binary_classification_based_on_ranking.csv"


def compute(root: Path) -> None:
    """What ``paper`` reads beside the stages' files."""
    section_6_1.main(["--root", str(root)])
    accuracy_intervals.main(["--root", str(root), *RESAMPLES])


@pytest.fixture(scope="module")
def checked(published, published_root, tmp_path_factory) -> Path:
    """A root on which everything was run, the check last."""
    root = tmp_path_factory.mktemp("checked")
    fetch(root, entries=read_entries(), copy=published)
    for name in ("preparation", "results"):
        shutil.copytree(published_root / name, root / name, dirs_exist_ok=True)
    compute(root)
    paper.main(["--root", str(root)])
    return root


@pytest.fixture
def root(checked, tmp_path) -> Path:
    """A copy of its small folders, to change."""
    for name in ("preparation", "results"):
        shutil.copytree(checked / name, tmp_path / name)
    return tmp_path


def read_check(root: Path) -> pd.DataFrame:
    return pd.read_csv(Folders(root).paper_check, keep_default_na=False)


def tables(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "results").glob("*.csv")}


def edit(path: Path, change) -> None:
    change(pd.read_csv(path, dtype={"user_id": str})).to_csv(path, index=False)


def test_every_claim_holds_but_the_two_that_are_known_not_to(checked):
    table = read_check(checked)
    assert Counter(table["verdict"]) == EXPECTED
    assert list(table["verdict"][-8:]) == ["not in the paper"] * 8  # the last section
    known = table[table["verdict"] == "disagrees"]
    assert list(known["claim"]) == ["disgusted, AU4: z", "amused, AU25: z"]
    assert known["reason"].str.len().min() > 20
    in_paper_mode = table[table["verdict"] == "agrees as released"]
    assert set(in_paper_mode["section"]) == {"Table 2", "6.2.5", "release"}
    assert not table.duplicated(["section", "claim"]).any()
    shown, notes = paper.report(table).split("\n\n", 1)
    assert max(map(len, shown.splitlines())) <= 150
    assert notes.startswith("[1] ")
    assert notes.endswith("74 agrees, 10 not checkable, 7 agrees as released, 2 disagrees.")


def test_intervals_contain_their_estimates_and_cover_all_modes(checked):
    intervals = pd.read_csv(Folders(checked).accuracy_intervals)
    assert (intervals["lower"] <= intervals["estimate"]).all() and (intervals["estimate"] <= intervals["upper"]).all()
    assert Counter(intervals["mode"]) == dict.fromkeys(("released", "paper", "strict"), 8 + 8 + 4 + 7 + 7 + 4)
    row = intervals.query("mode == 'released' and figure == 'AUcomb - ensemble, selected'").iloc[0]
    assert row["estimate"] == pytest.approx(100 * (498 - 456) / 685)
    assert row["lower"] < 0 < row["upper"]


def test_section_6_1_is_written_in_both_modes(checked):
    for name in STATISTICS:
        released, ours = (pd.read_csv(checked / "results" / f"{name}{end}.csv") for end in ("_released", ""))
        assert list(released["AU"]) == list(ours["AU"]) == [1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26]
        assert 0 < (released - ours).abs().max(axis=None) < 0.01


def test_what_needs_no_release_is_the_same_without_it_and_an_earlier_check_goes(root, capsys):
    """New intervals are of other numbers than those that an earlier check compared."""
    before = tables(root)
    for name in ("accuracy_intervals", *STATISTICS, *(f"{name}_released" for name in STATISTICS)):
        (root / "results" / f"{name}.csv").unlink()
    shutil.rmtree(root / "results" / "published")
    compute(root)
    assert tables(root) == {name: content for name, content in before.items() if name != "paper_check.csv"}
    said = capsys.readouterr().out
    assert re.search(r"AUcomb, selected +72\.70 \[\d\d\.\d\d, \d\d\.\d\d\]", said)
    assert re.search(r"\n4 +-0\.178 \* +-0\.034\n", said)


@pytest.mark.parametrize(
    ("column", "failing"),
    [
        ("AUcomb_selected_PickScore_n_correct", {"PickScore, selected pairs, %"}),
        ("ImageReward_weight", {"weights of ImageReward, PickScore, HPS v2 in every fold"}),
        ("diff_threshold", {"k, w_AU4, d in 20 of 30 folds"}),
    ],
)
def test_a_changed_result_fails_the_claims_on_it(root, column, failing, capsys):
    for mode in ("released", "paper"):
        edit(Folders(root).preference_results(mode), lambda table: table.assign(**{column: table[column] + 1}))
    compute(root)
    with pytest.raises(FergiError, match=r"\d of 93 claims that should hold do not \(first: "):
        paper.main(["--root", str(root)])
    table = read_check(root)
    assert set(table.loc[table["verdict"] == "FAILS", "claim"]) == failing | {
        "figures of the results table as published"
    }
    assert "FAILS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            RESULTS,
            lambda table: table.assign(PickScore_n_correct=1.0),
            r"intervals\.csv is of other results .* paper mode. Run .*_intervals again",
        ),
        (
            RESULTS,
            lambda table: table.drop(columns="AUcomb_selected_PickScore_n_incorrect"),
            r"AUcomb_selected_PickScore_n_incorrect.*on_ranking\.py first",
        ),
        (
            "preparation/preprocessed_baseline_data/001.csv",
            lambda table: table.assign(
                AU26_activation_value=table["AU26_activation_value"] + 1e-15 * (table.index == 0)
            ),
            r"1 of 93 claims .*activation values as published: 51131 instead of 51132",
        ),
    ],
)
def test_a_changed_file_is_noticed(root, name, change, message):
    edit(root / name, change)
    with pytest.raises(FergiError, match=message):
        paper.main(["--root", str(root)])


def test_a_participant_short_of_an_image_is_named(root):
    reacted = pd.read_csv(Folders(root).activation_tables("reaction") / "039.csv").set_index([*CLIP_KEY]).index
    path = Folders(root).image_tables / "039.csv"
    edit(path, lambda table: table.drop(index=(~table.set_index([*CLIP_KEY]).index.isin(reacted)).argmax()))
    with pytest.raises(FergiError):
        paper.main(["--root", str(root)])
    row = read_check(root).set_index("claim").loc["valid images of each participant"]
    assert row["released"] == "32 of 33 as printed (first other: 039)"
    assert row["verdict"] == "FAILS"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (RESULTS.replace(".csv", "_released.csv"), "--mode released first"),
        ("results/published/preprocessed_baseline_data/017.csv", "1 of 33 .*017.csv.*fergi.published"),
        ("results/published/image_preference_binary_classification_based_on_ranking.csv", "missing.*fergi.published"),
        ("preparation/preprocessed_reaction_data/017.csv", "1 of 33 .*017.csv.*preprocess_reaction_data.py"),
        ("preparation/AU4_excluded_participants.json", "filter_participants_based_on_AU4.py"),
        ("preparation/preprocessed_image_data/040.csv", "1 of 33 .*040.csv"),
        ("results/accuracy_intervals.csv", "Run python -m fergi.accuracy_intervals first"),
        ("results/emotion_rank_sums_released.csv", "Run python -m fergi.section_6_1 first"),
        ("data/synthetic.json", r"data/synthetic\.json says that .*fergi\.accuracy_intervals instead\.$"),
    ],
)
def test_what_stops_it_is_named_with_what_to_run(root, name, message):
    """A file is missing, or there is the one of synthetic data; nothing is written."""
    path = root / name
    if path.is_file():
        path.unlink()
    else:
        path.parent.mkdir()
        path.write_text("{}")
    before = tables(root)
    with pytest.raises(FergiError, match=message):
        paper.main(["--root", str(root)])
    assert tables(root) == before


def test_results_of_other_people_are_not_used(root):
    """Left from before stage 8 changed, or cut off; in every mode."""
    before = tables(root)
    for mode, strict in (("released", False), ("paper", False), ("paper", True)):
        path = Folders(root).preference_results(mode, strict)
        path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
        for main in (accuracy_intervals.main, paper.main)[: 1 if strict else 2]:
            with pytest.raises(FergiError, match=rf"{path.name} has .* 26 are only in one .*first: 008"):
                main(["--root", str(root)])
        path.write_bytes(before[path.name])
    Folders(root).preference_results("paper", True).unlink()
    with pytest.raises(FergiError, match="--strict-lopo first"):
        accuracy_intervals.main(["--root", str(root)])
    Folders(root).excluded_participants.write_text('["001", "004", "039"]')
    with pytest.raises(FergiError, match=r"2 are only in one of them \(first: 001\)"):
        paper.main(["--root", str(root)])
    assert tables(root).items() <= before.items()


@pytest.mark.parametrize("options", [["--resamples", "0"], ["--seed", "-1"]])
def test_impossible_numbers(tmp_path, options, capsys):
    with pytest.raises(SystemExit):
        accuracy_intervals.main(["--root", str(tmp_path), *options])
    assert "--resamples must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("module", [paper, accuracy_intervals, section_6_1])
def test_a_mistyped_root_stays_as_it_is(tmp_path, module):
    with pytest.raises(FergiError, match=r"valid_sessions\.json|on_ranking_released\.csv does not exist"):
        module.main(["--root", str(tmp_path / "nowhere")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("printed", "bound", "value", "p", "holds"),
    [
        ("0.10", 5e-5, 0.0999, 1e-5, True),
        ("0.10", 5e-5, 0.1049, 1e-5, True),
        ("0.10", 5e-5, 0.0949, 1e-5, False),
        ("0.10", 5e-5, 0.1051, 1e-5, False),
        ("-4.25", 5e-5, -4.2532, 1e-5, True),
        ("7.00", 1e-11, 7.0051, 1e-12, False),
        ("0.09", 5e-5, 0.0875, 3.9e-5, True),
        ("0.09", 5e-5, 0.0875, 5e-5, False),
        ("0.09", 5e-5, 0.0849, 3.9e-5, False),
    ],
)
def test_values_read_as_printed(printed, bound, value, p, holds):
    """Rounding to the printed decimals, worked by hand, and p below the printed bound."""
    table = pd.DataFrame({"rating_rho": [value], "rating_p": [p]}, index=[4])
    assert paper.section_6_1_claims(table, "rho", [("rating", 4, printed, bound)])[1].agrees == holds


def test_held_out_predictions_add_rows_that_nothing_counts(root):
    """Two pairs of two people: right where the earlier is preferred, wrong where the later is."""
    rows = [("fau-net", who, 1, 1, 2, earlier, 0.5, 0.9) for who, earlier in (("001", 1), ("005", 0))]
    columns = ["model", "participant", "session_index", "first_image", "second_image", "first_preferred"]
    table = pd.DataFrame(rows, columns=[*columns, "difference", "probability_first"]).assign(selected=float("nan"))
    table.to_csv(Folders(root).preferences_held_out, index=False)
    paper.main(["--root", str(root)])
    found = read_check(root)
    assert Counter(found["verdict"]) == EXPECTED | {"not in the paper": 9}
    row = found.iloc[-1]
    assert (row["claim"], row["verdict"]) == ("FAU-Net, 2 pairs, order-balanced, %", "not in the paper")
    assert row["released"] == row["paper mode"] and row["released"].startswith("50.00 [")


def test_totals_of_the_papers_tables():
    assert sum(images for _, images in paper.TABLE_S1.values()) == 2827
    assert sum(sessions for sessions, _ in paper.TABLE_S1.values()) == 288 + 288
    assert sum(paper.RATING_COUNTS) == 2203


@pytest.mark.parametrize(
    ("ours", "reasons", "verdict"),
    [
        (("1", "1"), {}, "agrees"),
        (("1", "2"), {}, "FAILS"),
        (("1", "2"), {"paper_mode_differs": "why"}, "agrees as released"),
        (("2", "1"), {"paper_mode_differs": "why"}, "FAILS"),
        (("2", "2"), {"paper_mode_differs": "why"}, "FAILS"),
        (("2", "2"), {"disagrees": "why"}, "disagrees"),
    ],
)
def test_a_claim_fails_unless_a_reason_is_known(ours, reasons, verdict):
    """Every verdict, from claims made for the purpose."""
    released, in_paper_mode = ([paper.Claim("0", "a number", "1", each, **reasons)] for each in ours)
    assert paper.check(released, in_paper_mode)["verdict"].iloc[0] == verdict


def test_intervals_that_few_people_leave_without_pairs(tiny, capsys):
    """In words: one model has no selected pair, another only of 101, who is not in the only resample of this seed."""
    none, one = (results.counts(f"AUcomb_selected_{model}") for model in ("PickScore", "CLIP_score"))
    for options in (["--mode", "released"], ["--strict-lopo"]):
        tiny.run("image_preference_binary_classification_based_on_ranking", *options)
    for mode in accuracy_intervals.MODES.values():
        path = Folders(tiny.root).preference_results(*mode)
        edit(path, lambda table: table.assign(**{name: 0 for name in none}, **{name: [2, 0, 0] for name in one}))
    accuracy_intervals.main(["--root", str(tiny.root), "--resamples", "1", "--seed", "2"])
    said = capsys.readouterr().out
    assert re.search(r"\nPickScore, selected( +no pairs){3}\n", said)
    assert re.search(r"\nAUcomb - PickScore, selected( +no pairs){3}\n", said)
    assert re.search(r"\nCLIP, selected( +50\.00 \(no interval\)){3}\n", said)
    assert re.search(r"\nPickScore, all( +\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]){3}\n", said)
