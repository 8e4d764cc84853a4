"""Read everything there is in each file named on standard input; say how it went, one line each."""

import sys

import fastconv
from fastconv.errors import FastconvError


def read_all(path):
    """The digest of a file; raises FastconvError, and nothing else, when it is damaged."""
    with fastconv.open(path) as run:
        layers = [run[name] for name in run.layers]
        layers += [layer.condition(name) for layer in layers for name in layer.conditions]
        for layer in layers:
            reads = {
                "stats": lambda layer=layer: dict(layer.stats),
                "topk": lambda layer=layer: layer.topk,
                "bottomk": lambda layer=layer: layer.bottomk,
                "patches": lambda layer=layer: layer.patch(0, 0),
                "bottomk_patches": lambda layer=layer: layer.patch(0, 0, bottom=True),
                "histogram": lambda layer=layer: layer.quantile([0.1, 0.9]),
                "overview": lambda layer=layer: layer.overview,
                "activations": lambda layer=layer: layer.map(layer.map_samples[0]),
                "samples": lambda layer=layer: (layer.samples.max, layer.samples.mean),
                "merge": layer.result,
            }
            layer.weight  # noqa: B018
            for group in layer.holds:
                reads.get(group, lambda: None)()
        if run.samples is not None:
            list(run.samples.thumbnails.values())
        run.attributes, run.graph, run.conditions  # noqa: B018
        run.damaged()
        return run.digest()


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            print(read_all(line.strip()), flush=True)
        except FastconvError as error:
            assert "\n" not in str(error), str(error)
            print(f"{type(error).__name__}: {error}", flush=True)
