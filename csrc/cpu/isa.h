// Instruction sets: detected once, chosen once, overridable (FASTCONV_ISA, read in Python).
#pragma once

namespace fastconv {

enum class Isa : int { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAmx = 3 };

// The best level this machine and operating system can run.
Isa best_isa();

// The level in use; best_isa() until set_isa() was called.
Isa current_isa();

// False, and no change, where the machine lacks the level.
bool set_isa(Isa isa);

}  // namespace fastconv
