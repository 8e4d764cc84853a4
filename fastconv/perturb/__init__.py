"""Changes of the model's input, to see how filters answer to them.

A perturbation is called with a batch [n, C, *spatial] and the indices of its samples [n], and gives
a batch of the same shape and dtype. It depends on the sample alone: the same sample is changed the
same way whatever the batch, worker or shard. Any callable of this form can be used instead.

Values are those of pixels from 0 to 1; `mean` and `std` (a number, or one a channel) tell what was
subtracted and divided by where the model's input is normalised. Pixels of 0 ... 255 are
`mean=0, std=1/255`. Results stay between 0 and 1, or in the sample's own range where it is wider.
"""

from fastconv.perturb.adversarial import fgsm, pgd
from fastconv.perturb.appearance import blur, brightness, contrast, frequency, hue, jpeg, noise
from fastconv.perturb.describe import describe, from_description
from fastconv.perturb.parse import parse
from fastconv.perturb.perturbation import Perturbation
from fastconv.perturb.placement import flip, rotate, scale, translate
from fastconv.perturb.sequence import drop_frames, shuffle_frames, stretch, time_shift
from fastconv.perturb.structure import occlude, shuffle_patches, silhouette

__all__ = [
    "Perturbation",
    "describe",
    "from_description",
    "parse",
    "rotate",
    "translate",
    "scale",
    "flip",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "hue",
    "jpeg",
    "frequency",
    "occlude",
    "shuffle_patches",
    "silhouette",
    "time_shift",
    "stretch",
    "drop_frames",
    "shuffle_frames",
    "fgsm",
    "pgd",
]
