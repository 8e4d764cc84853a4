// Cuts a convolution into work; see ConvPlan.
#pragma once
#include <vector>

#include "../params.h"

namespace fastconv {

// `table` holds what the plan points to and must outlive it.
ConvPlan plan_conv(const ConvReduceParams& params, int64_t channel_block, bool amx, int64_t threads,
                   std::vector<int64_t>& table);

}  // namespace fastconv
