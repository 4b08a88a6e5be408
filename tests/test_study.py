"""A study's file, prompts from the form, sources of images, and the check of a camera's picture."""

import asyncio
import base64
import contextlib
import http.server
import io
import json
import re
import shutil
import socket
import threading
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import CHECKOUT
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from small_generator import save_small_generator

import collect_sessions
from fergi.files import FergiError
from fergi.recording.images import Diffusers, Folder, Stopped, load_pipeline, open_source
from fergi.recording.images import Server as ImageServer
from fergi.recording.prompts import FormError, PromptServer, check_form, from_template, propose
from fergi.recording.study import DEFAULT_STUDY, read_study

EXAMPLE = CHECKOUT / "docs" / "study.yaml"
FORM = {
    "animate": [
        {"name": "cat", "quantity": 2, "activity": "", "characteristics": ["black", "fluffy"]},
        {"name": "old woman", "quantity": 1, "activity": "reading a book", "characteristics": []},
    ],
    "inanimate": [
        {"name": "armchair", "quantity": 1, "characteristics": ["empty"]},
        {"name": "berry", "quantity": 14, "characteristics": []},
        {"name": "box", "quantity": 3, "characteristics": ["small"]},
    ],
    "interactional": [{"first": "animate 1", "relation": "scratching", "second": "inanimate 1"}],
    "positional": [{"first": "inanimate 2", "relation": "inside", "second": "inanimate 3"}],
    "location": "in a living room",
    "style": "oil painting",
    "keywords": ["warm light", "detailed"],
}


# The study's file ---------------------------------------------------------------------------------------------------


def test_the_example_says_what_the_defaults_are():
    """Every key of the file is there, and those that may be left out have the default values."""
    study = read_study(EXAMPLE)
    assert set(yaml.safe_load(EXAMPLE.read_text())) == set(asdict(DEFAULT_STUDY))
    own = {"title": study.title, "version": study.version, "contact": study.contact, "consent": study.consent}
    assert replace(DEFAULT_STUDY, **own) == study
    assert (study.images_per_prompt, study.seconds) == (5, {"baseline": 5, "image": 5})  # Section 3.2.3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": ...}, "title is missing"),
        ({"consent": ...}, "consent is missing"),
        ({"consent": {"version": "1"}}, "consent.paragraphs is missing"),
        ({"consent": {"version": 1.0, "paragraphs": ["a"]}}, "consent.version must be a text, not 1.0"),
        ({"consent": {"version": "1", "paragraphs": "a"}}, "consent.paragraphs must be a list of texts"),
        ({"consent": {"version": "1", "paragraphs": []}}, "consent.paragraphs must be a list of texts, not []"),
        ({"colour": "red"}, "colour is not known here; there are title, version"),
        ({"seconds": {"baseline": 5, "image": 5, "pause": 1}}, "seconds.pause is not known"),
        ({"seconds": {"baseline": 5, "image": "5"}}, "seconds.image must be a number from 1 to 60, not '5'"),
        ({"seconds": {"baseline": 5, "image": float("nan")}}, "seconds.image must be a number from 1 to 60, not nan"),
        ({"seconds": 5}, "seconds must have keys with values, not be 5"),
        ({"images_per_prompt": 10}, "images_per_prompt must be a whole number from 2 to 9, not 10"),
        ({"images_per_prompt": 5.0}, "images_per_prompt must be a whole number from 2 to 9, not 5.0"),
        ({"images_per_prompt": True}, "images_per_prompt must be a whole number from 2 to 9, not True"),
        ({"sessions": {"structured": 0, "free": 0}}, "sessions must be at least one"),
        ({"shuffle_survey": "no"}, "shuffle_survey must be true or false, not 'no'"),
        ({"texts": {"consent_titel": "Hello"}}, "texts.consent_titel is not known"),
        ({"texts": {"consent_title": 5}}, "texts must be texts by key"),
        ({"title": " "}, "title must be a text, not ' '"),
    ],
)
@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_a_study_with_a_fault_is_refused_by_name(tmp_path, change, said, ending):
    """One sentence, with the file, the key and the value; YAML and JSON are the same."""
    content = {"title": "A", "version": "1", "contact": "B", "consent": {"version": "1", "paragraphs": ["C"]}}
    path = tmp_path / f"study{ending}"
    content = {key: value for key, value in (content | change).items() if value is not ...}
    path.write_text(json.dumps(content) if ending == ".json" else yaml.safe_dump(content))
    with pytest.raises(FergiError, match=re.escape(f"{path}: {said}")) as caught:
        read_study(path)
    assert "docs/sessions.md explains" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["title: a\ntitle: b\n", "title: [", "- a\n- b\n", "", "\0", "[" * 10_000])
