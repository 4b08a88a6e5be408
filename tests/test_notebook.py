"""result_analysis.ipynb: clean in the repository, and runs from top to bottom on small, drawn and published data."""

import importlib
import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import STAGES
from PIL import Image
from test_examples import write_data

import config
from fergi import accuracy_intervals, paper, section_6_1
from fergi.dataset import Folders
from fergi.features import ACTION_UNITS, SETTINGS_FILE
from fergi.files import FergiError, write_table
from fergi.held_out import as_predictions
from fergi.preference.model import held_out
from fergi.preference.reading import included_sessions, read_ranked_reactions
from fergi.script import CHECKOUT

NOTEBOOK = CHECKOUT / "result_analysis.ipynb"
FIGURES = ("figure_3", "figure_4", "participants", "accuracy", "selection_curve", "search_objective")
FIGURES += ("order_of_showing",)


def execute(root, output):
    """Run the notebook on a root, headless, as the reader would: its exit status and what it says at the end."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK.name]
    environment = os.environ | {"FERGI_ROOT": str(root), "IPYTHONDIR": str(output / "ipython")}
    options = {"cwd": NOTEBOOK.parent, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--output-dir", str(output)], check=False, **options)
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)


def outputs(root, folder):
    """All that the cells of the notebook give, by cell id: a list of kind of content → content."""
    status, said = execute(root, folder)
    assert status == 0, said
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [output for cell in code for output in cell.outputs if "data" not in output]  # nothing printed
    return {cell.id: [output["data"] for output in cell.outputs] for cell in code if cell.outputs}


def text(shown, *cells):
    """All text that some cells showed, or all of them."""
    given = [each for cell in cells or shown for each in shown[cell]]
    return " ".join(content for each in given for kind, content in each.items() if kind.startswith("text/"))


def rows(data):
    """The rows of a table that was shown, each as the words in its cells."""
    return [re.findall(r">([^<>\n]+)</t[hd]>", row) for row in data["text/html"].split("</tr>")[:-1]]


def check_figures(root, shown, names=FIGURES):
    """Every figure is shown and there in both forms, and nothing else is; none is blank."""
    assert len(re.findall('<img width="900" alt="[^"]{40}', text(shown))) == len(names)
    written = {path.name: path.read_bytes()[:4] for path in (root / "figures").iterdir()}
    expected = {f"{name}.pdf": b"%PDF" for name in names} | {f"{name}.png": b"\x89PNG" for name in names}
    assert written == expected
    for name in names:
        picture = np.asarray(Image.open(root / "figures" / f"{name}.png").convert("L"))
        assert (picture < 128).mean() > 0.001, f"{name} is blank"


def stamped(root, name):
    """Whether a figure has the label of synthetic data at its top right."""
    corner = np.asarray(Image.open(root / "figures" / f"{name}.png").convert("RGB")).astype(int)[:56, 700:]
    return bool((corner == (255, 241, 220)).all(axis=2).sum() > 1000)


def write_held_out(root, models):
    """What ``annotate_preferences.py --held-out`` writes, of some models only: FAU-Net takes half a minute."""
    included, _ = included_sessions(Folders(root), everybody=False)
    reactions = read_ranked_reactions(Folders(root), included, ACTION_UNITS, "the test")
    pairs = {name: held_out(name, reactions, config.VALENCE_MODELS[name]).pairs for name in models}
    table = pd.concat([as_predictions(name, each) for name, each in pairs.items()])
    write_table(table, Folders(root).preferences_held_out)


def run_stages(root, *stages, options=()):
    for stage in stages:
        importlib.import_module(stage).main(["--root", str(root), *options])


def write_results(root):
    """Stage 9 in all its modes, and what is computed from it."""
    for options in ([], ["--mode", "released"], ["--strict-lopo"]):
        run_stages(root, STAGES[-1], options=options)
    section_6_1.main(["--root", str(root)])
    accuracy_intervals.main(["--root", str(root), "--resamples", "50"])


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    """Five people whose faces never move, the last one excluded; nothing is left of data/."""
    root = tmp_path_factory.mktemp("small") / "root"
    people = {f"00{number}": [1, 2, 3] for number in range(1, 6)}
    folders = write_data(root, people, n_images=5, silent=people)
    run_stages(root, *STAGES[:2])
    shutil.rmtree(folders.data)
    folders.excluded_participants.write_text('["005"]')
    write_results(root)
    pd.DataFrame(
        [
            ("Table 1", "CLIP, selected pairs, %", "58.25", "50.00", "51.00", "agrees", ""),
            ("Table 2", "AUcomb, all pairs, %", "58.23", "50.00", "51.00", "disagrees", "These are drawn numbers."),
            ("5", "per-frame features from the videos", "", "", "", "not checkable", "Needs the videos."),
        ],
        columns=["section", "claim", "paper", "released", "paper mode", "verdict", "reason"],
    ).to_csv(folders.paper_check, index=False)
    return root


def test_notebook_is_stored_without_results():
    """No outputs, no counts, the usual kernel, an id for every cell, and no cell too long to read."""
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert max(cell.source.count("\n") for cell in code) < 36
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert all(section in prose for section in ("## 1.", "## 2.", "## 3.", "## 4.", "## 5.", "Figures 5 and 6"))


def test_notebook_and_report_on_a_small_data_set(small_root, tmp_path):
    """Every cell runs, every figure is written and shown, the tables are those of the files; the report has no code."""
    shown = outputs(small_root, tmp_path)
    check_figures(small_root, shown)
    counts = rows(shown["counts"][0])
    assert ["all", "15", "75", "75", "75", "120"] in counts  # 4 people x 3 sessions x 10 pairs
    assert ["005", "3", "15", "15", "15", "0", "yes"] in counts
    assert any(row[-4:-1] == ["58.25", "50.00", "51.00"] for row in rows(shown["tables-1-2"][0]))
    assert "These are drawn numbers." in text(shown, "disagreements")
    assert ["five-image rankings equal to the order of showing"] == rows(shown["order-counts"][0])[-1][:1]
    assert "annotate_preferences.py --held-out` was not run" in text(shown, "held-out-summary")
    assert "Needs the videos." in text(shown, "not-checkable")
    assert "videos and prompts and images are not public" in text(shown, "figure-5")
    assert "figure-6" not in shown
    assert "0.0" not in text(shown, "rating-table") and "–" in text(shown, "rating-table")  # nothing to correlate
    assert "ynthetic" not in text(shown)
    assert not any(stamped(small_root, name) for name in FIGURES)

    command = next(line for line in (CHECKOUT / "Makefile").read_text().splitlines() if "nbconvert" in line)
    command = command.replace("$(BIN)/jupyter", f"{sys.executable} -m jupyter").replace("$$", "$")
    command = command.replace("--execute ", "").replace(NOTEBOOK.name, str(tmp_path / NOTEBOOK.name))  # done above
    subprocess.run(command, shell=True, env=os.environ | {"FERGI_ROOT": str(tmp_path)}, check=True)
    page = (tmp_path / "results" / "result_analysis.html").read_text()
    assert page.count('src="data:image/png') == len(FIGURES) and "These are drawn numbers." in page
    assert "read_valid_sessions" not in page and "In&nbsp;[" not in page


def test_notebook_on_synthetic_data(tmp_path):
    """The page and every figure say so; examples from the videos; nothing of the paper, not even an old check."""
    root = tmp_path / "root"
    people = {"001": [1, 2], "002": [1], "003": [2, 4], "004": [1, 2]}
    folders = write_data(root, people, n_images=4, silent=["002"])
    run_stages(root, *STAGES[:3])
    folders.synthetic_truth.write_text("{}")
    write_results(root)
    folders.paper_check.write_text("an old check")
    planted = ("AU12 of each frame", "1", "0.97", "0.90", "recovered")
    columns = ["quantity", "planted", "recovered", "required", "verdict"]
    pd.DataFrame([planted], columns=columns).to_csv(folders.results / "planted_recovered.csv", index=False)
    write_held_out(root, ("aucomb", "linear"))
    strongest = sorted(set(people) - {"002"})[0]
    (folders.data / strongest / "consent.json").write_text('{"sharing": false, "withdrawn": false}')
    shown = outputs(root, tmp_path)
    names = (*FIGURES, "held_out", "figure_5", "figure_6")
    check_figures(root, shown, names)
    assert all(stamped(root, name) for name in names)
    label, note = shown["synthetic"]
    assert "position: fixed" in label["text/html"] and "synthetic data: drawn faces" in label["text/html"]
    assert "speaks of real faces" in note["text/markdown"].replace("\n", " ")
    assert "ranked last" in text(shown, "figure-5") and "ranked first" in text(shown, "figure-6")
    assert ["all", "7", "28", "28", "28", "42"] in rows(shown["counts"][0])
    no_values, table = shown["tables-1-2"]
    assert "not the published data" in no_values["text/markdown"]
    assert rows(table)[0][-3:] == ["released", "paper mode", "strict"]
    found = [row[-4:] for row in rows(table) if len(row) >= 4]
    intervals = pd.read_csv(folders.accuracy_intervals)
    estimates = intervals[intervals["kind"] == "accuracy"].pivot(index="figure", columns="mode", values="estimate")
    expected = estimates[["released", "paper", "strict"]].map("{:.2f}".format).replace("nan", "no pairs")
    assert len(found) == 8 + 12
    assert [row[1:] for row in found] == expected.loc[[row[0] for row in found]].to_numpy().tolist()
    assert [row[0] for row in found] == list(dict.fromkeys(intervals["figure"]))[: len(found)]
    assert len({tuple(row[1:]) for row in found}) > 3
    agreement = ["CLIP", "Aesthetic", "BLIP", "ImageReward", "PickScore", "HPS V2", "overall rating", "pairs correct"]
    assert rows(shown["agreement"][0])[0] == agreement
    assert "not the published data" in text(shown, "verdicts") and len(shown["verdicts"]) == 1
    assert not {"disagreements", "not-checkable"} & set(shown)
    assert "–" in text(shown, "emotion-table")  # nobody was scared
    heading, result = shown["planted"]
    assert "What was planted, and what came back" in heading["text/markdown"]
    assert list(planted) in rows(result)


def test_notebook_with_an_estimator_of_some_aus(tmp_path):
    """AUs that an estimator does not give are dashes in tables; every figure and table of the others is there."""
    root = tmp_path / "root"
    folders = write_data(root, {"001": [1, 2], "002": [1, 3], "003": [2, 4]}, n_images=4)
    missing = ["5", "6", "9", "15", "17"]
    for path in folders.data.rglob("*_features.csv"):
        features = pd.read_csv(path, dtype=str)
        write_table(features.assign(**{f"AU{unit}": "" for unit in missing}), path)
        (path.parent / SETTINGS_FILE).write_text('{"estimator": "blendshapes", "estimator_version": "1"}')
    run_stages(root, *STAGES[:3])
    write_results(root)
    shown = outputs(root, tmp_path)
    check_figures(root, shown, (*FIGURES, "figure_5", "figure_6"))
    ratings = {row[0]: row[1:] for row in rows(shown["rating-table"][0]) if row[0].isdigit()}
    assert len(ratings) == len(ACTION_UNITS)
    assert [unit for unit, values in ratings.items() if "–" in values] == missing
    assert "nan" not in text(shown, "rating-table", "emotion-table")


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("results/accuracy_intervals.csv", "1 of 1 table of intervals .*Run python -m fergi.accuracy_intervals first"),
        ("preparation/preprocessed_baseline_data/003.csv", "1 of 5 participants has no table in .*003.csv"),
    ],
)
def test_notebook_stops_where_a_stage_is_missing(small_root, tmp_path, missing, sentence):
    """One clear sentence at the end, an exit status that is not 0, and no figure."""
    root = tmp_path / "root"
    shutil.copytree(small_root, root, ignore=shutil.ignore_patterns("figures"))
    (root / missing).unlink()
    status, said = execute(root, tmp_path)
    assert status != 0
    assert re.search(f"FergiError: {sentence}", said)
    assert list((root / "figures").iterdir()) == []


def test_notebook_runs_on_the_published_data(published, tmp_path):
    """The printed values of Tables 1 and 2 beside ours, with no gap, and the totals that the paper gives."""
    root = tmp_path / "root"
    shutil.copytree(published / "preparation", root / "preparation")
    write_results(root)
    for kind in ("baseline", "reaction"):
        name = f"preprocessed_{kind}_data"
        shutil.copytree(published / "preparation" / name, root / "results/published" / name)
    shutil.copy(published / "expected" / f"{STAGES[-1]}.csv", root / "results/published")
    try:
        paper.main(["--root", str(root)])
    except FergiError:
        pass  # a claim that fails is the matter of another test; the table is written first
    write_held_out(root, ("aucomb", "linear"))
    shown = outputs(root, tmp_path)
    check_figures(root, shown, (*FIGURES, "held_out"))
    assert ["earlier image of a pair preferred, %", "59.8 [57.1, 62.7]"] in rows(shown["order-counts"][0])
    assert ["AUcomb, all", "58.55", "59.77", "56.72"] in [row[:4] for row in rows(shown["order-table"][0])]
    expected = {row[0]: row[1:] for row in rows(shown["held-out-summary"][0]) if row}
    assert expected["at its thresholds"] == ["72.70 [67.62, 77.46] of 685", "–"]
    assert expected["accuracy"][0].startswith("58.55 [") and expected["accuracy"][1].startswith("59.7")
    coverage, bins = (rows(table) for table in shown["held-out-tables"])
    assert [row[0] for row in coverage[1:]][::7] == ["100 % of pairs", "5 % of pairs"] and len(bins) == 1 + 7
    assert ["all", "576", "2827", "2044", "2217", "3534"] in rows(shown["counts"][0])
    table = {row[-5]: row[-4:] for row in rows(shown["tables-1-2"][0]) if len(row) >= 5}
    assert len(table) == 8 + 8 + 4
    assert table["AUcomb, selected"] == ["72.70"] * 4
    assert table["ensemble with AUs, all"] == ["67.49", "67.49", "68.28", "68.08"]  # strict: 2406 of 3534
    assert not any("nan" in row for row in table.values())
    assert "ynthetic" not in text(shown)
