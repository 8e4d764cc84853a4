#include <algorithm>
#include <cstring>
#include <vector>

#include "bindings.h"

namespace fastconv {
namespace {

constexpr int64_t kGrainBytes = 65536;  // fewer are not worth another thread
constexpr int64_t kColours = 3;

struct Patches {
  const char* input;     // [N, C, depth, height, width], any strides
  const int64_t* index;  // [M]
  const int64_t* start;  // [M, 3]
  const int64_t* slot;   // [M]: the place of patch m in out, none below 0; null: m itself
  const float* low;      // [C]: null, or out is colours (value - low) * scale of float input
  const float* scale;
  char* out;  // contiguous: [slots, C, size...], or uint8 [slots, size..., 3]
  int64_t channels, extent[3], size[3];
  int64_t stride_n, stride_c, stride[3];

  int64_t values() const {
    return (low != nullptr ? kColours : channels) * size[0] * size[1] * size[2];
  }
};

template <typename T>
void copy_strided(const T* from, int64_t stride, int64_t count, T* to) {
  if (stride == 1) {
    std::memcpy(to, from, count * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

// The points [begin, end) of a row of patch m that lie in the input, and where they are in it.
struct Row {
  int64_t begin, end, offset;
};

Row row_inside(const Patches& p, int64_t m, int64_t z, int64_t y) {
  const int64_t* start = p.start + 3 * m;
  const int64_t at_z = start[0] + z, at_y = start[1] + y;
  if (at_z < 0 || at_z >= p.extent[0] || at_y < 0 || at_y >= p.extent[1])
    return {p.size[2], p.size[2], 0};
  const int64_t begin = std::clamp<int64_t>(-start[2], 0, p.size[2]);
  const int64_t end = std::clamp<int64_t>(p.extent[2] - start[2], begin, p.size[2]);
  return {begin, end,
          p.index[m] * p.stride_n + at_z * p.stride[0] + at_y * p.stride[1] +
              (start[2] + begin) * p.stride[2]};
}

// Row by row, every channel of a row together: channels_last input is read once, too.
template <typename T>
void copy_patch(const Patches& p, int64_t m, int64_t slot) {
  T* out = reinterpret_cast<T*>(p.out) + slot * p.values();
  const int64_t plane = p.values() / p.channels;
  for (int64_t z = 0; z < p.size[0]; ++z)
    for (int64_t y = 0; y < p.size[1]; ++y) {
      const Row in = row_inside(p, m, z, y);
      T* row = out + (z * p.size[1] + y) * p.size[2];
      for (int64_t c = 0; c < p.channels; ++c, row += plane) {
        std::memset(row, 0, in.begin * sizeof(T));
        if (in.begin < in.end)
          copy_strided(reinterpret_cast<const T*>(p.input) + in.offset + c * p.stride_c,
                       p.stride[2], in.end - in.begin, row + in.begin);
        std::memset(row + in.end, 0, (p.size[2] - in.end) * sizeof(T));
      }
    }
}

// 0 to 255, halves to even; 0 for NaN.
uint8_t colour(float value) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum has no room for a fraction
  value = value > 0.0f ? value : 0.0f;
  value = value < 255.0f ? value : 255.0f;
  return static_cast<uint8_t>((value + kRound) - kRound);
}

void copy_colours(const Patches& p, int64_t m, int64_t slot) {
  uint8_t* out = reinterpret_cast<uint8_t*>(p.out) + slot * p.values();
  for (int64_t z = 0; z < p.size[0]; ++z)
    for (int64_t y = 0; y < p.size[1]; ++y) {
      const Row in = row_inside(p, m, z, y);
      uint8_t* row = out + (z * p.size[1] + y) * p.size[2] * kColours;
      for (int64_t c = 0; c < kColours; ++c) {
        const int64_t from_c = std::min(c, p.channels - 1);
        const float low = p.low[from_c], scale = p.scale[from_c];
        const float* from =
            reinterpret_cast<const float*>(p.input) + in.offset + from_c * p.stride_c;
        const uint8_t outside = colour((0.0f - low) * scale);
        for (int64_t i = 0; i < in.begin; ++i) row[i * kColours + c] = outside;
        for (int64_t i = in.begin; i < in.end; ++i)
          row[i * kColours + c] = colour((from[(i - in.begin) * p.stride[2]] - low) * scale);
        for (int64_t i = in.end; i < p.size[2]; ++i) row[i * kColours + c] = outside;
      }
    }
}

void place_patches(Tensor input, Tensor index, Tensor start, std::optional<Tensor> slot,
                   std::optional<Tensor> low, std::optional<Tensor> scale, int64_t bytes,
                   Tensor out) {
  Patches p{};
  p.input = data<const char>(input);
  p.index = data<const int64_t>(index);
  p.start = data<const int64_t>(start);
  p.slot = optional_data<int64_t>(slot);
  p.low = optional_data<float>(low), p.scale = optional_data<float>(scale);
  p.out = data<char>(out);
  p.channels = input.size(1), p.stride_n = input.stride(0), p.stride_c = input.stride(1);
  for (int d = 0; d < 3; ++d) {
    p.extent[d] = input.size(2 + d), p.stride[d] = input.stride(2 + d);
    p.size[d] = out.size((p.low != nullptr ? 1 : 2) + d);
  }
  if (p.channels == 0) return;
  const int64_t grain = kGrainBytes / (p.values() * bytes) + 1;
  torch::stable::parallel_for(0, index.size(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const int64_t to = p.slot != nullptr ? p.slot[m] : m;
      if (to < 0) continue;
      if (p.low != nullptr) {
        copy_colours(p, m, to);
        continue;
      }
      switch (bytes) {
        case 1: copy_patch<uint8_t>(p, m, to); break;
        case 2: copy_patch<uint16_t>(p, m, to); break;
        case 4: copy_patch<uint32_t>(p, m, to); break;
        default: copy_patch<uint64_t>(p, m, to); break;
      }
    }
  });
}

// Images reduced by a whole factor, as colours: the mean of every window that begins in the image.
struct Shrink {
  const float* input;  // [N, C, height, width], any strides
  const float* low;    // [C]: colours are (mean - low) * scale
  const float* scale;
  uint8_t* out;  // contiguous [N, height / factor, width / factor, 3], both rounded up
  int64_t channels, extent[2], size[2], stride_n, stride_c, stride[2], factor;
};

// Sums of the windows of one row of the output, each row by row: sums[point][channel].
template <int kChannels>
void add_windows(const Shrink& p, const float* from, int64_t rows, float* __restrict sums) {
  std::fill_n(sums, p.size[1] * kChannels, 0.0f);
  for (int64_t y = 0; y < rows; ++y, from += p.stride[0]) {
    const float* at = from;
    for (int64_t x = 0; x < p.size[1]; ++x) {
      const int64_t count = std::min(p.factor, p.extent[1] - x * p.factor);
      float sum[kChannels];
      for (int c = 0; c < kChannels; ++c) sum[c] = sums[x * kChannels + c];
      for (int64_t i = 0; i < count; ++i, at += p.stride[1])
        for (int c = 0; c < kChannels; ++c) sum[c] += at[c * p.stride_c];
      for (int c = 0; c < kChannels; ++c) sums[x * kChannels + c] = sum[c];
    }
  }
}

template <int kChannels>
void shrink_row(const Shrink& p, int64_t n, int64_t y, float* __restrict sums) {
  const int64_t rows = std::min(p.factor, p.extent[0] - y * p.factor);
  add_windows<kChannels>(p, p.input + n * p.stride_n + y * p.factor * p.stride[0], rows, sums);
  uint8_t* __restrict out = p.out + (n * p.size[0] + y) * p.size[1] * kColours;
  const auto colours = [&](int64_t begin, int64_t end, float count) {
    for (int64_t x = begin; x < end; ++x)
      for (int64_t c = 0; c < kColours; ++c) {
        const int64_t from = kChannels == 1 ? 0 : c;
        const float mean = sums[x * kChannels + from] / count;
        out[x * kColours + c] = colour((mean - p.low[from]) * p.scale[from]);
      }
  };
  const int64_t last = p.size[1] - 1;
  colours(0, last, rows * p.factor);
  colours(last, last + 1, rows * (p.extent[1] - last * p.factor));
}

void shrink_colours(Tensor input, int64_t factor, Tensor low, Tensor scale, Tensor out) {
  Shrink p{};
  p.input = data<const float>(input), p.out = data<uint8_t>(out);
  p.low = data<const float>(low), p.scale = data<const float>(scale);
  p.channels = input.size(1), p.stride_n = input.stride(0), p.stride_c = input.stride(1);
  p.factor = factor;
  for (int d = 0; d < 2; ++d) {
    p.extent[d] = input.size(2 + d), p.stride[d] = input.stride(2 + d);
    p.size[d] = out.size(1 + d);
  }
  const int64_t rows = p.size[0];
  torch::stable::parallel_for(0, input.size(0) * rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> sums(p.size[1] * kColours);
    for (int64_t i = begin; i < end; ++i)
      (p.channels == 1 ? shrink_row<1> : shrink_row<3>)(p, i / rows, i % rows, sums.data());
  });
}

// Inputs put together again from patches of them, where no patch has shown them before.
struct Paste {
  const char* patches;   // [M, C, size...], strides in bytes; points lie side by side
  const int64_t* index;  // [M]
  const int64_t* start;  // [M, 3]
  char* inputs;          // [S, C, extent...], likewise
  bool* known;           // contiguous [S, extent...]
  int64_t channels, bytes, size[3], extent[3];  // bytes of a point: of its channels, or of one
  int64_t patch_strides[4], input_strides[4];   // of patches, channels, planes, rows
};

// One row of a patch: `known` and `to` are where its first point lies, `count` how many there are.
void paste_row(const Paste& p, bool* known, int64_t count, const char* from, char* to) {
  bool* const end = known + count;
  for (bool* at = known;;) {
    at = std::find(at, end, false);
    if (at == end) return;
    bool* stop = std::find(at, end, true);
    const int64_t skipped = (at - known) * p.bytes, copied = (stop - at) * p.bytes;
    for (int64_t c = 0; c < p.channels; ++c)
      std::memcpy(to + c * p.input_strides[1] + skipped, from + c * p.patch_strides[1] + skipped,
                  copied);
    std::fill(at, stop, true);
    at = stop;
  }
}

void paste_patch(const Paste& p, int64_t m) {
  const int64_t* start = p.start + 3 * m;
  int64_t low[3], high[3];
  for (int d = 0; d < 3; ++d) {
    low[d] = std::clamp<int64_t>(start[d], 0, p.extent[d]);
    high[d] = std::clamp<int64_t>(start[d] + p.size[d], low[d], p.extent[d]);
  }
  for (int64_t z = low[0]; z < high[0]; ++z)
    for (int64_t y = low[1]; y < high[1]; ++y) {
      const int64_t row = (p.index[m] * p.extent[0] + z) * p.extent[1] + y;
      paste_row(p, p.known + row * p.extent[2] + low[2], high[2] - low[2],
                p.patches + m * p.patch_strides[0] + (z - start[0]) * p.patch_strides[2] +
                    (y - start[1]) * p.patch_strides[3] + (low[2] - start[2]) * p.bytes,
                p.inputs + p.index[m] * p.input_strides[0] + z * p.input_strides[2] +
                    y * p.input_strides[3] + low[2] * p.bytes);
    }
}

// In the order of the patches, so that the first one that shows a point decides.
void paste_patches(Tensor patches, Tensor index, Tensor start, int64_t bytes, Tensor inputs,
                   Tensor known) {
  Paste p{};
  p.patches = data<const char>(patches), p.inputs = data<char>(inputs);
  p.index = data<const int64_t>(index), p.start = data<const int64_t>(start);
  p.known = data<bool>(known);
  // The channels of a point; those of a patch that is one point say nothing of the inputs.
  const bool together = patches.stride(1) == 1 && inputs.stride(1) == 1;
  p.channels = together ? 1 : patches.size(1);
  p.bytes = together ? bytes * patches.size(1) : bytes;
  for (int d = 0; d < 3; ++d) p.size[d] = patches.size(2 + d), p.extent[d] = inputs.size(2 + d);
  for (int d = 0; d < 4; ++d) {
    p.patch_strides[d] = patches.stride(d) * bytes;
    p.input_strides[d] = inputs.stride(d) * bytes;
  }
  for (int64_t m = 0; m < index.size(0); ++m) paste_patch(p, m);
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def(
      "paste_patches(Tensor patches, Tensor index, Tensor start, int bytes, Tensor(a!) inputs,"
      " Tensor(b!) known) -> ()");
  m.def("shrink_colours(Tensor input, int factor, Tensor low, Tensor scale, Tensor(a!) out) -> ()");
  m.def(
      "place_patches(Tensor input, Tensor index, Tensor start, Tensor? slot, Tensor? low,"
      " Tensor? scale, int bytes, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("paste_patches", TORCH_BOX(&fastconv::paste_patches));
  m.impl("place_patches", TORCH_BOX(&fastconv::place_patches));
  m.impl("shrink_colours", TORCH_BOX(&fastconv::shrink_colours));
}
