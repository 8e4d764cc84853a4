"""Everything that a run needs of a model, from one forward."""

import pytest
import torch
from helpers.networks import with_moments
from torch import nn

from fastconv.capture import Network, probe
from fastconv.errors import InputError

X = torch.rand(1, 3, 9, 12)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu_()
        return self.last(torch.cat([self.left(x) + x, self.right(x.relu_())], 1))


def test_edges_lead_from_layer_to_layer():
    edges = probe(Block(), X).edges
    to_last = [("left", "last"), ("right", "last"), ("stem", "last")]
    assert sorted(edges) == sorted([("stem", "left"), ("stem", "right"), *to_last])
    assert probe(Block(), X, ["stem", "last"]).edges == [("stem", "last")]


def test_edges_between_calls_of_one_module():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    assert probe(nn.Sequential(conv, nn.ReLU(), conv), X).edges == [("0", "0#1")]


def test_one_forward_tells_it_all():
    model, calls = with_moments(Block()), []
    model.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    found = probe(model, X)
    assert calls == [(2, 3, 9, 12)]
    assert [t.info.name for t in found.targets] == ["stem", "left", "right", "last"]
    assert list(found.norms) == ["stem"]
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    torch.testing.assert_close(found.norms["stem"][0], scale.detach())
    assert found.layout == torch.channels_last


def test_images_are_contiguous_where_a_view_needs_that():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.view(len(x), -1).view(len(x), 3, 12, 9))

    found = probe(Flat(), X)
    assert (found.layout, found.targets[0].info.size) == (torch.contiguous_format, (10, 7))


def test_model_for_one_sample_at_a_time():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            if len(x) > 1:
                raise RuntimeError("one at a time")
            return self.conv(x)

    assert probe(Alone(), X).targets[0].info.size == (7, 10)


def test_what_is_no_module_is_refused():
    with pytest.raises(InputError, match=r"must be an nn\.Module, got a function"):
        probe(lambda x: x, X)


def test_network_puts_attributes_and_containers_back():
    class Messy(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.table, self.names = [1], {"a": 2}, {"x"}
            self.register_buffer("total", torch.zeros(2))

        def forward(self, x):
            self.seen.append(x)
            self.table["b"] = x
            self.names.add("y")
            self.extra = x
            self.total += 1
            del self.table["a"]
            return x

    model = Messy().train()
    network = Network(model)
    before = dict(vars(model))
    with network.running():
        assert not model.training
        network.call(X)
    network.written = [(model.total, torch.zeros(2))]
    with network.running():
        network.call(X)
    assert vars(model) == before
    assert (model.seen, model.table, model.names) == ([1], {"a": 2}, {"x"})
    assert model.training
    assert model.total.tolist() == [0, 0]
