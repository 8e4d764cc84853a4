"""Running top-k per channel: exact, with deterministic ties."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastconv import dispatch
from fastconv.errors import InputError

torch.library.define(
    "fastconv::topk_merge",
    "(Tensor values, Tensor samples, Tensor positions, Tensor new_values, Tensor new_samples,"
    " Tensor new_positions, bool largest, str backend='auto') -> (Tensor, Tensor, Tensor, Tensor)",
)


class TopK(NamedTuple):
    """The best k entries of every channel, best first; empty slots hold NaN, -1, -1, -1.

    Example:
        >>> from fastconv.ops.topk_merge import empty_topk
        >>> empty_topk(channels=1, k=2).samples
        tensor([[-1, -1]])
    """

    values: Tensor  # [C, k] float32
    samples: Tensor  # [C, k] int64
    positions: Tensor  # [C, k] int64, flat
    source: Tensor  # [C, k] int64: old slot s as s, new candidate m as k + m


@torch.library.impl("fastconv::topk_merge", ("CPU", "CUDA"))
def _run(values, *rest):
    args, backend = (rest, "auto") if len(rest) == 6 else (rest[:-1], rest[-1])
    return dispatch.select("topk_merge", backend, values.device, values, *args)(values, *args)


@torch.library.register_fake("fastconv::topk_merge")
def _fake(values, samples, *rest):
    return (torch.empty_like(values), *(torch.empty_like(samples) for _ in range(3)))


def topk_merge(
    values: Tensor,
    samples: Tensor,
    positions: Tensor,
    new_values: Tensor,
    new_samples: Tensor,
    new_positions: Tensor,
    *,
    largest: bool = True,
    backend: str = "auto",
) -> TopK:
    """Merge candidates into the running top-k of every channel.

    The order is total: value first (descending if `largest`, else ascending), then the lower
    sample, then the lower position. The result therefore does not depend on how candidates are
    split into calls. Candidates with a non-finite value or a negative sample never enter.

    Args:
        values, samples, positions: [C, k] float32, int64, int64: the running entries, in any order,
            empty slots with sample -1 (start with `empty_topk`).
        new_values, new_samples, new_positions: [C, M] float32, int64, int64: the candidates.
        largest: keep the largest values, else the smallest.

    Returns:
        `TopK`: the entries, best first, and where each came from.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Example:
        >>> import fastconv, torch
        >>> from fastconv.ops.topk_merge import empty_topk
        >>> best = empty_topk(channels=1, k=2)
        >>> values = torch.tensor([[3.0, 5.0, 5.0, 1.0]])
        >>> samples, positions = torch.tensor([[0, 2, 1, 3]]), torch.zeros(1, 4, dtype=torch.int64)
        >>> best = fastconv.topk_merge(*best[:3], values, samples, positions)
        >>> best.values.tolist(), best.samples.tolist()  # ties go to the lower sample
        ([[5.0, 5.0]], [[1, 2]])
    """
    for name, value, dtype, like in (
        ("values", values, torch.float32, values),
        ("samples", samples, torch.int64, values),
        ("positions", positions, torch.int64, values),
        ("new_values", new_values, torch.float32, new_values),
        ("new_samples", new_samples, torch.int64, new_values),
        ("new_positions", new_positions, torch.int64, new_values),
    ):
        if (
            value.ndim != 2
            or value.shape != like.shape
            or value.dtype != dtype
            or value.device != values.device
        ):
            raise InputError(
                f"{name} must be {dtype} {list(like.shape)} on {values.device}, "
                f"got {value.dtype} {list(value.shape)} on {value.device}"
            )
    if new_values.shape[0] != values.shape[0]:
        raise InputError(
            f"{values.shape[0]} channels are kept, but {new_values.shape[0]} are given"
        )
    new = (new_values, new_samples, new_positions)
    return TopK(*dispatch.run("topk_merge", backend, values, samples, positions, *new, largest))


def empty_topk(channels: int, k: int, device: torch.device | str = "cpu") -> TopK:
    """A running top-k that holds nothing yet."""
    none = torch.full((channels, k), -1, dtype=torch.int64, device=device)
    return TopK(
        torch.full((channels, k), torch.nan, device=device), none, none.clone(), none.clone()
    )
