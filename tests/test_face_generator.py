"""Faces with chosen AUs: the adapter in the UNet, its training, its pictures, bad input."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_generator import save_small_generator

from fergi.face_generation.adapter import ActionUnitAdapter
from fergi.face_generation.generator import FaceGenerator
from fergi.files import FergiError
from fergi.recording.images import load_pipeline


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Stable Diffusion with random weights, 32 pixels."""
    return str(save_small_generator(tmp_path_factory.mktemp("base") / "pipeline"))


@pytest.fixture(scope="module")
def generator(base):
    """With a new adapter; a test may not change it."""
    return FaceGenerator(base, "cpu")


def inputs(generator, n=2):
    """Latents, timesteps, text and intensities of n pictures."""
    random = torch.Generator().manual_seed(3)
    latents = torch.randn(n, *generator.shape, generator=random)
    intensities = torch.randint(0, 6, (n, 12), generator=random).float()
    return latents, torch.tensor([500, 40][:n]), generator.text(["a smiling face", ""][:n]), intensities


# ---- the adapter


@pytest.mark.parametrize("n_units", [1, 12])
def test_tokens_and_gradients(base, n_units):
    """A softmax over one token is 1, so that the keys get no gradient; over twelve they get one."""
    unet = load_pipeline(base, torch.float32).unet.requires_grad_(False)
    adapter = ActionUnitAdapter(unet, 0, "base", units=range(n_units))
    random = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 16, 16, generator=random), torch.randn(2, 7, 32, generator=random)
    told = {"image_embeds": [torch.full((2, 1, n_units), 3.0)]}
    unet(latents, 300, text, added_cond_kwargs=told).sample.square().sum().backward()
    size = {
        part: max(value.grad.abs().max().item() for name, value in adapter.named_parameters() if part in name)
        for part in ("to_k_ip", "to_v_ip", "vectors", "names")
    }
    assert len(adapter.layers) == 4 and size["to_v_ip"] > 1e-3
    if n_units == 1:
        assert size["to_k_ip"] < 1e-6 * size["to_v_ip"]
    else:
        assert all(value > 1e-4 * size["to_v_ip"] for value in size.values())


def test_values_are_graded(generator):
    """Doubling a value doubles the token's way from the name; null tokens are not those of zeros."""
    tokens = generator.adapter.tokens
    with torch.no_grad():
        zero, one, two = (tokens(torch.full((1, 12), value)) for value in (0.0, 1.5, 3.0))
        null = tokens(torch.full((1, 12), torch.nan))
        partly = tokens(torch.tensor([[3.0] * 5 + [torch.nan] * 7]))
    torch.testing.assert_close(two - zero, 2 * (one - zero), rtol=0, atol=1e-6)
    assert (two - zero).norm() > 1 and (null - zero).norm() > 1
    assert torch.equal(partly, torch.cat([two[:, :5], null[:, 5:]], dim=1))


def test_pipeline_computes_the_same(base, generator):
    """λ = 0 is the base model's picture to the bit; the pipeline's own step is that of ``predict``."""
    latents, _, _, intensities = inputs(generator)
    given = {"num_inference_steps": 1, "latents": latents, "output_type": "latent", "height": 32, "width": 32}
    prompts = ["a smiling face", "a face"]
    told = [torch.cat([generator.intensities(), intensities[:1]])[:, None]]
    plain = load_pipeline(base, torch.float32)
    plain.set_progress_bar_config(disable=True)
    made = {scale: None for scale in (0, 1)}
    for scale in made:
        generator.set_scale(scale)
        made[scale] = generator.pipeline(prompts, ip_adapter_image_embeds=told, **given).images
    assert torch.equal(made[0], plain(prompts, **given).images)
    assert (made[1] - made[0]).abs().max() > 1e-3
    pipeline, guidance = generator.pipeline, 7.5
    pipeline.scheduler.set_timesteps(1)
    time = pipeline.scheduler.timesteps[0]
    with torch.no_grad():
        with_text = generator.predict(latents, time, generator.text(prompts), intensities[[0, 0]])
        without = generator.predict(latents, time, generator.text(["", ""]), generator.intensities(n=2))
        noise = without + guidance * (with_text - without)
        expected = pipeline.scheduler.step(noise, time, latents).prev_sample
    assert (made[1] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_adapter_file(base, generator, tmp_path):
    """It comes back to the bit; a file that does not fit is refused in one sentence, and nothing is taken of it."""
    path = tmp_path / "au_adapter.safetensors"
    generator.save(path)
    again = FaceGenerator(base, "cpu", adapter=path, seed=1)
    given = inputs(generator)
    with torch.no_grad():
        assert torch.equal(again.predict(*given), generator.predict(*given))
    assert not torch.equal(FaceGenerator(base, "cpu", seed=1).adapter.tokens.names, again.adapter.tokens.names)
    values, other = load_file(path), tmp_path / "other.safetensors"
    bad = {
        r"1 missing \(first: tokens\.null\)": {name: value for name, value in values.items() if "null" not in name},
        r"1 not known \(first: more\)": values | {"more": torch.ones(1)},
        r"1 of another shape \(first: tokens\.null, \(3, 32\) instead of \(12, 32\)\)": values
        | {"tokens.null": torch.ones(3, 32)},
    }
    for message, content in bad.items():
        save_file(content, other)
        with pytest.raises(FergiError, match=message):
            again.load(other)
    with pytest.raises(FergiError, match=r"1 of 1 weight file is missing .* Train it with train_face_generator.py"):
        again.load(tmp_path / "nothing.safetensors")
    with torch.no_grad():
        assert torch.equal(again.predict(*given), generator.predict(*given))


def test_gradients_through_encode_and_decode(generator):
    """Of pictures, both ways; the mean of the VAE's distribution where no sampling is given."""
    pixels = torch.zeros(1, 3, 32, 32, requires_grad=True)
    latents = generator.encode(pixels)
    assert latents.shape == (1, *generator.shape)
    generator.decode(latents).square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    random = torch.randn(1, *generator.shape)
    assert not torch.equal(generator.encode(pixels, random), latents)
    assert torch.equal(generator.encode(pixels, torch.zeros_like(random)), latents)
