"""Feature files from the tables of other tools: OpenFace 2.2 and 3.0, py-feat 2, LibreFace 0.2.

Reads   CSV tables that the tool wrote, one a video; of a folder all below it
Writes  DIR/<name of the table>_features.csv    under the same subfolders
        DIR/settings.json                       the estimator
Run     python import_features.py --from openface openface_tables --out my_features
        python import_features.py --from py-feat smile.csv --fps 30 --out my_features
Takes   about 50 ms a table of five seconds; LibreFace's landmarks five seconds more

AUs that the tool does not give stay empty. docs/estimators.md says what the tools' columns become. With --out data, and
tables in folders <participant>/session_<n> named reaction_clip_<i>.csv, stages 6 to 9 follow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import config
from fergi.features import COLUMNS, SETTINGS_FILE, ClipFeatures, format_clip, require_known_estimator, valid_frames
from fergi.files import FergiError, check_writable, keep_settings, replacing, summarise
from fergi.imports import MAP_VERSION, TOOLS, Clip, Options, Table, Tool, clip, tool_of
from fergi.script import argument_parser, run

DECIMALS = 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""

    def rate(text: str) -> float:
        value = float(text)
        if not 1 <= value <= 1000:
            hint = f"; it looks like the seconds of a frame, {1 / value:.4g} a second" if 0 < value < 1 else ""
            raise argparse.ArgumentTypeError(f"--fps counts frames a second, and {text} is none{hint}")
        return value

    def size(text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise argparse.ArgumentTypeError(f"--picture is width and height in pixels, like 640x480, not {text}")
        return int(width), int(height)

    parser = argument_parser(__doc__)
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE", help="a CSV table, or a folder of them")
    parser.add_argument("--from", dest="tool", choices=TOOLS, required=True, help="the tool that wrote them")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where the feature files go")
    parser.add_argument(
        "--fps", type=rate, metavar="N", help="frames a second of the videos, if the tables have no times"
    )
    parser.add_argument("--face", metavar="RULE", help="of several faces: largest, first, or the name of one")
    parser.add_argument("--picture", type=size, metavar="WxH", help="size of the videos in pixels (LibreFace)")
    parser.add_argument("--tool-version", metavar="TEXT", help="if it is not the one in docs/estimators.md")
    return parser.parse_args(arguments)


def find_tables(tables: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Each table and its feature file.

    Raises
    ------
    FergiError
        If a folder has no table, or two tables would have the same feature file.
    """
    outputs: dict[Path, Path] = {}
    for given in tables:
        below = (path for path in sorted(given.rglob("*.csv")) if not path.stem.endswith("_features"))
        inside = list(below) if given.is_dir() else [given]
        if not inside:
            raise FergiError(f"There is no CSV table in {given}. Name another folder.")
        top = given if given.is_dir() else given.parent
        outputs |= {path: out / path.relative_to(top).with_name(f"{path.stem}_features.csv") for path in inside}
    owners: dict[Path, Path] = {}
    for path, output in outputs.items():
        if owners.setdefault(output, path) != path:
            raise FergiError(f"{owners[output]} and {path} would both write {output}. Rename one of them.")
    return outputs


def read_clips(outputs: dict[Path, Path], chosen: argparse.Namespace) -> tuple[Tool, dict[Path, Clip]]:
    """The tool, and the content of each feature file.

    Raises
    ------
    FergiError
        If tables are unusable, or of several versions of the tool: how many, and the first one.
    """
    options, clips, problems, tools = Options(chosen.fps, chosen.face, chosen.picture), {}, [], {}
    for path, output in outputs.items():
        try:
            table = Table.read(path)
            tool = tool_of(chosen.tool, table)
            clips[output] = clip(table, tool, options)
            tools.setdefault(tool.estimator, (path, tool))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        advice = (
            "Name the right tool with --from, a face with --face, a frame rate with --fps, or make the tables again."
        )
        raise summarise(problems, len(outputs), "tables", advice)
    if len(tools) > 1:
        named = ", ".join(f"{name} (first: {path})" for name, (path, _) in tools.items())
        raise FergiError(
            f"The tables come from {len(tools)} estimators: {named}. Import them into folders of their own."
        )
    return next(iter(tools.values()))[1], clips


def main(arguments: Sequence[str] | None = None) -> None:
    """Read all tables, then write all feature files."""
    chosen = parse(arguments)
    outputs = find_tables(chosen.tables, chosen.out)
    tool, clips = read_clips(outputs, chosen)
    check_writable(chosen.out, "--out")
    require_known_estimator(chosen.out)
    settings = {
        "estimator": tool.estimator,
        "estimator_version": chosen.tool_version or tool.version,
        "map": MAP_VERSION,
        "ratios": " and ".join(sorted({each.ratios for each in clips.values()})),
    }
    keep_settings(settings, chosen.out / SETTINGS_FILE, "Choose another --out.")
    for output, each in clips.items():
        with replacing(output) as file:
            file.write(format_clip(each.times, each.values, DECIMALS))
    report(tool, clips, chosen.out)


def report(tool: Tool, clips: dict[Path, Clip], out: Path) -> None:
    """Print what became of the tables."""
    values = np.concatenate([each.values for each in clips.values()])
    frames = np.column_stack([np.zeros((len(values), 2)), values.round(DECIMALS)])
    n_valid = valid_frames(ClipFeatures(np.array([0, len(values)]), frames), config.FRAME_LIMITS).sum()
    without = (values[:, 0] == 0).sum()
    print(
        f"Wrote {len(clips)} feature files to {out}: {tool.estimator}, {len(values)} frames, {without} without a face."
    )
    print(f"{n_valid} frames are valid as in Section 5.1 (score, pitch and yaw ratio within their limits).")
    if any(each.ratios == "angles" for each in clips.values()):
        print(
            "Ratios come from angles, which tell valid frames badly; let the tool write landmarks (docs/estimators.md)."
        )
    with_face = values[values[:, 0] > 0, 3:]
    empty = [name for name, column in zip(COLUMNS[5:], with_face.T, strict=True) if np.isnan(column).all()]
    if len(with_face) and empty:
        print(f"{', '.join(empty)} are empty: {tool.estimator} does not give them.")


if __name__ == "__main__":
    run(main)
