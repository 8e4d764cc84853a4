// Memory that a thread of a kernel works in.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace fastconv {

// Grows and stays: allocating megabytes anew in every call costs page faults. Zero at first.
class Scratch {
 public:
  void* get(int64_t bytes) {
    if (bytes > size_) {
      memory_.reset();
      memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
      std::memset(memory_.get(), 0, bytes);
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace fastconv
