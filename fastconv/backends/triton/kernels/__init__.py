"""One Triton kernel per file; they speak implicit GEMM and know nothing of torch."""
