"""Every perturbation: shape and dtype, the same change of a sample in any batch, what it does."""

import functools
import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_image
from torch import nn

from fastconv import perturb
from fastconv.errors import InputError
from fastconv.perturb import perturbation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@functools.cache
def photos():
    """[6, 3, 48, 64] float32 crops of a photo, 0 ... 1."""
    photo = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1) / 255
    return torch.stack(
        [photo[:, 150 + 40 * i : 198 + 40 * i, 60 * i : 60 * i + 64] for i in range(6)]
    )


@functools.cache
def batch_of(rank):
    photo = photos()
    if rank == 1:
        return photo[:, :2].mean(2)  # [6, 2, 64]
    return photo if rank == 2 else torch.stack((photo, photo.flip(0) * 0.9, photo * 0.8), 2)


@functools.cache
def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


IMAGES = {
    "rotate": perturb.rotate(15),
    "translate": perturb.translate(3, -2.5),
    "scale": perturb.scale(1.2),
    "flip": perturb.flip(),
    "noise": perturb.noise(0.1),
    "blur": perturb.blur(1.5),
    "brightness": perturb.brightness(1.3),
    "contrast": perturb.contrast(0.5),
    "hue": perturb.hue(0.2),
    "jpeg": perturb.jpeg(30),
    "occlude": perturb.occlude(4),
    "occlude mask": perturb.occlude(mask=np.arange(48 * 64).reshape(48, 64) % 7 == 0),
    "shuffle_patches": perturb.shuffle_patches(4),
    "silhouette": perturb.silhouette(),
    "frequency": perturb.frequency(0.3),
    "high-pass": perturb.frequency(0.3, "high"),
}
SEQUENCES = {
    "time_shift": perturb.time_shift(1),
    "stretch": perturb.stretch(1.5),
    "drop_frames": perturb.drop_frames(0.3),
    "shuffle_frames": perturb.shuffle_frames(),
}
ANY = ("noise", "blur", "brightness", "contrast", "frequency", "high-pass", "flip")
CASES = (
    [(2, p) for p in IMAGES.values()]
    + [(3, p) for p in [*IMAGES.values(), *SEQUENCES.values()]]
    + [(1, p) for p in [*(IMAGES[n] for n in ANY), *SEQUENCES.values()]]
)


