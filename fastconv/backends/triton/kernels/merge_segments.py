from __future__ import annotations

import triton
import triton.language as tl

from fastconv.backends.triton.kernels.epilogue import NO_POSITION, merge, new_state, store_state


@triton.jit
def merge_segments_kernel(parts, fields, SEGMENTS, ROWS, BLOCK: tl.constexpr):
    """fields [ROWS] = parts [SEGMENTS, ROWS] merged in the order of the segments."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < ROWS
    state = new_state(row)
    for segment in range(0, SEGMENTS):
        at = segment * ROWS + row
        argmax = tl.load(parts[4] + at, mask=mask, other=-1).to(tl.int32)
        argmin = tl.load(parts[5] + at, mask=mask, other=-1).to(tl.int32)
        state = merge(
            state,
            (
                tl.load(parts[0] + at, mask=mask, other=0.0),
                tl.load(parts[1] + at, mask=mask, other=0.0),
                tl.load(parts[2] + at, mask=mask, other=0.0),
                tl.load(parts[3] + at, mask=mask, other=0.0),
                tl.where(argmax < 0, NO_POSITION, argmax),
                tl.where(argmin < 0, NO_POSITION, argmin),
                tl.load(parts[6] + at, mask=mask, other=0).to(tl.int32),
                tl.load(parts[7] + at, mask=mask, other=0).to(tl.int32),
            ),
        )
    store_state(fields, row, state, mask)
