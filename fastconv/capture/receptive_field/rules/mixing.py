"""Operations that mix the positions of whole dimensions: reductions, norms, products."""

from __future__ import annotations

from dataclasses import replace

from fastconv.capture.receptive_field.field import Reach, combine, lose, mix, settle
from fastconv.capture.receptive_field.rules.pointwise import pointwise
from fastconv.capture.receptive_field.rules.rule import Context, rule, spread
from fastconv.capture.trace import Op


@rule(
    "mean",
    "sum",
    "prod",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "linalg_vector_norm",
    "logsumexp",
    "any",
    "all",
    "argmax",
    "argmin",
)
def _reduce(c: Context) -> Reach:
    if len(c.op.inputs) > 1:
        return pointwise(c)
    dims = c.op.arguments.get("dim")
    dims = range(c.first.ndim) if dims is None or dims == [] else spread(dims, 1)
    return mix(c.look(c.first), dims, drop=c.out.ndim < c.first.ndim)


@rule("_softmax", "_log_softmax", "cumsum", "cumprod", "flip", "roll", "index_select", "sort")
def _along_dims(c: Context) -> Reach:
    dims = c.op.arguments.get("dim", c.op.arguments.get("dims"))
    dims = range(c.first.ndim) if dims in (None, []) else spread(dims, 1)
    return (mix if "softmax" in c.op.name else lose)(c.seen(), dims)


@rule(
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "batch_norm_elemt",
)
def _norm(c: Context) -> Reach:
    n = c.first.ndim
    if c.op.name == "native_layer_norm":
        dims = range(n - len(c["normalized_shape"]), n)
    elif c.op.name == "native_group_norm":
        dims = range(1, n)
    else:
        dims = range(2, n) if is_training_norm(c.op) else range(0)
    return mix(c.seen(), dims)


def is_training_norm(op: Op) -> bool:
    """Whether a batch norm takes its moments from the batch."""
    default = op.name in ("_native_batch_norm_legit", "_batch_norm_with_update")
    return bool(op.arguments.get("training", default))


@rule("linear")
def _linear(c: Context) -> Reach:
    return replace(mix(c.seen(), [-1]), uneven=False)


@rule("mm", "bmm", "addmm", "baddbmm")
def _matmul(c: Context) -> Reach:
    *bias, a, b = c.op.inputs
    left, right = mix(c.look(a), [-1]), mix(c.look(b), [-2])
    column = (*left.axes[:-1], None)
    row = (*right.axes[:-2], None, right.axes[-1])
    shape_a, shape_b = (*a.shape[:-1], b.shape[-1]), (*b.shape[:-2], a.shape[-2], b.shape[-1])
    parts = [(settle(left, column), shape_a), (settle(right, row), shape_b)]
    parts += [(c.look(t), t.shape) for t in bias]
    return combine(parts, c.out.shape)
