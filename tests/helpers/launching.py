"""Launch on a Hopper that is not there: python launching.py [case ...].

Triton compiles and calls what the wrappers launch as on a device, but its driver is a stand-in
(driver.c), which checks what it is asked for and runs nothing. The cases are those of offline.py.
Prints "case NAME" and what the driver was asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import triton

HERE = Path(__file__).parent
NVIDIA = Path(triton.__file__).parent / "backends/nvidia"


def build_driver(folder: str) -> None:
    """libcuda.so.1 in a folder."""
    library = Path(folder) / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", f"-I{NVIDIA / 'include'}", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*command, HERE / "driver.c", "-o", library], check=True)


def main(names: list[str]) -> int:
    import offline
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.driver import CudaDriver
    from triton.runtime import driver

    device = CudaDriver()
    device.get_current_device = device.get_current_stream = lambda *_: 0
    device.get_current_target = lambda: GPUTarget("cuda", 90, 32)
    driver.set_active(device)
    offline.tuning.architecture = lambda _: "sm_90"
    failed = 0
    for name in names or offline.CASES:
        print("case", name, flush=True)
        op, arguments, precision = offline.CASES[name]
        offline.tuning.conv_precision = lambda x, precision=precision: precision
        try:
            offline.KERNELS[op].run(*arguments)
        except Exception as error:  # noqa: BLE001 - the other cases are told, too
            print(f"failed {type(error).__name__}: {str(error)[:200]}", flush=True)
            failed += 1
    return failed


if __name__ == "__main__":
    if "TRITON_LIBCUDA_PATH" in os.environ:
        sys.exit(main(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:  # the loader looks there only in a new process
        build_driver(folder)
        found = dict.fromkeys(("TRITON_LIBCUDA_PATH", "LD_LIBRARY_PATH"), folder)
        command = [sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=os.environ | found, check=False).returncode)