def test_a_file_that_is_no_study_is_refused(tmp_path, text):
    """Also keys given twice."""
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(FergiError, match=r"neither YAML nor JSON|must have keys with values"):
        read_study(path)
    with pytest.raises(FergiError, match="Cannot read"):
        read_study(tmp_path / "none.yaml")


def test_kinds_take_turns_until_one_is_used_up():
    """Structured first."""
    study = replace(DEFAULT_STUDY, sessions={"structured": 1, "free": 3})
    assert [study.kind_of(n) for n in range(1, 6)] == ["structured", "free", "free", "free", None]
    study = replace(DEFAULT_STUDY, sessions={"structured": 2, "free": 0})
    assert [study.kind_of(n) for n in range(1, 4)] == ["structured", "structured", None]


# Prompts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {},
            "two black, fluffy cats scratching an empty armchair, 14 berries inside three small boxes and an old woman "
            "reading a book in a living room, oil painting, warm light, detailed",
        ),
        ({"location": "Paris", "style": "", "keywords": []}, "* reading a book, Paris"),
        ({"interactional": [], "positional": [], "inanimate": [], "animate": FORM["animate"][1:]}, "an old woman *"),
    ],
)
def test_the_template(change, expected):
    """Worked by hand: quantity, characteristics, relations, activity, location, style, keywords at the end."""
    text = from_template(check_form(FORM | change))
    assert re.fullmatch(re.escape(expected).replace(r"\*", ".*"), text), text


@pytest.mark.parametrize(
    ("path", "value", "field", "said"),
    [
        (["animate", 0, "name"], " ", "animate.1.name", "Give the object a name"),
        (["animate", 0, "quantity"], 0, "animate.1.quantity", "from 1 to 100"),
        (["inanimate", 2, "quantity"], "3", "inanimate.3.quantity", "from 1 to 100"),
        (["inanimate", 2, "quantity"], True, "inanimate.3.quantity", "from 1 to 100"),
        (["inanimate", 0, "activity"], "", "inanimate.1", "exactly name, quantity, characteristics"),
        (["animate", 0, "activity"], "sleeping", "interactional.1.first", "“cat” has an activity"),
        (["interactional", 0, "first"], "inanimate 1", "interactional.1.first", "must be an animate one"),
        (["interactional", 0, "second"], "animate 1", "interactional.1.second", "in a relation already"),
        (["interactional", 0, "second"], "animate 2", "interactional.1.second", "“old woman” has an activity"),
        (["positional", 0, "second"], "inanimate 1", "positional.1.second", "“armchair” is in a relation already"),
        (["positional", 0, "second"], "inanimate 4", "positional.1.second", "Choose one of the objects"),
        (["positional", 0, "second"], "inanimate 0", "positional.1.second", "Choose one of the objects"),
        (["positional", 0, "second"], "inanimate ²", "positional.1.second", "Choose one of the objects"),
        (["positional", 0, "second"], 3, "positional.1.second", "Choose one of the objects"),
        (["positional", 0, "relation"], "", "positional.1.relation", "Say what the relation is"),
        (["style"], "a\nb", "style", "one line of at most 200"),
        (["location"], "a" * 201, "location", "one line of at most 200"),
        (["keywords"], ["a"] * 11, "keywords", "a list of at most 10"),
        (["keywords"], ["a", None], "keywords.2", "one line of at most 200"),
        (["animate"], None, "animate", "a list of at most 10"),
        (["more"], 1, "form", "exactly animate, inanimate"),
    ],
)
def test_a_form_that_breaks_a_rule(path, value, field, said):
    """Appendix A.2.1; the field is named."""
    form = deepcopy(FORM)
    place = form
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FormError, match=said) as caught:
        check_form(form)
    assert caught.value.field == field


