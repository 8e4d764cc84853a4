import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, resource, sys
import torch
from torch import nn
import fastconv, fastconv.run.save_clock

torch.set_num_threads(1)
count, out, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
side, filters = (32, 64) if what == "maps" else (16, 16)

class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return count
    def __getitem__(self, index):
        return torch.rand(3, side, side, generator=torch.Generator().manual_seed(index)), index % 10

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, filters, 3), nn.ReLU(), nn.Conv2d(filters, 64, 3, stride=2)
)
fastconv.run.save_clock.MIN_SECONDS = 0.2
asked = {"samples": True, "progress": False}
if what == "maps":
    asked["maps"] = slice(0, 2000, 4)
else:
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)])
    changes = fastconv.perturb.parse("rot9,rot45,noise0.1,blur1,flip,jpeg50,shuffle4,fgsm2")
    asked |= {"outcomes": True, "conditions": changes}
fastconv.extract(model, Noise(), out, **asked)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["maps", "conditions"])
def test_peak_memory_does_not_grow_with_the_number_of_samples(tmp_path, what):
    """2,000 and 20,000 samples, with per-sample summaries: equal within 5 %.

    With maps, or under 8 conditions with outcomes.
    """
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    peak = {}
    for count in (2_000, 20_000):
        command = [sys.executable, "-c", SCRIPT, str(count), str(tmp_path / f"{count}.h5"), what]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        peak[count] = json.loads(done.stdout)
    assert peak[20_000] <= 1.05 * peak[2_000], peak
