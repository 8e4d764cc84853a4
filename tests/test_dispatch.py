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
from fastconv.backends import cpu
from fastconv.errors import BackendUnavailableError, InputError

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
    with pytest.raises(BackendUnavailableError, match="'cuda' is not available: this version"):
        fastconv.channel_reduce(X, backend="cuda")


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
