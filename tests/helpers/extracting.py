"""A run into a folder of a test, and the outputs that it measures."""

import copy

import torch

import fastconv
from helpers.networks import images, network


def run(tmp_path, name="run.h5", model=None, data=None, **options):
    options = {"progress": False, **options}
    return fastconv.extract(
        network() if model is None else model,
        images(50) if data is None else data,
        tmp_path / name,
        **options,
    )


def outputs(model, data, layers):
    """Every layer's output in float64, by plain hooks and clones."""
    found = {name: [] for name in layers}
    model = copy.deepcopy(model).double().eval()
    calls = {}

    def keep(module, args, value, path):
        calls[path] = calls.get(path, -1) + 1
        name = path if calls[path] == 0 else f"{path}#{calls[path]}"
        if name in found:
            found[name].append(value.detach().clone())

    for path, module in model.named_modules():
        module.register_forward_hook(lambda m, args, value, path=path: keep(m, args, value, path))
    with torch.no_grad():
        model(data.double())
    return {name: values[0] for name, values in found.items()}
