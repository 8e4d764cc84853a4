"""The registry: what is chosen, what is refused, and what the refusal says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from helpers.backend_cases import DEVICES, needs_native

import fastconv
from fastconv import dispatch
from fastconv.backends import cpu, reference
from fastconv.errors import BackendUnavailableError, InputError
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce_in_network
from fastconv.reduction import CandidateLists, PostOps

X = torch.randn(2, 3, 4)


def test_every_op_has_a_reference_on_every_device():
    for device in DEVICES:
        listed = fastconv.backends(device)
        assert list(listed) == list(dispatch.OPS)
        assert all(names[-1] == "reference" for names in listed.values())


@needs_native
def test_the_best_backend_comes_first_and_is_chosen(monkeypatch):
    assert fastconv.backends()["channel_reduce"][0] == "cpu"
    monkeypatch.setitem(
        dispatch.load("reference").KERNELS, "channel_reduce", None
    )  # would fail if it were used
    assert fastconv.channel_reduce(X).max.shape == (2, 3)


@needs_native
def test_auto_falls_back_where_the_best_cannot_run():
    wide = fastconv.channel_reduce(X.double())
    assert torch.equal(wide.sum, fastconv.channel_reduce(X.double(), backend="reference").sum)


@needs_native
def test_an_explicit_backend_never_falls_back():
    with pytest.raises(
        BackendUnavailableError, match="'cpu' cannot run this channel_reduce on cpu"
    ):
        fastconv.channel_reduce(X.double(), backend="cpu")
    with pytest.raises(BackendUnavailableError, match="float64"):
        fastconv.conv_reduce(X.double(), torch.zeros(2, 3, 1).double(), backend="cpu")
    with pytest.raises(BackendUnavailableError, match="backend 'cpu' has no channel_normalize; it"):
        fastconv.channel_normalize(X, "l1", backend="cpu")
    complex128 = torch.zeros(1, 1, 4, dtype=torch.complex128)
    zero = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(BackendUnavailableError, match="1, 2, 4 or 8 bytes"):
        fastconv.gather_patches(complex128, zero, zero[:, None], 2, backend="cpu")


def test_a_backend_that_cannot_be_loaded_says_why():
    reason = dispatch.load("cuda")
    if not isinstance(reason, str):
        pytest.skip("the CUDA kernels run here")
    with pytest.raises(BackendUnavailableError) as error:
        fastconv.channel_reduce(X, backend="cuda")
    assert str(error.value) == f"backend 'cuda' is not available: {reason}"


def test_an_unknown_backend_lists_the_known_ones():
    known = "backend must be 'auto' or one of reference, cpu, triton, cuda, got 'gpu'"
    with pytest.raises(InputError, match=known):
        fastconv.channel_reduce(X, backend="gpu")


@needs_native
def test_set_isa_refuses_what_the_machine_lacks():
    before = cpu.isa()
    with pytest.raises(BackendUnavailableError, match="FASTCONV_ISA=avx9 is not to be had: this"):
        cpu.set_isa("avx9")
    assert cpu.isa() == before


@needs_native
def test_the_environment_chooses_the_instruction_set():
    code = (
        "import fastconv; fastconv.backends(); from fastconv.backends import cpu; print(cpu.isa())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "FASTCONV_ISA": "scalar"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "scalar"


def test_private_arguments_go_only_to_a_kernel_that_takes_them(monkeypatch):
    """Post-ops and candidate lists fall back like a dtype does, and the values are the same."""
    conv = torch.nn.Conv1d(3, 5, 3)
    post_ops = PostOps(torch.full((5,), 2.0), torch.ones(5), "relu")
    given = {
        "scale": None, "shift": None, "activation": None, "histogram": False, "written": True,
        "post_ops": post_ops, "backend": "auto",
    }  # fmt: skip
    x = torch.randn(2, 3, 9)
    with torch.no_grad():
        wanted = conv_reduce_in_network(x, conv, **given)
        best = dispatch.load(fastconv.backends()["conv_reduce"][0])
        kernel = best.KERNELS["conv_reduce"]
        monkeypatch.setitem(best.KERNELS, "conv_reduce", kernel._replace(takes=frozenset()))
        got = conv_reduce_in_network(x, conv, **given)
        torch.testing.assert_close(got.activation, wanted.activation)
        torch.testing.assert_close(got.activation, torch.relu(2 * conv(x) + 1))
        name = fastconv.backends()["conv_reduce"][0]
        if name != "reference":
            with pytest.raises(BackendUnavailableError, match="it takes no post_ops"):
                conv_reduce_in_network(x, conv, **{**given, "backend": name})


@pytest.mark.parametrize("largest", [True, False])
def test_every_backend_that_takes_candidate_lists_fills_them_alike(largest):
    x = torch.randn(4, 3, 50)
    x[0, 1, 3], x[2, 2, 7] = torch.nan, torch.inf
    threshold = torch.tensor([0.5, -0.2, 1.0])
    found = {}
    for name in fastconv.backends()["channel_reduce"]:
        if "candidates" in dispatch.load(name).KERNELS["channel_reduce"].takes:
            lists = CandidateLists.create(threshold, 200, largest=largest)
            channel_reduce(x, candidates=lists, backend=name)
            found[name] = [
                sorted(zip(lists.values[c, :n].tolist(), lists.places[c, :n].tolist(), strict=True))
                for c, n in enumerate(lists.counts.tolist())
            ]
    assert "reference" in found
    assert all(lists == found["reference"] for lists in found.values())
    value = x.movedim(1, 0).flatten(1)
    side = value >= threshold[:, None] if largest else value <= threshold[:, None]
    assert [len(c) for c in found["reference"]] == (side & value.isfinite()).sum(1).tolist()


@needs_native
def test_more_positions_than_the_kernels_count_go_to_the_reference():
    """Nothing is allocated: the tensor repeats one value."""
    x, device = torch.zeros(1).expand(1, 1, 2**30 + 1), torch.device("cpu")
    for op in ("channel_reduce", "conv_reduce"):
        assert dispatch.select(op, "auto", device, x) is reference.KERNELS[op].run
        with pytest.raises(BackendUnavailableError, match="1073741825 positions, more than 2"):
            dispatch.select(op, "cpu", device, x)
