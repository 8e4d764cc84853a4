"""The native libraries, built on the device machine while what needs none of them runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import torch

from device_stages.common import HERE, Suite

ROOT = HERE.parent
SECONDS = 200.0


class Build:
    """`setup.py build_ext --inplace` for this device alone, in a process of its own."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.process = suite, None
        if suite.smoke or _up_to_date():
            return
        major, minor = torch.cuda.get_device_capability()
        architecture = f"{major}.{minor}" + ("a" if major == 9 else "")
        chosen = {"FASTCONV_CUDA": "1", "TORCH_CUDA_ARCH_LIST": architecture}
        self.started = time.monotonic()
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until the build has ended
        self.process = subprocess.Popen(
            [sys.executable, "setup.py", "build_ext", "--inplace"],
            cwd=ROOT, env=os.environ | chosen, stdout=self.told, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def wait(self) -> str | None:
        """The end of what the compilers said, if they failed."""
        if self.process is None:
            return None
        try:
            code = self.process.wait(max(min(SECONDS, self.suite.left()), 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # the compilers, too
            return "the build took too long"
        self.suite.result["build, seconds"] = round(time.monotonic() - self.started)
        self.told.seek(0)
        return None if code == 0 else self.told.read()[-1500:]


def _up_to_date() -> bool:
    """Whether both libraries are newer than every source."""
    made = [path.stat().st_mtime for path in (ROOT / "fastconv").glob("_C*.so")]
    sources = [path.stat().st_mtime for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    return len(made) >= 2 and min(made) > max(sources)