def test_an_empty_form_is_refused():
    """At least one object."""
    with pytest.raises(FormError, match="at least one object"):
        check_form({**dict.fromkeys(("location", "style"), ""), **{key: [] for key in FORM if key[0] in "aipk"}})


@contextlib.contextmanager
def stand_in(*answers: bytes | int | None):
    """A server of OpenAI's form that gives these answers, or statuses, or (None) nothing; its address and requests."""
    asked, left, end = [], iter(answers), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            answer = next(left)
            if answer is None:
                end.wait(20)
                return
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else b"")

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        end.set()
        server.shutdown()
        server.server_close()
        thread.join()


def chat(text: object) -> bytes:
    """An answer of the chat interface."""
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def test_a_language_model_gets_the_form_and_gives_the_prompt():
    """The form's words go there, the key only in its header, and the answer is one line without quotes."""
    with stand_in(chat('"Two black cats\n scratch a chair."')) as (url, asked):
        made = asyncio.run(propose(check_form(FORM), PromptServer(f"{url}/", "a-model", "secret-key")))
    assert made == ("Two black cats scratch a chair.", "model", None)
    ((path, key, body),) = asked
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret-key", "a-model")
    words = body["messages"][1]["content"]
    assert [word for word in ("2 cat", "fluffy", "reading a book", "14 berry", "warm light") if word not in words] == []
    assert "cat scratching armchair" in words and "secret-key" not in json.dumps(body)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (500, "answered with status 500"),
        (302, "answered with status 302"),
        (b"<html>", "gave an answer of another form"),
        (b'{"choices": []}', "gave an answer of another form"),
        (chat(None), "gave an empty answer"),
        (chat("a" * 1001), "gave too long an answer"),
        (None, "did not answer within 0.5 seconds"),
        ("nobody", "cannot be reached"),
    ],
)
def test_without_a_model_s_answer_the_template_is_used(answer, said):
    """And the participant is told."""
    with stand_in(answer) as (url, _):
        if answer == "nobody":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        form = check_form(FORM)
        text, by, note = asyncio.run(propose(form, PromptServer(url, "m", seconds=0.5 if answer is None else 20)))
    assert (text, by) == (from_template(form), "template")
    assert said in note and "\n" not in note


# Images -------------------------------------------------------------------------------------------------------------


