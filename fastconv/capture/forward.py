"""The forward that hands the captured values over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from fastconv.capture.batch import first_tensor, single_tensor
from fastconv.capture.network import Network, explained
from fastconv.capture.targets import CaptureTarget
from fastconv.capture.trace import CONVOLUTION_OPS, OpMode, function_of
from fastconv.errors import FastconvError

Receive = Callable[[int, Any], None]
Compute = Callable[[Tensor], Tensor]


class _Done(BaseException):
    """Ends a forward of which nothing more is wanted; no `except Exception` can stop it."""


def capture_forward(
    model: nn.Module | Network,
    targets: Sequence[CaptureTarget],
    inputs: Any,
    on_output: Callable[[int, Tensor], None],
    fused: Container[int] = (),
    on_input: Callable[[int, Tensor], Tensor | None] | None = None,
    on_absent: Callable[[int], None] | None = None,
    *,
    to_output: bool = False,
) -> Any:
    """Run the model up to the deepest target, handing over each output as it appears.

    `on_output(i, tensor)` gets what the hooked call of targets[i] returned, [N, C, *spatial],
    before any in-place operation can touch it; it must not keep the tensor, nor write to it. Where
    a layer has m instances a sample the tensor is [N, C, m, *spatial]. The model runs in eval mode
    without gradients and is left as it was found, also when it raises; its own errors pass
    through, but for wrong input shapes: these are `InputError`.

    The calls of the targets in `fused` do not run: `on_input(i, input)` does their work, and
    returns what the network goes on with, as `targets[i].fusion` says, if `targets[i].fusion.read`.

    Args:
        model: the `network` of a `Probe`; a module is called as it is.
        inputs: a batch as the probe had it, of any number of samples.
        on_absent: called with targets that did not run, because the model chooses its path by the
            data; without it that is an error.
        to_output: run the model to its end.

    Returns:
        The model's output with `to_output`, else None.
    """
    network = model if isinstance(model, Network) else Network(model)
    count = len(first_tensor(inputs))
    missing = set(range(len(targets)))

    def finished(i: int) -> None:
        missing.discard(i)
        if not missing and not to_output:
            raise _Done

    def receive(i: int, output: object) -> None:
        tensor = output if isinstance(output, Tensor) else single_tensor(output)
        if tensor is None:
            raise FastconvError(
                f"layer {targets[i].info.name!r} returned one tensor in the probe forward, "
                f"now {type(output).__name__}"
            )
        on_output(i, _by_sample(tensor, targets[i], count))
        finished(i)

    def replace(i: int, tensor: Tensor) -> Tensor:
        assert on_input is not None
        value = on_input(i, tensor)
        finished(i)
        if value is None:  # nobody reads it; a reader would fail on the device
            size = (len(tensor), targets[i].info.channels, *targets[i].info.size)
            return tensor.new_empty(size, device="meta")
        return value

    indices = range(len(targets))
    chosen = [i for i in indices if i in fused]
    functions = [i for i in indices if targets[i].function]
    hooked = [i for i in indices if i not in fused and i not in functions]
    try:
        with network.running(), ExitStack() as stack:
            stack.enter_context(_hooks(targets, hooked, receive))
            if chosen:
                stack.enter_context(_replaced(targets, chosen, replace))
            if functions:
                stack.enter_context(_watched(network, targets, functions, receive))
            stack.enter_context(explained(first_tensor(inputs)))
            output = network.call(inputs)
    except _Done:
        output = None
    except RuntimeError:
        if missing or to_output:
            raise  # else TorchScript has made one of _Done
        output = None
    for i in sorted(missing):
        if on_absent is None:
            raise FastconvError(
                f"layer {targets[i].info.name!r} ran in the probe forward but not now: the model "
                "chooses its path by the data; leave the layer out, or let it be absent "
                "(on_error='skip')"
            )
        on_absent(i)
    return output if to_output else None


def _by_sample(tensor: Tensor, target: CaptureTarget, count: int) -> Tensor:
    """[N, C, m, *spatial] where the m instances of a sample are folded into the batch."""
    m = target.instances
    if m == 1:
        return tensor
    if len(tensor) != m * count:
        raise FastconvError(
            f"layer {target.info.name!r} gave {m} rows for each sample in the probe forward, now "
            f"{len(tensor)} for {count} samples: the model chooses their number by the data; leave "
            "the layer out"
        )
    return tensor.unflatten(0, (count, m)).movedim(1, 2)


@contextmanager
def _hooks(
    targets: Sequence[CaptureTarget], hooked: Sequence[int], receive: Receive
) -> Iterator[None]:
    wanted: dict[nn.Module, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in hooked:
        wanted[targets[i].module][targets[i].index].append(i)
    counts = dict.fromkeys(wanted, 0)

    def leave(module: nn.Module, _: tuple, output: object) -> None:
        index = counts[module]
        counts[module] = index + 1
        for i in wanted[module].get(index, ()):
            receive(i, output)

    handles = []
    try:
        for module in wanted:
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(OpMode):
    """Hands over the results of convolutions by the module that runs, function and index."""

    def __init__(
        self, wanted: dict[tuple[nn.Module, str, int], int], model: nn.Module, receive: Receive
    ):
        super().__init__()
        self.running = [model]
        self._wanted, self._receive = wanted, receive
        self._counts: Counter[tuple[nn.Module, str]] = Counter()

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if func._schema.name.removeprefix("aten::") in CONVOLUTION_OPS:
            names = [a.name for a in func._schema.arguments]
            given = dict(zip(names, args, strict=False)) | kwargs
            name = function_of(given["weight"], transposed=given["transposed"])
            key = self.running[-1], name
            i = self._wanted.get((*key, self._counts[key]))
            self._counts[key] += 1
            if i is not None:
                self._receive(i, output)
        return output


@contextmanager
def _watched(
    network: Network, targets: Sequence[CaptureTarget], functions: Sequence[int], receive: Receive
) -> Iterator[None]:
    """Convolutions without a module of their own, found among all operations."""
    wanted = {
        (targets[i].module, targets[i].function or "", targets[i].index): i for i in functions
    }
    watch = _Watch(wanted, network.module, receive)

    def enter(module: nn.Module, _: tuple) -> None:
        watch.running.append(module)

    def leave(module: nn.Module, _: tuple, output: object) -> None:
        while watch.running[-1] is not module:  # calls inside that raised, and were caught
            watch.running.pop()
        watch.running.pop()

    handles = []
    try:
        for module in network.names():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        with watch:
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced(
    targets: Sequence[CaptureTarget],
    chosen: Sequence[int],
    replace: Callable[[int, Tensor], Tensor],
) -> Iterator[None]:
    """Modules whose calls of some indices do something else."""
    calls: dict[nn.Module, dict[int, Compute]] = defaultdict(dict)
    for i in chosen:
        fusion = targets[i].fusion
        assert fusion is not None
        calls[targets[i].module][targets[i].index] = partial(replace, i)
        for module, index in fusion.absorbed:
            calls[module][index] = lambda x: x
    try:
        for module, instead in calls.items():
            module.forward = _forward(module.forward, instead)
        yield
    finally:
        for module in calls:
            vars(module).pop("forward", None)


def _forward(original: Compute, instead: dict[int, Compute]) -> Compute:
    count = 0

    def forward(input: Tensor) -> Tensor:
        nonlocal count
        run = instead.get(count, original)
        count += 1
        return run(input)

    return forward
