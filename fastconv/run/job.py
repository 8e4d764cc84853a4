"""One model over one data set: what it takes to run, the same for `extract` and `verify`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastconv.capture import Forward, capture_forward, probe
from fastconv.capture.batch import first_tensor, picture, with_first
from fastconv.data import hinted
from fastconv.data.samples import Samples, prepared
from fastconv.errors import FastconvError, InputError
from fastconv.measure.patches import Display
from fastconv.run.condition import Condition
from fastconv.run.fingerprint import made_by, model_hash
from fastconv.run.options import Options
from fastconv.run.outcomes import Output, class_scores, outcomes_of
from fastconv.run.plan import chosen_by, plan_kernels
from fastconv.run.transfer import Transfer
from fastconv.run.units import Units

_PROBED = 16  # samples whose values decide how images are displayed

Affine = tuple[Tensor, Tensor]  # scale and shift [C] of a batch norm


class Sink(Protocol):
    """Takes what a forward hands over of one layer."""

    def output(self, value: Tensor, batch: Any) -> None:
        """Take the output [n, C, *spatial] of a layer that runs by itself."""

    def input(self, x: Tensor, batch: Any) -> Tensor | None:
        """Run a fused layer on its input; returns what the network reads of it."""

    def absent(self, batch: Any) -> None:
        """Note that the model did not call the layer for a batch."""


class Job:
    """One model over one data set: the plan, its identity, and the forward.

    Holds nothing that was measured: that is in the sinks that `forward` is given.

    Attributes:
        conditions: under which the same samples are measured as well.
        layers: what is measured, in forward order, and how.
        network: the model as it is called.
        edges: pairs of layers, the output of the first reaching the second.
        input_size: spatial size of a sample.
        display: how input values become colours; None where pictures are not images.
        affines: scale and shift of the batch norm after every layer, where maps are to have them.
        absent_allowed: whether the model may pass over a layer that it called in the probe.
        units: the batches of the data set.
        identity: all that the result depends on, but for the software (`made_by`).
    """

    def __init__(
        self,
        model: nn.Module,
        source: Samples,
        options: Options,
        layers: Any,
        device: torch.device,
        *,
        conditions: Sequence[Condition] = (),
        output: Output = None,
        forward: Forward | None = None,
    ):
        self.source, self.options, self.device = source, options, device
        self.units = Units(source, options)
        self.conditions, self._output = list(conditions), output
        source.keep_columns(options.columns)
        if options.outcomes:
            source.require_labels()
        first, label = next(iter(source.batches([[source.first()]])))
        self.input_size = tuple(picture(first).shape[2:])
        dtype = _weight_dtype(model)
        with self._autocast():
            example = Transfer(device, dtype=dtype)(first)
            with hinted(source, model):
                found = probe(model, example, layers, options.stage, forward)
        self.network, self.edges = found.network, found.edges
        self.transfer = Transfer(device, found.layout, dtype)
        if device.type == "cpu":
            source.layout = found.layout
        with ThreadPoolExecutor(1) as aside:
            hashed = aside.submit(model_hash, found.network.module)
            self.layers = plan_kernels(found.targets, options, device)
            fingerprint = source.fingerprint()
            self.display = self._choose_display()
        names = [layer.info.name for layer in self.layers]
        self.affines: list[Affine] | None = None
        if options.normalize == "batchnorm":
            self.affines = _affines_that_follow(names, found.norms)
        self.identity: dict[str, Any] = {
            "model": hashed.result(),
            "graph": found.signature,
            "data": fingerprint,
            "layers": names,
            "device": device.type,
            "layout": str(found.layout).removeprefix("torch."),
            "kernels": [layer.kernels for layer in self.layers],
            **options.as_dict(),
        }
        self.absent_allowed = source.skip
        self._dtype = dtype or torch.float32
        self._try_out(self.transfer(first), label)
        self._cast = _cast(prepared(first_tensor(first)).dtype, dtype)
        self.samples_at_a_time = options.batch_size  # fewer, where memory does not suffice

    def config(self) -> dict[str, Any]:
        """How the result was made, as the file keeps it."""
        at_a_time = self.samples_at_a_time
        fewer = {"samples_at_a_time": at_a_time} if at_a_time < self.options.batch_size else {}
        display = self.display
        data = {**self.identity["data"], "length": self.source.length}  # of a stream: by now
        return {
            **fewer,
            **self._cast,
            "fingerprint": {**self.identity, "data": data},
            "made_by": self.made_by(),
            "kernels_chosen_by": chosen_by(self.device),
            "model": type(self.network.module).__name__,
            "input_size": self.input_size,
            "display": None if display is None else {"low": display.low, "high": display.high},
        }

    def made_by(self) -> dict[str, Any]:
        """The software and the machine that bits of the result may depend on."""
        return made_by(self.device, self.options.backend)

    def pieces(self, count: int) -> list[slice]:
        """The rows of each forward of a batch."""
        step = self.samples_at_a_time
        return [slice(a, min(a + step, count)) for a in range(0, count, step)]

    def take_fewer(self, error: torch.OutOfMemoryError) -> None:
        """Halve the samples of a forward."""
        before = self.samples_at_a_time
        if before == 1:
            raise FastconvError(
                f"one sample is too much for the memory of {self.device}: "
                f"{str(error).splitlines()[0]}; run on another device"
            ) from error
        self.samples_at_a_time = (before + 1) // 2
        warnings.warn(
            f"{self.device} is out of memory: the model gets {self.samples_at_a_time} samples at "
            f"a time from now on, not {before}",
            stacklevel=2,
        )

    def _try_out(self, example: Any, label: Tensor | None) -> None:
        """Find out on one sample, before any work is done, whether all that is asked for works."""
        if self.options.outcomes:
            with torch.no_grad():
                outcomes_of(self.scores(example), label)
        sample = torch.tensor([self.source.first()], device=self.device)
        for condition in self.conditions:
            changed = [self.changed(condition, example, sample, label) for _ in range(2)]
            condition.require_same(*map(first_tensor, changed))

    def scores(self, inputs: Any) -> Tensor:
        """The model's class scores [n, K]; with their gradient where that is enabled."""
        gradient = torch.is_grad_enabled()
        with self._autocast(), self.network.running(), torch.set_grad_enabled(gradient):
            output = self.network.call(inputs)
        return class_scores(output, self._output, len(first_tensor(inputs)))

    def changed(
        self, condition: Condition, inputs: Any, samples: Tensor, labels: Tensor | None
    ) -> Any:
        """The inputs of some samples under a condition, ready for `forward`.

        Of several inputs the first is changed.
        """

        def scores(changed: Tensor) -> Tensor:
            return self.scores(with_first(inputs, changed.to(self._dtype)))

        with torch.no_grad():
            changed = condition.apply(first_tensor(inputs), samples, scores, labels)
            return self.transfer(with_first(inputs, changed))

    def forward(
        self, inputs: Any, sinks: Sequence[Sink], batch: Any, *, scores: bool = False
    ) -> Tensor | None:
        """Run the model up to the deepest layer; each layer goes to its sink, with `batch`.

        With `scores` it runs to its end, and its class scores [n, K] are returned.
        """
        fused = {i for i, layer in enumerate(self.layers) if layer.replaced}
        with self._autocast():
            output = capture_forward(
                self.network,
                [layer.target for layer in self.layers],
                inputs,
                lambda i, value: sinks[i].output(value, batch),
                fused,
                lambda i, x: sinks[i].input(x, batch),
                (lambda i: sinks[i].absent(batch)) if self.absent_allowed else None,
                to_output=scores,
            )
        return class_scores(output, self._output, len(first_tensor(inputs))) if scores else None

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.options.dtype is None:  # nor may that of the caller leak in
            return torch.autocast(self.device.type, enabled=False)
        try:
            return torch.autocast(self.device.type, getattr(torch, self.options.dtype))
        except RuntimeError as error:  # of a GPU without bfloat16
            reason = str(error).splitlines()[0]
            raise InputError(
                f"dtype {self.options.dtype!r} cannot be used on {self.device}: {reason}"
            ) from error

    def _choose_display(self) -> Display | None:
        if not self.options.patches:
            return None
        chosen = self.source.spread(_PROBED)
        values = torch.cat([picture(x) for x, _ in self.source.batches([[i] for i in chosen])])
        return Display.choose(values, self.source.input_dtype)


def _weight_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype of the first floating-point weight, which inputs are cast to."""
    tensors = [*model.parameters(), *model.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), None)


def _cast(given: torch.dtype, wanted: torch.dtype | None) -> dict[str, str]:
    """The cast of the inputs, for the file; empty where there is none."""
    if wanted is None or given == wanted or not given.is_floating_point:
        return {}
    before, after = (str(t).removeprefix("torch.") for t in (given, wanted))
    return {"input_cast": f"{before} -> {after}"}


def _affines_that_follow(names: Sequence[str], norms: Mapping[str, Affine]) -> list[Affine]:
    """Scale and shift of the batch norm after every layer.

    Raises:
        InputError: a layer that no batch norm with fixed moments follows.
    """
    missing = [name for name in names if name not in norms]
    if missing:
        raise InputError(
            f'normalize="batchnorm": no batch norm with fixed moments follows '
            f"{', '.join(missing[:5])}; leave these layers out or choose another normalisation"
        )
    return [norms[name] for name in names]