def png(level: int, size: int = 16) -> bytes:
    """A grey picture's file."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def images(*files: bytes) -> bytes:
    """An answer of the image interface."""
    return json.dumps({"data": [{"b64_json": base64.b64encode(file).decode()} for file in files]}).encode()


def levels(source, number: int = 3) -> list[int]:
    """The grey levels of the images that a source makes."""
    return [picture.getpixel((0, 0))[0] for picture, _ in source.make("a cat", number, lambda: None)]


def test_an_image_server_is_asked_until_there_are_enough():
    """Some servers make fewer at a time than they are asked for."""
    with stand_in(images(png(10), png(20)), images(png(30))) as (url, asked):
        source = open_source(f"server:{url}", replace(DEFAULT_STUDY, image_model="m"), draw=None, key="k", device=None)
        assert levels(source) == [10, 20, 30]
        assert source.note == "Your prompt is sent to 127.0.0.1, where the images are made."
    assert [(path, key, body["n"]) for path, key, body in asked] == [
        ("/v1/images/generations", "Bearer k", 3),
        ("/v1/images/generations", "Bearer k", 1),
    ]
    assert asked[0][2] | {"n": 0} == {
        **{"prompt": "a cat", "n": 0, "size": "512x512", "response_format": "b64_json", "model": "m"}
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (401, "answered with status 401"),
        (b"{}", "gave no pictures"),
        (images(), "gave no pictures"),
        (images(b"no picture"), "gave no pictures"),
        (b'{"data": [{"b64_json": "?"}]}', "gave no pictures"),
        (b'{"data": [{"url": "http://elsewhere"}]}', "gave no pictures"),
    ],
)
def test_an_image_server_that_fails(answer, said):
    """With the reason, for the participant."""
    with stand_in(answer) as (url, _), pytest.raises(ValueError, match=said):
        levels(ImageServer(url, None, 512))


def fixed_study(folder: Path, *entries: object) -> Folder:
    """A folder with two pictures and a list."""
    for level in (1, 2):
        (folder / f"{level}.png").write_bytes(png(level))
    (folder / "broken.png").write_bytes(png(3)[:30])
    (folder / "prompts.json").write_text(json.dumps(entries))
    study = replace(DEFAULT_STUDY, images_per_prompt=2, sessions={"structured": 0, "free": 1})
    return Folder(folder, study)


def test_a_folder_of_pictures(tmp_path):
    """The files in their order; other prompts have none."""
    source = fixed_study(tmp_path, {"prompt": "a cat", "images": ["2.png", "1.png"]})
    assert (levels(source), source.prompts) == ([2, 1], ["a cat"])
    with pytest.raises(ValueError, match="no images for this prompt"):
        list(source.make("a dog", 2, lambda: None))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "must be a list of prompts"),
        ([{"prompt": "a"}], "1 of 1 entries"),
        ([{"prompt": "a", "images": ["1.png"]}], "“a” has 1 images, not 2"),
        ([{"prompt": "a", "images": ["1.png", "none.png"]}], "none.png does not exist"),
        ([{"prompt": "a", "images": ["1.png", "broken.png"]}], "broken.png"),
        ([{"prompt": "a", "images": ["1.png", "../outside.png"]}], "outside.png is outside the folder"),
        ([{"prompt": "a", "images": ["1.png", 2]}], "entries of"),
        ([{"prompt": "", "images": ["1.png", "2.png"]}], "'' is no prompt"),
        ([{"prompt": "a", "images": ["1.png", "2.png"]}] * 2, "has a prompt twice"),
    ],
)
def test_a_folder_that_does_not_fit_the_study(tmp_path, entries, said):
    """Found before the study starts."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.png").write_bytes(png(1))
    with pytest.raises(FergiError, match=re.escape(said)):
        fixed_study(tmp_path / "inside", *entries)


def test_drawn_images_repeat_with_the_seed_and_show_what_the_prompt_names():
    """Two seeds give two pictures; red and blue mushrooms differ in colour."""
    first, again, other = (collect_sessions.drawn_image("a cat", seed) for seed in (1, 1, 2))
    assert first.size == (512, 512) and first.tobytes() == again.tobytes() != other.tobytes()
    red, blue = (np.asarray(collect_sessions.drawn_image(f"a {c} mushroom", 5), int) for c in ("red", "blue"))
    assert (red[..., 0] - blue[..., 0]).max() > 60


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    """A small random pipeline of diffusers, whose safety checker lets everything through."""
    return save_small_generator(tmp_path_factory.mktemp("generator") / "small")


QUICK = replace(DEFAULT_STUDY, image_steps=2, image_size=64)


def test_a_diffusion_model_s_seeds_repeat_its_images(generator):
    """By diffusers itself, with the seeds of the record; nothing is flagged."""
    source = open_source(f"diffusers:{generator}", QUICK, draw=None, key=None, device=lambda: "cpu")
    made = list(source.make("a cat", 2, lambda: None))
    pipeline = StableDiffusionPipeline.from_pretrained(generator)
    for picture, record in made:
        random = torch.Generator("cpu").manual_seed(record["seed"])
        same = pipeline("a cat", num_inference_steps=2, guidance_scale=7.5, height=64, width=64, generator=random)
        assert np.abs(np.asarray(picture, int) - np.asarray(same.images[0], int)).max() <= 1
        assert (record["steps"], record["guidance"], record["size"], record["safety_flag"]) == (2, 7.5, 64, False)
        assert (record["source"], record["model"]) == ("diffusers", str(generator))
    assert made[0][1]["seed"] != made[1][1]["seed"] and made[0][0].tobytes() != made[1][0].tobytes()


def test_black_images_are_kept_and_flagged(tmp_path):
    """As the safety checker leaves them (Section 3.3); the flag of the record and the picture say the same."""
    source = Diffusers(str(save_small_generator(tmp_path / "small", black=True)), QUICK, "cpu")
    ((picture, record),) = source.make("a cat", 1, lambda: None)
    assert record["safety_flag"] is True and picture.getextrema() == ((0, 0),) * 3


