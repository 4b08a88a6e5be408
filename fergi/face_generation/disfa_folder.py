"""Synthesised faces on disk, in DISFA's layout (see ``fergi.action_units.disfa``), marked as synthetic.

Images_LeftCamera/SYN0001/<frame>.png               with text chunks: synthetic, and what it was made with
ActionUnit_Labels/SYN0001/SYN0001_au<n>.txt         "frame,intensity", rounded to 0–5, where an intensity was asked for
synthesised.csv     image, what was asked for (intensities as they were), seed
settings.json       what all were made with

If the generator makes aligned faces, the folder is also one of aligned faces (see ``faces_dataset``), which the AU
model is trained on as it is:
aligned/SYN0001/<frame>.png    the same at 112 × 112 pixels
index.csv           as stage 1 writes it, with the columns caption, expression and synthetic
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fergi.action_units.disfa import NOT_LABELLED
from fergi.action_units.faces_dataset import INDEX, LABEL_COLUMNS, SETTINGS
from fergi.action_units.network import SIDE
from fergi.features import ACTION_UNITS
from fergi.files import check_writable, keep_settings, replacing, write_table

TABLE, PART = "synthesised.csv", "LeftCamera"
MARK = "Synthetic: made by an image generator, nobody's photograph"


class DisfaFolder:
    """The folder of some pictures, with their settings.

    Parameters
    ----------
    folder : Path
        Where it is.
    pictures : DataFrame
        Of ``requests.each_picture``, and any further columns.
    settings : dict
        Of all pictures, flat.
    alignment : dict or None
        How the aligned faces that these are like were made; None if they are no aligned faces.

    Raises
    ------
    FergiError
        If nothing can be written there, or there are pictures of other settings.
    """

    def __init__(
        self, folder: Path, pictures: pd.DataFrame, settings: dict[str, Any], alignment: dict[str, Any] | None
    ) -> None:
        self.folder, self.pictures, self.settings, self.aligned = folder, pictures, settings, alignment is not None
        places = list(zip(pictures["subject"], pictures["frame"], strict=True))
        self.images = [f"Images_{PART}/{subject}/{frame}.png" for subject, frame in places]
        self.small = [f"aligned/{subject}/{frame}.png" for subject, frame in places] if self.aligned else []
        check_writable(folder, "--out")
        keep_settings(settings | (alignment or {}), folder / SETTINGS, "Choose another --out.")

    @property
    def advice(self) -> str:
        """How the AU model is trained on them."""
        align = f"python preprocess_DISFA.py --disfa {self.folder} --cameras Left --out DIR"
        train = f"python DISFAwithPlus_train_model.py --more {self.folder if self.aligned else 'DIR'}"
        return f"Train on them with: {train}" if self.aligned else f"Train on them with: {align}; {train}"

    def missing(self) -> np.ndarray:
        """Which pictures are not there, shape (n,), bool."""
        missing = np.array([not (self.folder / image).is_file() for image in self.images])
        return missing | [not (self.folder / image).is_file() for image in self.small] if self.aligned else missing

    def write_picture(self, row: int, pixels: np.ndarray) -> None:
        """Write the picture of a row, RGB, uint8, shape (height, width, 3); all or nothing, FergiError if not."""
        picture, info = Image.fromarray(pixels), PngInfo()
        asked = json.loads(self.pictures.iloc[row].to_json())
        info.add_text("Title", "Synthetic face")
        info.add_text("Comment", MARK)
        info.add_itxt("fergi", json.dumps({"synthetic": True} | asked | self.settings, ensure_ascii=False))
        if self.aligned:
            with replacing(self.folder / self.small[row]) as file:
                picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG", pnginfo=info)
        with replacing(self.folder / self.images[row]) as file:
            picture.save(file, "PNG", pnginfo=info)

    def write_labels(self) -> None:
        """Write labels and tables, once all pictures are there."""
        asked = self.pictures[list(LABEL_COLUMNS)].to_numpy(float)
        labels = np.where(np.isnan(asked), NOT_LABELLED, np.floor(asked + 0.5)).astype(int)  # 2.5 becomes 3
        for subject, rows in self.pictures.groupby("subject").indices.items():
            for unit, column in zip(ACTION_UNITS, labels[rows].T, strict=True):
                frames = self.pictures["frame"].to_numpy()[rows]
                lines = [f"{n},{label}\n" for n, label in zip(frames, column, strict=True) if label != NOT_LABELLED]
                with replacing(self.folder / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt") as file:
                    file.write("".join(lines).encode())
        whole = self.pictures.assign(synthetic=True)
        if self.aligned:
            head = {"image": self.small, "subject": whole["subject"], "part": PART, "frame": whole["frame"]}
            last = {"caption": whole["prompt"], "expression": whole["expression"], "synthetic": True}
            columns = dict(zip(LABEL_COLUMNS, labels.T, strict=True))
            write_table(pd.DataFrame(head | columns | last), self.folder / INDEX)
        whole.insert(0, "image", self.images)
        write_table(whole, self.folder / TABLE)
