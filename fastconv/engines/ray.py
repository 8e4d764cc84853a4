"""The shares of a run as tasks of Ray (extra `[ray]`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from fastconv.engines.ranks import Rank
from fastconv.errors import InputError

RETRIES = 3  # of a task whose worker or node has died
ENVIRONMENT = ("OMP_NUM_THREADS", "FASTCONV_ISA")


def ray_tasks(engine: str | None) -> int | None:
    """Number of tasks that "ray:N" asks for, 0 of "ray": as many as fit; None of other engines.

    Raises:
        InputError: no engine of that name.
    """
    if engine in (None, "local"):
        return None
    name, _, count = str(engine).partition(":")
    if name != "ray" or (count and not (count.isdecimal() and int(count) > 0)):
        raise InputError(f"engine must be None, 'local', 'ray' or 'ray:N', got {engine!r}")
    return int(count or 0)


def run_tasks(
    work: Callable[[Rank], None], tasks: int | None, gpus: int, on_wait: Callable[[], None]
) -> None:
    """Run `work(rank)` in that many tasks at once; a task that dies is started again.

    Args:
        tasks: default one for each GPU, or for each set of CPUs of this process's thread count.
        gpus: that each task asks for, 0 or 1.
        on_wait: called about twice a second.

    Raises:
        InputError: ray is not installed.
        Exception: whatever a task raised, as it raised it.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("engine 'ray' needs ray: pip install 'fastconv[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    threads = torch.get_num_threads()
    resources = ray.cluster_resources()
    if tasks is None:
        tasks = int(resources.get("GPU", 0)) if gpus else int(resources["CPU"]) // threads
    tasks = max(1, tasks)
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    start = ray.remote(
        num_cpus=min(threads, resources["CPU"]),
        num_gpus=gpus,
        max_retries=RETRIES,
        runtime_env={"env_vars": environment} if environment else {},
    )(_task)
    given = ray.put((work, threads))
    pending: list[Any] = [start.remote(given, Rank(i, tasks)) for i in range(tasks)]
    try:
        while pending:
            ready, pending = ray.wait(pending, timeout=0.5)
            on_wait()
            for task in ready:
                try:
                    ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
    finally:
        for task in pending:
            ray.cancel(task, force=True)
        deadline = time.monotonic() + 10  # a task that is ended lets go of its claims
        while pending and time.monotonic() < deadline:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=0.5)


def _task(given: tuple[Callable[[Rank], None], int], rank: Rank) -> None:
    work, threads = given
    torch.set_num_threads(threads)  # bits of the forward depend on it
    work(rank)