def test_a_diffusion_model_stops_when_the_server_ends(generator):
    """Between two steps."""
    calls = iter([None, None])

    def check() -> None:
        if next(calls, "end"):
            raise Stopped

    with pytest.raises(Stopped):
        list(Diffusers(str(generator), replace(QUICK, image_steps=5), "cpu").make("a cat", 5, check))


def test_a_diffusion_model_of_older_names_gives_the_same_image(tmp_path, generator):
    """The VAE of Stable Diffusion v1.4 names its attention in an older way, and its encoders list positions."""
    folder = shutil.copytree(generator, tmp_path / "copy")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = load_file(file)
    names = {name: name.replace(new, old) for name in state for new, old in older.items() if new in name}
    assert len(names) == 16
    save_file({names.get(name, name): value for name, value in state.items()}, file)
    for part, name in (("text_encoder", "text_model"), ("safety_checker", "vision_model.vision_model")):
        file = folder / part / "model.safetensors"
        positions = {f"{name}.embeddings.position_ids": torch.arange(9)[None]}
        save_file(load_file(file) | positions, file, {"format": "pt"})
    first, second = (load_pipeline(str(each), torch.float32) for each in (generator, folder))
    for part in ("vae", "text_encoder", "safety_checker"):
        expected, found = getattr(first, part).state_dict(), getattr(second, part).state_dict()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("what", ["missing", "unexpected", "shape", "cut off", "no index", "nothing"])
def test_a_diffusion_model_whose_weights_do_not_fit_is_refused(tmp_path, generator, what):
    """Rather than filled up with random numbers."""
    folder = shutil.copytree(generator, tmp_path / "copy")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    name = "conv_in.weight"
    if what == "missing":
        del state[name]
    elif what == "unexpected":
        state["conv_in.more"] = torch.ones(3)
    elif what == "shape":
        state[name] = torch.ones(3, 3)
    save_file(state, file)
    if what == "cut off":
        file.write_bytes(file.read_bytes()[:5000])
    elif what == "no index":
        (folder / "model_index.json").unlink()
    elif what == "nothing":
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(FergiError) as caught:
        Diffusers(str(folder), QUICK, "cpu")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    if what in ("missing", "unexpected"):
        assert f"1 {what} keys" in str(caught.value) and "conv_in" in str(caught.value)


@pytest.mark.parametrize("name", ["folder:", "server:example.org", "nothing", "server", "drawn:x"])
def test_an_unknown_source(name):
    """All that there are are named."""
    with pytest.raises(FergiError, match="drawn, folder:DIR, server:URL or diffusers:DIR_OR_HUB_NAME"):
        open_source(name, DEFAULT_STUDY, draw=None, key=None, device=None)


# The camera's picture -----------------------------------------------------------------------------------------------


def jpeg(picture: np.ndarray) -> bytes:
    """A picture's file, nearly without loss."""
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=97)
    return file.getvalue()


def test_what_is_wrong_with_a_camera_s_picture():
    """A real face with a camera's noise, the same picture again, no face, no light, too much of it, one colour."""
    check = collect_sessions.camera_check(CHECKOUT / "pretrained_models")
    face, random = data.astronaut().astype(float), np.random.default_rng(4)

    def look(picture: np.ndarray, who: str = "001") -> list[str]:
        return check.look(who, jpeg(picture))["problems"]

    def noisy(picture: np.ndarray) -> np.ndarray:
        return picture + random.normal(0, 1, picture.shape)

    assert look(noisy(face)) == look(noisy(face)) == []
    assert look(face, "002") == [] and look(face, "002") == ["still"] and look(face, "003") == []
    check.forget("002")
    assert look(face, "002") == []
    found = check.look("004", jpeg(noisy(face)))
    assert found["face"] and found["score"] == pytest.approx(0.92, abs=0.03)  # 0.92174 without noise and JPEG
    assert found["brightness"] == pytest.approx(face.mean() / 255, abs=0.01)
    assert look(noisy(data.coffee()[:, :400].astype(float))) == ["no_face"]
    assert "too_dark" in look(noisy(face * 0.1))
    assert "too_bright" in look(noisy(240 + face * 0.05))
    assert look(np.full((480, 640, 3), 120)) == ["blank", "no_face"]
