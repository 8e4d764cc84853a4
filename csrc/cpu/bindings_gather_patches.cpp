#include <algorithm>
#include <cstring>

#include "bindings.h"

namespace fastconv {
namespace {

constexpr int64_t kGrainBytes = 65536;  // fewer are not worth another thread

struct Patches {
  const char* input;     // [N, C, depth, height, width], any strides
  const int64_t* index;  // [M]
  const int64_t* start;  // [M, 3]
  char* out;             // [M, C, size...], contiguous
  int64_t channels, extent[3], size[3];
  int64_t stride_n, stride_c, stride[3];

  int64_t values() const { return channels * size[0] * size[1] * size[2]; }
};

template <typename T>
void copy_strided(const T* from, int64_t stride, int64_t count, T* to) {
  if (stride == 1) {
    std::memcpy(to, from, count * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

// Row by row, every channel of a row together: channels_last input is read once, too.
template <typename T>
void copy_patch(const Patches& p, int64_t m) {
  const int64_t* start = p.start + 3 * m;
  T* out = reinterpret_cast<T*>(p.out) + m * p.values();
  const int64_t left = std::clamp<int64_t>(-start[2], 0, p.size[2]);
  const int64_t right = std::clamp<int64_t>(p.extent[2] - start[2], left, p.size[2]);
  const int64_t plane = p.values() / p.channels;
  for (int64_t z = 0; z < p.size[0]; ++z)
    for (int64_t y = 0; y < p.size[1]; ++y) {
      const int64_t at_z = start[0] + z, at_y = start[1] + y;
      const bool inside = at_z >= 0 && at_z < p.extent[0] && at_y >= 0 && at_y < p.extent[1];
      const int64_t begin = inside ? left : p.size[2], end = inside ? right : p.size[2];
      const int64_t offset = p.index[m] * p.stride_n + at_z * p.stride[0] + at_y * p.stride[1] +
                             (start[2] + begin) * p.stride[2];
      T* row = out + (z * p.size[1] + y) * p.size[2];
      for (int64_t c = 0; c < p.channels; ++c, row += plane) {
        std::memset(row, 0, begin * sizeof(T));
        if (begin < end)
          copy_strided(reinterpret_cast<const T*>(p.input) + offset + c * p.stride_c, p.stride[2],
                       end - begin, row + begin);
        std::memset(row + end, 0, (p.size[2] - end) * sizeof(T));
      }
    }
}

void gather_patches(Tensor input, Tensor index, Tensor start, int64_t bytes, Tensor out) {
  Patches p{};
  p.input = data<const char>(input);
  p.index = data<const int64_t>(index);
  p.start = data<const int64_t>(start);
  p.out = data<char>(out);
  p.channels = input.size(1), p.stride_n = input.stride(0), p.stride_c = input.stride(1);
  for (int d = 0; d < 3; ++d) {
    p.extent[d] = input.size(2 + d), p.stride[d] = input.stride(2 + d);
    p.size[d] = out.size(2 + d);
  }
  if (p.channels == 0) return;
  const int64_t grain = kGrainBytes / (p.values() * bytes) + 1;
  torch::stable::parallel_for(0, index.size(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) switch (bytes) {
        case 1: copy_patch<uint8_t>(p, m); break;
        case 2: copy_patch<uint16_t>(p, m); break;
        case 4: copy_patch<uint32_t>(p, m); break;
        default: copy_patch<uint64_t>(p, m); break;
      }
  });
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def(
      "gather_patches(Tensor input, Tensor index, Tensor start, int bytes, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("gather_patches", TORCH_BOX(&fastconv::gather_patches));
}
