"""Models of several inputs, waveforms, folded frames, and paths that depend on the data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import images
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastconv
from fastconv.errors import DataError, FastconvError, InputError

QUIET = {"progress": False, "batch_size": 4}


class Pairs(nn.Module):
    """Takes an image and a mask, by name or in order."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 1)

    def forward(self, image, mask=None):
        assert mask.dtype == torch.int64
        return self.conv(image) * self.other(mask.float())


class PairData:
    def __init__(self, form):
        self.form, self.images = form, images(10)
        self.masks = torch.randint(
            0, 2, (10, 1, 20, 20), generator=torch.Generator().manual_seed(0)
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, mask = self.images[index], self.masks[index]
        return ((image, mask) if self.form is tuple else {"image": image, "mask": mask}), index % 3


def checked(model, data, path, **options):
    forward = options.get("forward")
    run = fastconv.extract(model, data, path, **QUIET, **options)
    report = fastconv.verify(path, model, data, forward=forward)
    assert report, report
    return run


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", [tuple, dict])
def test_several_inputs_are_arguments_or_keywords(form, workers, tmp_path):
    model, data = Pairs().eval(), PairData(form)
    run = checked(model, data, tmp_path / "run.h5", num_workers=workers, samples=True)
    with torch.no_grad():
        conv, other = model.conv(data.images), model.other(data.masks.float())
    np.testing.assert_allclose(run["conv"].samples.max, conv.amax((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(run["other"].samples.max, other.amax((2, 3)), rtol=1e-5)
    assert (run["conv"].info.status, run["other"].info.status) == ("exact", "global")
    assert run["conv"].patches.shape[-3:] == (3, 3, 3)  # of the image
    loader = DataLoader(
        data, batch_size=2, collate_fn=lambda s: torch.utils.data.default_collate(s)
    )
    again = fastconv.extract(model, loader, tmp_path / "run.h5", **QUIET, samples=True)
    assert again.layers == run.layers  # the same file


def test_forward_calls_the_model_its_own_way(tmp_path):
    class Detector(nn.Module):
        """Takes a list of images, and says what it found in a list of dicts."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, pictures):
            assert isinstance(pictures, list)
            return [{"boxes": x.mean()} for x in self.conv(torch.stack(pictures))]

    model, x = Detector(), images(6)
    run = checked(model, x, tmp_path / "run.h5", forward=lambda m, batch: m(list(batch)))
    with torch.no_grad():
        expected = model.conv(x).amax((0, 2, 3))
    np.testing.assert_allclose(run["conv"].stats["max"], expected, rtol=1e-5)


def test_inputs_that_are_not_alike_are_refused(tmp_path):
    class Uneven(PairData):
        def __getitem__(self, index):
            (image, mask), label = super().__getitem__(index)
            return (image, mask[:, : 20 - index % 2]), label

    with pytest.raises(DataError, match=r"sample 1 has shape \[1, 19, 20\], sample 0 has \[1, 20"):
        fastconv.extract(Pairs(), Uneven(tuple), tmp_path / "run.h5", layers="conv", **QUIET)


def test_waveforms_without_a_channel(tmp_path):
    class Listener(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 4, 9, 4), nn.Conv1d(4, 6, 3, 2)

        def forward(self, wave):  # [N, samples]
            return self.second(F.gelu(self.first(wave[:, None])))

    model = Listener().eval()
    waves = torch.randn(9, 200, generator=torch.Generator().manual_seed(0))
    run = checked(model, waves, tmp_path / "run.h5")
    layer = run["second"]
    assert (layer.info.status, layer.info.size) == ("exact", (23,))
    hit = layer.topk
    sample, position, (start, stop) = hit.sample[2, 0], hit.position[2, 0], hit.box[2, 0, 0]
    assert (start, stop) == (8 * position[0], 8 * position[0] + 17)
    with torch.no_grad():
        value = model(waves[sample, start:stop][None])[0, 2, 0]
    np.testing.assert_allclose(hit.values[2, 0], value, rtol=1e-5)
    np.testing.assert_array_equal(layer.patch(2, 0).squeeze(), waves[sample, start:stop])


@pytest.mark.parametrize("more", [{}, {"hits_per_sample": 3, "maps": [1, 5], "samples": True}])
def test_frames_folded_into_the_batch(more, tmp_path):
    class EveryFrame(nn.Module):
        def __init__(self):
            super().__init__()
            self.frame, self.norm, self.clip = (
                nn.Conv2d(1, 4, 3),
                nn.BatchNorm2d(4),
                nn.Conv3d(4, 2, 3),
            )

        def forward(self, x):  # [N, 1, T, H, W]
            frames = F.relu(self.norm(self.frame(x.transpose(1, 2).flatten(0, 1))))
            return self.clip(frames.unflatten(0, (len(x), -1)).transpose(1, 2))

    model = EveryFrame().eval()
    x = torch.rand(10, 1, 5, 8, 9, generator=torch.Generator().manual_seed(0))
    run = checked(model, x, tmp_path / "run.h5", stage="act", **more)
    with torch.no_grad():
        frames = torch.stack([model.frame(x[:, :, t]) for t in range(5)], 2)
        value = F.relu(F.batch_norm(frames, *list(model.norm.buffers())[:2]))
    layer = run["frame"]
    assert (layer.info.size, layer.info.status) == ((5, 6, 7), "exact")
    np.testing.assert_array_equal(layer.stats["count"], [10 * 5 * 6 * 7] * 4)
    np.testing.assert_allclose(layer.stats["mean"], value.mean((0, 2, 3, 4)), rtol=1e-5)
    sample, (t, row, column) = layer.topk.sample[1, 0], layer.topk.position[1, 0]
    np.testing.assert_allclose(layer.topk.values[1, 0], value[sample, 1, t, row, column], rtol=1e-5)
    assert layer.topk.box[1, 0].tolist() == [[t, t + 1], [row, row + 3], [column, column + 3]]
    if more:
        np.testing.assert_allclose(layer.map(5), value[5], rtol=1e-3, atol=1e-4)


class Gated(nn.Module):
    """Calls its second convolution for bright batches only."""

    def __init__(self):
        super().__init__()
        self.always, self.bright = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        y = self.always(x)
        return self.bright(y) if x[0, 0, 0, 0] > 0.5 else y


def test_layer_that_some_batches_pass_over(tmp_path):
    model, x = Gated(), images(12)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0, 0.9]).repeat_interleave(4)
    with pytest.raises(FastconvError, match="ran in the probe forward but not now"):
        fastconv.extract(model, x, tmp_path / "run.h5", **QUIET)
    keep = {"samples": True, "maps": "all", "maps_dtype": "exact", "on_error": "skip"}
    run = checked(model, x, tmp_path / "run.h5", resume=False, **keep)
    layer, seen = run["bright"], torch.cat([x[:4], x[8:]])
    with torch.no_grad():
        value = model.bright(model.always(seen))
    np.testing.assert_array_equal(layer.stats["count"], [8 * 16 * 16] * 2)
    np.testing.assert_allclose(layer.stats["mean"], value.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert np.isnan(layer.samples.max[4:8]).all()
    np.testing.assert_allclose(layer.samples.max[8:], value[4:].amax((2, 3)), rtol=1e-5)
    assert np.isnan(layer.map(5)).all()
    np.testing.assert_allclose(layer.map(9), value[5], rtol=1e-5, atol=1e-6)
    assert run["always"].stats["count"][0] == 12 * 18 * 18


EVERY = {
    "extract": lambda model, data, path: fastconv.extract(model, data, path, progress=False),
    "ablate": lambda model, data, path: fastconv.ablate(model, data, {"0": [0]}),
    "effective_field": lambda model, data, path: fastconv.insight.effective_field(model, data),
    "overlap": lambda model, data, path: fastconv.overlap(model, data, np.zeros((4, 16, 16))),
}
NO_MODULES = {
    "class": (nn.Conv2d, "got a class Conv2d; call it"),
    "function": (lambda x: x, "got a function; build it first"),
    "weights": (nn.Conv2d(3, 2, 3).state_dict(), "got a OrderedDict; build the model, and load"),
    "exported": (
        lambda: torch.export.export(nn.Conv2d(3, 2, 3), (torch.zeros(2, 3, 9, 9),)),
        r"got a ExportedProgram; give what its \.module\(\) returns",
    ),
}


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("kind", NO_MODULES)
def test_a_model_that_is_no_module_is_said(kind, way, tmp_path):
    model, message = NO_MODULES[kind]
    if kind == "exported":
        model = model()
    data = TensorDataset(torch.zeros(4, 3, 16, 16), torch.arange(4) % 2)
    with pytest.raises(InputError, match=message):
        EVERY[way](model, data, tmp_path / "run.h5")


class Both(Pairs):
    def forward(self, image, mask):
        return super().forward(image, mask)


@pytest.mark.parametrize("way", EVERY)
def test_inputs_that_the_model_wants_and_samples_lack_are_said(way, tmp_path):
    images = torch.zeros(4, 3, 16, 16)
    data = TensorDataset(images, images[:, :1], torch.arange(4) % 2)  # the mask passes for a label
    with pytest.raises(InputError, match=r"missing a required argument.* let a sample be \(\(a, b"):
        EVERY[way](Both(), data, tmp_path / "run.h5")


class Called(nn.Module):
    """A model that brings its own way of being called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def __call__(self, image):
        return self.conv(image)


def test_inputs_that_a_hook_or_the_call_adds_are_not_missed(tmp_path):
    hooked = Both()
    hooked.register_forward_pre_hook(lambda _, given: (*given, given[0][:, :1].long()))
    images = torch.rand(4, 3, 16, 16)
    for name, model, data in (
        ("hook", hooked, images),
        ("call", Called(), [({"image": image}, 0) for image in images]),
    ):
        with fastconv.extract(model, data, tmp_path / f"{name}.h5", **QUIET) as run:
            assert run["conv"].stats["count"][0] == 4 * (16 if name == "hook" else 14) ** 2


@pytest.mark.parametrize("first", [nn.Identity(), nn.BatchNorm2d(3)], ids=["conv", "norm"])
@pytest.mark.parametrize("way", EVERY)
def test_samples_that_the_model_cannot_take_are_said(way, first, tmp_path):
    data = TensorDataset(torch.zeros(4, 16, 16, 3), torch.arange(4) % 2)
    model = nn.Sequential(first, nn.Conv2d(3, 2, 3))
    with pytest.raises(InputError, match=r"add torchvision\.transforms\.v2\.ToImage\(\)"):
        EVERY[way](model, data, tmp_path / "run.h5")
