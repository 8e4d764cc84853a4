// Row segments put together: parts [segments, rows] -> [rows], in the order of the segments.
#pragma once
#include "lane_state.cuh"

namespace fastconv {

struct MergeParams {
  ReductionOut parts, out;
  int64_t rows;
  int segments;
};

static __global__ void __launch_bounds__(256)
    merge_segments_kernel(const __grid_constant__ MergeParams q) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= q.rows) return;
  LaneState all = nothing();
  const auto place = [](int64_t at) { return at < 0 ? kNone : static_cast<int>(at); };
  for (int s = 0; s < q.segments; ++s) {
    const ReductionOut& from = q.parts;
    const int64_t at = s * q.rows + row;
    all = merged(all, {from.sum[at], from.sumsq[at], from.min[at], from.max[at],
                       place(from.argmin[at]), place(from.argmax[at]),
                       static_cast<int>(from.positive[at]), static_cast<int>(from.nonfinite[at])});
  }
  write_state(q.out, row, all);
}

}  // namespace fastconv
