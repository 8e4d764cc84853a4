#include "isa.h"

#include <atomic>
#if defined(__linux__) && defined(FASTCONV_X86)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastconv {

namespace {

// AMX tile state must be asked for once per process (Linux arch_prctl).
[[maybe_unused]] bool request_amx() {
#if defined(__linux__) && defined(FASTCONV_X86)
  constexpr long kArchReqXcompPerm = 0x1023, kXfeatureXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) == 0;
#else
  return false;
#endif
}

Isa detect() {
#if defined(FASTCONV_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool amx = avx512 && __builtin_cpu_supports("avx512bf16") &&
                   __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                   request_amx();
  return amx ? Isa::kAmx : avx512 ? Isa::kAvx512 : avx2 ? Isa::kAvx2 : Isa::kScalar;
#else
  return Isa::kScalar;
#endif
}

std::atomic<int> chosen{-1};

}  // namespace

Isa best_isa() {
  static const Isa best = detect();
  return best;
}

Isa current_isa() {
  const int level = chosen.load(std::memory_order_relaxed);
  return level < 0 ? best_isa() : static_cast<Isa>(level);
}

bool set_isa(Isa isa) {
  if (isa > best_isa()) return false;
  chosen.store(static_cast<int>(isa), std::memory_order_relaxed);
  return true;
}

}  // namespace fastconv
