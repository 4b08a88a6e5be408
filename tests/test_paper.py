"""The check against the paper: it confirms what holds and fails on what does not."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from fergi import paper
from fergi.dataset import Folders
from fergi.files import FergiError
from fergi.published import fetch, read_entries

BOOTSTRAP = ["--resamples", "200"]


@pytest.fixture(scope="module")
def checked(published, published_root, tmp_path_factory) -> tuple[Path, int]:
    """A root on which everything was run, the check last; what the check returned."""
    root = tmp_path_factory.mktemp("checked")
    fetch(root, entries=read_entries(), copy=published)
    for name in ("preparation", "results"):
        shutil.copytree(published_root / name, root / name, dirs_exist_ok=True)
    return root, paper.main(["--root", str(root), *BOOTSTRAP])


@pytest.fixture
def root(checked, tmp_path) -> Path:
    """A copy of its small folders, to change."""
    for name in ("preparation", "results"):
        shutil.copytree(checked[0] / name, tmp_path / name)
    return tmp_path


def read_check(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "results" / "paper_check.csv", keep_default_na=False)


def test_every_claim_holds_but_the_two_that_are_known_not_to(checked):
    root, code = checked
    table = read_check(root)
    assert code == 0
    assert Counter(table["verdict"]) == {"agrees": 74, "agrees as released": 7, "disagrees": 2, "not checkable": 10}
    known = table[table["verdict"] == "disagrees"]
    assert list(known["claim"]) == ["disgusted, AU4: z", "amused, AU25: z"]
    assert known["reason"].str.len().min() > 20
    in_paper_mode = table[table["verdict"] == "agrees as released"]
    assert set(in_paper_mode["section"]) == {"Table 2", "6.2.5", "release"}


def test_the_misprinted_bound_contradicts_its_own_z():
    """amused, AU25: the two-sided p of z = 3.85 under the normal distribution, from a table of it, is 1.18e-4."""
    from scipy.stats import norm

    assert 2 * norm.sf(3.85) == pytest.approx(1.18e-4, rel=5e-3)


def test_intervals_contain_their_estimates_and_cover_all_modes(checked):
    intervals = pd.read_csv(checked[0] / "results" / "accuracy_intervals.csv")
    assert (intervals["lower"] <= intervals["estimate"]).all() and (intervals["estimate"] <= intervals["upper"]).all()
    assert Counter(intervals["mode"]) == dict.fromkeys(("released", "paper", "strict"), 8 + 8 + 4 + 7 + 7 + 4)
    row = intervals.query("mode == 'released' and figure == 'AUcomb - ensemble, selected'").iloc[0]
    assert row["estimate"] == pytest.approx(100 * (498 - 456) / 685)
    assert row["lower"] < 0 < row["upper"]


def test_section_6_1_is_written_in_both_modes(checked):
    for name in ("overall_rating_correlations", "emotion_rank_sums"):
        released, ours = (pd.read_csv(checked[0] / "results" / f"{name}{end}.csv") for end in ("_released", ""))
        assert list(released["AU"]) == list(ours["AU"]) == [1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26]
        assert 0 < (released - ours).abs().max(axis=None) < 0.01


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
        path = Folders(root).preference_results(mode)
        results = pd.read_csv(path, dtype={"user_id": str})
        results[column] = results[column] + 1
        results.to_csv(path, index=False)
    with pytest.raises(FergiError, match=r"\d of 93 claims that should hold do not \(first: "):
        paper.main(["--root", str(root), *BOOTSTRAP])
    table = read_check(root)
    assert set(table.loc[table["verdict"] == "FAILS", "claim"]) == failing | {
        "figures of the results table as published"
    }
    assert "FAILS" in capsys.readouterr().out


def test_a_changed_activation_value_is_noticed(root):
    path = Folders(root).activation_tables("baseline") / "001.csv"
    table = pd.read_csv(path)
    table.loc[0, "AU26_activation_value"] += 1e-15
    table.to_csv(path, index=False)
    with pytest.raises(FergiError, match=r"1 of 93 claims .*activation values as published: 51131 instead of 51132"):
        paper.main(["--root", str(root), *BOOTSTRAP])


def test_a_participant_short_of_an_image_is_named(root):
    path = Folders(root).image_tables / "039.csv"
    lines = path.read_text().splitlines()
    reacted = pd.read_csv(Folders(root).activation_tables("reaction") / "039.csv")[["session_index", "image_index"]]
    kept = {f"{session},{image}," for session, image in reacted.to_numpy()}
    without = next(index for index, line in enumerate(lines[1:], 1) if not any(line.startswith(key) for key in kept))
    path.write_text("\n".join(lines[:without] + lines[without + 1 :]) + "\n")
    with pytest.raises(FergiError):
        paper.main(["--root", str(root), *BOOTSTRAP])
    row = read_check(root).set_index("claim").loc["valid images of each participant"]
    assert row["released"] == "32 of 33 as printed (first other: 039)"
    assert row["verdict"] == "FAILS"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("results/image_preference_binary_classification_based_on_ranking_released.csv", "--mode released first"),
        ("results/image_preference_binary_classification_based_on_ranking_strict.csv", "--strict-lopo first"),
        ("results/published/preprocessed_baseline_data/017.csv", "1 of 33 .*017.csv.*fergi.published"),
        ("preparation/preprocessed_reaction_data/017.csv", "1 of 33 .*017.csv.*preprocess_reaction_data.py"),
        ("preparation/AU4_excluded_participants.json", "filter_participants_based_on_AU4.py"),
        ("preparation/preprocessed_image_data/040.csv", "1 of 33 .*040.csv"),
    ],
)
def test_a_missing_file_is_named_with_what_makes_it(root, missing, message):
    (root / missing).unlink()
    before = (root / "results" / "paper_check.csv").read_bytes()
    with pytest.raises(FergiError, match=message):
        paper.main(["--root", str(root), *BOOTSTRAP])
    assert (root / "results" / "paper_check.csv").read_bytes() == before


def test_results_of_other_people_are_not_compared(root):
    """Left over from before stage 8 was changed, or cut off; in every mode, with and without the check."""
    before = {path: path.read_bytes() for path in sorted((root / "results").glob("*.csv"))}
    for mode, strict in (("released", False), ("paper", False), ("paper", True)):
        path = Folders(root).preference_results(mode, strict)
        path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
        for options in ([], ["--without-check"]):
            with pytest.raises(FergiError, match=rf"{path.name} has .* 26 are only in one .*first: 008"):
                paper.main(["--root", str(root), *BOOTSTRAP, *options])
        path.write_bytes(before[path])
    excluded = Folders(root).excluded_participants
    excluded.write_text('["001", "004", "039"]')
    with pytest.raises(FergiError, match=r"2 are only in one of them \(first: 001\)"):
        paper.main(["--root", str(root), *BOOTSTRAP])
    assert {path: path.read_bytes() for path in sorted((root / "results").glob("*.csv"))} == before


def test_results_without_a_column(root):
    """One that a claim needs."""
    path = Folders(root).preference_results("paper")
    pd.read_csv(path, dtype={"user_id": str}).drop(columns="AUcomb_selected_PickScore_n_incorrect").to_csv(
        path, index=False
    )
    with pytest.raises(FergiError, match=r"AUcomb_selected_PickScore_n_incorrect.*on_ranking\.py first"):
        paper.main(["--root", str(root), *BOOTSTRAP])


@pytest.mark.parametrize("options", [["--resamples", "0"], ["--seed", "-1"]])
def test_impossible_numbers(tmp_path, options, capsys):
    with pytest.raises(SystemExit):
        paper.main(["--root", str(tmp_path), *options])
    assert "--resamples must be at least 1" in capsys.readouterr().err


def test_a_mistyped_root_stays_as_it_is(tmp_path):
    with pytest.raises(FergiError, match=r"valid_sessions\.json"):
        paper.main(["--root", str(tmp_path / "nowhere")])
    assert not list(tmp_path.iterdir())


def test_values_read_as_printed():
    """Rounding to the printed decimals, worked by hand."""
    assert paper._prints_as("0.10")(0.0999) and paper._prints_as("0.10")(0.1049)
    assert not paper._prints_as("0.10")(0.0949) and not paper._prints_as("0.10")(0.1051)
    assert paper._prints_as("-4.25")(-4.2532)
    assert not paper._prints_as("7.00")(7.0051)
    holds = paper._test_holds("0.09", 5e-5)
    assert holds((0.0875, 3.9e-5))
    assert not holds((0.0875, 5e-5)) and not holds((0.0849, 3.9e-5))


def test_claims_are_distinct_and_their_values_are_the_papers():
    listed = paper.claims()
    assert len({(claim.section, claim.what) for claim in listed}) == len(listed)
    assert sum(images for _, images in paper.TABLE_S1.values()) == 2827
    assert sum(sessions for sessions, _ in paper.TABLE_S1.values()) == 288 + 288
    assert sum(paper.RATING_COUNTS) == 2203


def test_a_claim_fails_unless_a_reason_is_known():
    """Every verdict, from claims made for the purpose."""
    values = {"released": 1, "paper": 2}

    def verdict(**reasons: str) -> str:
        claim = paper.Claim("0", "a number", "1", lambda m: m, reasons.pop("holds"), **reasons)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paper, "claims", lambda: [claim])
            return paper.check(values)["verdict"].iloc[0]

    assert verdict(holds=lambda value: value > 0) == "agrees"
    assert verdict(holds=lambda value: value == 1) == "FAILS"
    assert verdict(holds=lambda value: value == 1, paper_mode_differs="why") == "agrees as released"
    assert verdict(holds=lambda value: value == 2, paper_mode_differs="why") == "FAILS"
    assert verdict(holds=lambda value: value == 3, paper_mode_differs="why") == "FAILS"
    assert verdict(holds=lambda value: value == 3, disagrees="why") == "disagrees"


def test_the_report_fits_a_wide_terminal(checked):
    text = paper.report(read_check(checked[0]))
    table, notes = text.split("\n\n", 1)
    assert max(map(len, table.splitlines())) <= 150
    assert notes.startswith("[1] ")
    assert text.endswith("74 agrees, 10 not checkable, 7 agrees as released, 2 disagrees.")


WRITTEN = (
    "accuracy_intervals.csv",
    *(f"{name}{end}.csv" for name in ("overall_rating_correlations", "emotion_rank_sums") for end in ("", "_released")),
)


def test_without_the_check_the_same_tables_are_written_and_an_earlier_check_goes(root, capsys):
    """Nothing of the release is needed; the tables are those of a run with the check, to the last byte."""
    results = root / "results"
    with_check = {name: (results / name).read_bytes() for name in WRITTEN}
    for name in WRITTEN:
        (results / name).unlink()
    shutil.rmtree(results / "published")
    assert paper.main(["--root", str(root), "--without-check", *BOOTSTRAP]) == 0
    assert {name: (results / name).read_bytes() for name in WRITTEN} == with_check
    assert not (results / "paper_check.csv").exists()
    said = capsys.readouterr().out
    assert "Nothing was compared with the paper." in said and "agrees" not in said
    assert re.search(r"AUcomb, selected +72\.70 \[\d\d\.\d\d, \d\d\.\d\d\]", said)


def test_synthetic_data_are_not_compared_with_the_paper(root):
    """One sentence that names the option, before anything is read or written."""
    Folders(root).data.mkdir()
    Folders(root).synthetic_truth.write_text("{}")
    before = (root / "results" / "paper_check.csv").read_bytes()
    with pytest.raises(FergiError, match=r"data/synthetic\.json says that .* --without-check$"):
        paper.main(["--root", str(root), *BOOTSTRAP])
    assert (root / "results" / "paper_check.csv").read_bytes() == before
    assert paper.main(["--root", str(root), "--without-check", *BOOTSTRAP]) == 0


def test_intervals_that_few_people_leave_without_pairs():
    """As a reader understands it, and not as a computer says it."""
    row = pd.Series({"estimate": 50.0, "lower": 40.0, "upper": 61.234})
    nothing = float("nan")
    assert paper._show_interval(row) == "50.00 [40.00, 61.23]"
    assert paper._show_interval(row.replace({40.0: nothing, 61.234: nothing})) == "50.00 (no interval)"
    assert paper._show_interval(row * nothing) == "no pairs"