@pytest.mark.parametrize(("rank", "change"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_a_sample_is_changed_the_same_way_in_any_batch(rank, change):
    batch = batch_of(rank)
    before = batch.clone()
    samples = torch.tensor([7, 3, 10**12, 0, 5, 1])
    if change.parameters.get("mask") is not None:
        samples = torch.arange(6)
    changed = change(batch, samples)
    assert torch.equal(batch, before)
    assert changed.shape == batch.shape and changed.dtype == batch.dtype
    assert changed.isfinite().all() and not torch.equal(changed, batch)
    order = torch.tensor([4, 1, 0, 5, 2, 3])
    assert torch.equal(change(batch[order], samples[order]), changed[order])
    alone = [change(batch[i : i + 1], samples[i : i + 1]) for i in range(6)]
    assert torch.equal(torch.cat(alone), changed)
    half = change(batch.bfloat16(), samples)
    assert half.dtype == torch.bfloat16
    again = pickle.loads(pickle.dumps(change))  # a worker gets it that way
    assert torch.equal(again(batch, samples), changed)
    assert json.loads(json.dumps(change.describe())) == change.describe()


@pytest.mark.parametrize("name", IMAGES)
def test_the_size_of_the_cache_and_the_layout_change_nothing(name, monkeypatch):
    samples, change = torch.arange(6), IMAGES[name]
    changed = change(photos(), samples)
    laid_out = change(photos().contiguous(memory_format=torch.channels_last), samples)
    assert laid_out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(laid_out, changed, atol=1e-6, rtol=0)
    monkeypatch.setattr(perturbation, "IN_CACHE", 4 * photos()[:4].numel())  # 4 and 2 of them
    assert torch.equal(change(photos(), samples), changed)


def test_samples_differ_and_seeds_differ():
    twice, samples = photos()[:1].expand(2, -1, -1, -1), torch.tensor([0, 1])
    for make, given in ((perturb.noise, 0.1), (perturb.occlude, 4), (perturb.shuffle_patches, 4)):
        first, second = make(given)(twice, samples)
        assert not torch.equal(first, second)
        assert not torch.equal(make(given, seed=1)(twice, samples)[0], first)


@pytest.mark.parametrize("name", ["noise", "brightness", "contrast", "hue", "jpeg"])
def test_units_of_a_normalised_input(name):
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    given = {"noise": 0.1, "brightness": 1.3, "contrast": 0.5, "hue": 0.2, "jpeg": 30}[name]
    make, samples = getattr(perturb, name), torch.arange(6)
    plain = make(given)(photos(), samples)
    normalised = make(given, mean=MEAN, std=STD)((photos() - mean) / std, samples)
    torch.testing.assert_close(normalised * std + mean, plain, atol=2e-6, rtol=0)


def test_jpeg_of_normalised_inputs_loses_no_more_than_that_of_pixels():
    """Also where nobody says by what they were normalised: nothing is clipped."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    samples, compress = torch.arange(6), perturb.jpeg(90)
    error = (compress(photos(), samples) - photos()).abs().mean()
    normalised = compress((photos() - mean) / std, samples) * std + mean
    assert (normalised - photos()).abs().mean() < 1.5 * error


def test_rotation_is_counter_clockwise_about_the_centre():
    square = photos()[..., :48]
    for turns in (1, 2, 3):
        turned = perturb.rotate(90 * turns)(square, torch.arange(6))
        torch.testing.assert_close(turned, torch.rot90(square, turns, (2, 3)), atol=1e-4, rtol=0)


def test_translation_moves_down_and_right():
    moved = perturb.translate(5, 3)(photos(), torch.arange(6))
    torch.testing.assert_close(moved[..., 5:, 3:], photos()[..., :-5, :-3], atol=1e-4, rtol=0)


def test_scale_enlarges():
    larger = perturb.scale(2)(photos(), torch.arange(6))
    middle = photos()[..., 12:36, 16:48]
    expected = nn.functional.interpolate(middle, scale_factor=2, mode="bilinear")
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(larger[inner], expected[inner], atol=1e-4, rtol=0)


def test_noise_has_its_deviation_and_stays_in_range():
    grey = torch.full((4, 3, 64, 64), 0.5)
    added = perturb.noise(0.05)(grey, torch.arange(4)) - grey
    assert added.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs(added.mean().item()) < 0.002
    strong = perturb.noise(5)(grey, torch.arange(4))
    assert strong.min() == 0 and strong.max() == 1


def test_low_and_high_frequencies_and_the_mean_make_the_whole():
    low = perturb.frequency(0.3)(photos(), torch.arange(6))
    high = perturb.frequency(0.3, "high")(photos(), torch.arange(6))
    mean = photos().mean((2, 3), keepdim=True)
    torch.testing.assert_close(low + high - mean, photos(), atol=1e-5, rtol=0)
    power = torch.fft.fft2(low - mean).abs()
    assert power[..., 24, :].max() < 1e-3  # at the Nyquist frequency


def test_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    blurred = perturb.blur(1.5)(photos(), torch.arange(6))
    expected = gaussian_filter(
        photos().double().numpy(), 1.5, axes=(2, 3), mode="nearest", radius=5
    )
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_hue_keeps_grey_and_a_third_turn_swaps_channels():
    turned = perturb.hue(1 / 3)(photos() * 0.5, torch.arange(6))
    torch.testing.assert_close(turned, photos().roll(1, 1) * 0.5, atol=1e-5, rtol=0)


def test_shuffled_patches_keep_values_and_lose_place():
    shuffled = perturb.shuffle_patches(4)(photos(), torch.arange(6))
    assert torch.equal(shuffled.flatten(2).sort().values, photos().flatten(2).sort().values)
    cells = shuffled.unfold(2, 12, 12).unfold(3, 16, 16)
    own = photos().unfold(2, 12, 12).unfold(3, 16, 16)
    found = [torch.equal(cells[0, :, 0, 0], own[0, :, i, j]) for i in range(4) for j in range(4)]
    assert sum(found) == 1


def test_silhouette_of_a_digit_has_two_values():
    digits = torch.from_numpy(load_digits().images[:20]).float()[:, None] / 16
    flat = perturb.silhouette()(digits, torch.arange(20))
    for before, after in zip(digits, flat, strict=True):
        levels = after.unique()
        assert len(levels) == 2
        figure = after == levels[1]
        assert before[figure].min() >= before[~figure].max()  # a threshold parts them
        assert levels[1].item() == pytest.approx(before[figure].mean().item(), abs=1e-5)


def test_occlusion_covers_its_share_or_its_mask():
    covered = perturb.occlude(4, share=0.5, fill=0.25)(photos(), torch.arange(6))
    assert (covered != photos()).any(1).float().mean().item() == pytest.approx(0.5, abs=0.01)
    masks = np.zeros((6, 48, 64), bool)
    masks[2, 5:10, 5:10] = True
    covered = perturb.occlude(mask=masks, fill=0)(photos(), torch.arange(6))
    assert torch.equal(covered[:2], photos()[:2]) and (covered[2, :, 5:10, 5:10] == 0).all()


def test_sequences():
    signal = torch.arange(10.0).reshape(1, 1, 10)
    one = torch.tensor([3])
    assert torch.equal(perturb.time_shift(2)(signal, one), signal.roll(2, 2))
    slow = perturb.stretch(2)(signal, one)
    torch.testing.assert_close(slow, (signal - 4.5) / 2 + 4.5)
    dropped = perturb.drop_frames(0.4)(signal, one).flatten()
    assert len(dropped.unique()) == 6 and (dropped.diff() >= 0).all() and dropped[0] == 0
    shuffled = perturb.shuffle_frames()(signal, one)
    assert not torch.equal(shuffled, signal) and torch.equal(shuffled.sort().values, signal)


def loss(batch, labels):
    return nn.functional.cross_entropy(classifier()(batch), labels, reduction="none")


@pytest.mark.parametrize("make", [perturb.fgsm, perturb.pgd])
def test_attacks_raise_the_loss_within_epsilon(make):
    classifier()(photos())
    labels = torch.arange(6) % 5
    change = make(4 / 255)
    with torch.inference_mode():
        moved = change(photos(), torch.arange(6), model=classifier(), labels=labels)
        assert (loss(moved, labels) > loss(photos(), labels)).all()
    assert change.needs_model
    assert (moved - photos()).abs().max() <= 4 / 255 + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    one = change(photos()[3:4], torch.tensor([3]), model=classifier(), labels=labels[3:4])
    torch.testing.assert_close(one, moved[3:4], atol=1e-5, rtol=0)
    assert all(p.grad is None for p in classifier().parameters())


def test_fgsm_is_its_formula_and_knows_units_and_predictions():
    x = photos().clone().requires_grad_()
    said = classifier()(photos()).argmax(1)
    loss(x, said).sum().backward()
    expected = (photos() + 2 / 255 * x.grad.sign()).clamp(0, 1)
    change = perturb.fgsm(2 / 255, against="prediction")
    moved = change(photos(), torch.arange(6), model=classifier(), labels=None)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    change = perturb.fgsm(2 / 255, against="prediction", mean=MEAN, std=STD)

    def model(batch):
        return classifier()(batch * std + mean)

    moved = change((photos() - mean) / std, torch.arange(6), model=model, labels=None)
    assert ((moved * std + mean - expected).abs() > 1e-5).float().mean() < 1e-3  # signs of ~0


def test_one_logit_is_two_classes():
    x, labels = photos(), torch.arange(6) % 2
    change = perturb.fgsm(0.1)
    moved = change(x, torch.arange(6), model=lambda b: b.mean((1, 2, 3)), labels=labels)
    raised = (moved - x).mean((1, 2, 3)) > 0
    assert torch.equal(raised, labels == 0)  # away from the label


def test_parse():
    found = perturb.parse("rot15,noise0.1,fgsm2,silhouette,lowpass0.25,rot-10")
    assert list(found) == ["rot15", "noise0.1", "fgsm2", "silhouette", "lowpass0.25", "rot-10"]
    assert found["rot15"] == perturb.rotate(15.0)
    assert found["noise0.1"] == perturb.noise(0.1)
    assert found["fgsm2"] == perturb.fgsm(2 / 255)
    assert perturb.parse("noise0.1", mean=MEAN, std=STD)["noise0.1"].parameters["std"] == STD


def test_any_callable_describes_itself():
    def darken(batch, samples, amount=0.5):
        return batch * amount

    name = f"{__name__}.test_any_callable_describes_itself.<locals>.darken"
    assert perturb.describe(darken) == {"name": name}
    assert perturb.describe(functools.partial(darken, amount=0.2)) == {"name": name, "amount": 0.2}
    assert perturb.describe(perturb.rotate(3))["degrees"] == 3


def test_functions_differ_by_what_they_enclose_and_lambdas_by_their_code():
    def scaled(amount, count=0, name="scaled"):
        def change(batch, samples):
            nonlocal count
            count += len(name)
            return batch * amount

        return change

    one, other = scaled(0.2), scaled(0.3)
    assert perturb.describe(one) == perturb.describe(scaled(0.2)) != perturb.describe(other)
    before = perturb.describe(one)
    one(torch.ones(1, 1, 2), torch.zeros(1))  # what it writes to does not count
    assert perturb.describe(one) == before and before["amount"] == 0.2
    assert before["name"].endswith("<locals>.change")
    first, again = [perturb.describe(lambda batch, samples: batch * 2) for _ in range(2)]
    third = perturb.describe(lambda batch, samples: batch * 3)
    assert first == again and first["code"] != third["code"]


BAD = {
    "rotating a signal": (
        lambda: perturb.rotate(3)(batch_of(1), torch.arange(6)),
        "rotate is for 2-D or 3-D inputs, got 1-D",
    ),
    "frames of an image": (
        lambda: perturb.shuffle_frames()(photos(), torch.arange(6)),
        "shuffle_frames is for 1-D or 3-D inputs, got 2-D",
    ),
    "hue of grey": (lambda: perturb.hue(0.1)(photos()[:, :1], torch.arange(6)), "3 channels"),
    "jpeg of two channels": (
        lambda: perturb.jpeg(30)(photos()[:, :2], torch.arange(6)),
        "1 or 3 channels, got 2",
    ),
    "a mask of another size": (
        lambda: perturb.occlude(mask=np.ones((4, 4)))(photos(), torch.arange(6)),
        r"the mask is \[4, 4\], inputs \[48, 64\]",
    ),
    "too few masks": (
        lambda: perturb.occlude(mask=np.ones((2, 48, 64)))(photos(), torch.arange(6)),
        "2 masks, none of sample 5",
    ),
    "neither grid nor mask": (lambda: perturb.occlude(), "a grid .* or a mask"),
    "units of two channels": (
        lambda: perturb.noise(0.1, std=(1, 2))(photos(), torch.arange(6)),
        "1 or 3 values, got 2",
    ),
    "integers": (
        lambda: perturb.flip()(photos().to(torch.uint8), torch.arange(6)),
        "floating-point",
    ),
    "no labels": (
        lambda: perturb.fgsm(0.1)(photos(), torch.arange(6), model=classifier(), labels=None),
        'against="prediction"',
    ),
    "a label out of range": (
        lambda: perturb.fgsm(0.1)(
            photos(), torch.arange(6), model=classifier(), labels=torch.arange(6)
        ),
        "0 ... 4, got 5",
    ),
    "a model that gives maps": (
        lambda: perturb.fgsm(0.1)(photos(), torch.arange(6), model=nn.Identity(), labels=None),
        r"class scores \[n, K\]",
    ),
    "padding": (lambda: perturb.rotate(1, padding="mirror"), "got 'mirror'"),
    "an unknown name": (lambda: perturb.parse("rotate15"), "'rotate15'; known are rot<degrees>"),
    "another shape": (
        lambda: perturb.Perturbation("cut", lambda b, _: b[..., 1:])(photos(), torch.arange(6)),
        r"cut makes \[6, 3, 48, 63\] of \[6, 3, 48, 64\]; shapes must stay",
    ),
    "a missing number": (lambda: perturb.parse("rot"), "'rot' needs its degrees"),
    "a name twice": (lambda: perturb.parse("rot1,rot1"), "must differ"),
    "half a level": (lambda: perturb.parse("jpeg30.5"), "whole number, got 30.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_says_what_to_do(case):
    classifier()(photos())
    call, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
