from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink_colours(input: Tensor, factor: int, low: Tensor, scale: Tensor) -> Tensor:
    means = F.avg_pool2d(input, factor, ceil_mode=True, count_include_pad=False)
    return colours(means, low, scale).contiguous()


def colours(values: Tensor, low: Tensor, scale: Tensor) -> Tensor:
    """[N, h, w, 3] uint8 of [N, 1 or 3, h, w]; 0 where not a number."""
    scaled = (values - low.view(-1, 1, 1)).mul_(scale.view(-1, 1, 1))
    scaled = scaled.nan_to_num_(0.0).clamp_(0, 255).round_()
    return scaled.to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
