"""Chunks compressed outside HDF5: shuffle + deflate in threads, handed over finished.

The datasets declare HDF5's own shuffle and deflate filters, so any reader opens them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any

import h5py
import numpy as np

try:
    from isal import isal_zlib as deflate

    LEVEL = 1
except ImportError:  # no wheel for this platform
    import zlib as deflate  # type: ignore[no-redef]

    LEVEL = 1

CHUNK_BYTES = 2**20
MAP_ROWS = 8  # samples in a chunk of maps
WORKERS = max(1, min(8, os.cpu_count() or 1))


def chunk_shape(shape: Sequence[int], itemsize: int, rows: int = 1) -> tuple[int, ...]:
    """At most 1 MiB: `rows` of the first dimension, then as much as fits from the last on."""
    room = max(1, CHUNK_BYTES // itemsize)
    chunk = [1] * len(shape)
    if shape:
        chunk[0] = max(1, min(rows, shape[0]))
        room = max(1, room // chunk[0])
    for axis in range(len(shape) - 1, 0, -1):
        chunk[axis] = max(1, min(shape[axis], room))
        room //= chunk[axis]
    if shape and room > 1 and rows == 1:
        chunk[0] = max(1, min(shape[0], room))
    return tuple(chunk)


def encode(chunk: np.ndarray) -> bytes:
    """What HDF5's shuffle and deflate filters would leave of a chunk."""
    size = chunk.dtype.itemsize
    flat = np.ascontiguousarray(chunk).reshape(-1)
    if size > 1:
        flat = np.ascontiguousarray(flat.view(np.uint8).reshape(-1, size).T)
    return deflate.compress(flat, LEVEL)


def round_mantissa(x: np.ndarray, keepbits: int) -> np.ndarray:
    """float32 with all but `keepbits` bits of the mantissa rounded away, ties to even.

    Relative error at most 2^-(keepbits + 1); NaN stays NaN, infinities stay, and values next to
    the largest may become infinite, as in any rounding.
    """
    drop = 23 - keepbits
    if drop <= 0:
        return x
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + np.uint32((1 << (drop - 1)) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
    rounded &= np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    nan = np.isnan(x)
    if nan.any():
        rounded[nan] = np.uint32(0x7FC00000)
    return rounded.view(np.float32)


def checksum(blocks: Iterable[Any]) -> int:
    """CRC-32 of bytes or contiguous arrays, one after the other."""
    crc = 0
    for block in blocks:
        crc = deflate.crc32(block, crc)
    return crc


class ChunkWriter:
    """Fills one chunked dataset with consecutive blocks of rows, in the caller's thread.

    Compression runs in `pool`; at most `2 * WORKERS` chunks wait, then `append` does too.
    """

    def __init__(self, dataset: h5py.Dataset, pool: ThreadPoolExecutor | None = None) -> None:
        self.dataset, self.pool = dataset, pool
        self.chunk, self.shape = dataset.chunks, dataset.shape
        self.row = 0  # of the first row in the buffer
        self.buffer = np.zeros((self.chunk[0], *self.shape[1:]), dataset.dtype)
        self.filled = 0
        self.pending: deque[tuple[tuple[int, ...], Future[bytes]]] = deque()

    def append(self, block: Any) -> None:
        """Add rows: an array, or a dataset whose chunks are copied as they are where they fit."""
        done = self._copy_chunks(block) if isinstance(block, h5py.Dataset) else 0
        rows = self.chunk[0]
        while done < block.shape[0]:
            take = min(rows - self.filled, block.shape[0] - done)
            if take == rows:
                self._submit(np.asarray(block[done : done + rows], self.dataset.dtype))
            else:
                self.buffer[self.filled : self.filled + take] = block[done : done + take]
                self.filled += take
                if self.filled == rows:
                    self._submit(self.buffer.copy())
                    self.filled = 0
            done += take

    def close(self) -> None:
        """Write what is left; the rows must be complete by now."""
        if self.filled:
            self._submit(self.buffer[: self.filled].copy())
        while self.pending:
            self._finish_one()
        if self.row < self.shape[0]:
            raise ValueError(f"{self.dataset.name} got {self.row} of {self.shape[0]} rows")

    def _submit(self, rows: np.ndarray) -> None:
        """Queue the chunks of one row of chunks; the last may be short and is padded."""
        for at in _grid((rows.shape[0], *self.shape[1:]), self.chunk):
            part = rows[tuple(slice(a, a + c) for a, c in zip(at, self.chunk, strict=True))]
            offset = (self.row, *at[1:])
            if self.pool is None:
                self.dataset.id.write_direct_chunk(offset, _padded(part, self.chunk))
            else:
                while len(self.pending) >= 2 * WORKERS:
                    self._finish_one()
                self.pending.append((offset, self.pool.submit(_padded, part, self.chunk)))
        self.row += rows.shape[0]

    def _finish_one(self) -> None:
        offset, compressed = self.pending.popleft()
        self.dataset.id.write_direct_chunk(offset, compressed.result())

    def _copy_chunks(self, source: h5py.Dataset) -> int:
        """Copy compressed chunks of the same grid; returns the rows done."""
        rows, last = self.chunk[0], self.row + source.shape[0] == self.shape[0]
        same = (
            source.chunks == self.chunk
            and source.dtype == self.dataset.dtype
            and source.shape[1:] == self.shape[1:]
            and _filters(source) == _filters(self.dataset)
        )
        if not same or self.filled:
            return 0
        whole = source.shape[0] if last else source.shape[0] // rows * rows
        for at in _grid((whole, *self.shape[1:]), self.chunk):
            mask, data = source.id.read_direct_chunk(at)
            self.dataset.id.write_direct_chunk((self.row + at[0], *at[1:]), data, mask)
        self.row += whole
        return whole


def _padded(part: np.ndarray, chunk: tuple[int, ...]) -> bytes:
    if part.shape != chunk:
        full = np.zeros(chunk, part.dtype)
        full[tuple(slice(n) for n in part.shape)] = part
        part = full
    return encode(part)


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return product(*(range(0, n, c) for n, c in zip(shape, chunk, strict=True)))


def _filters(dataset: h5py.Dataset) -> list[tuple[int, ...]]:
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def create_chunked(
    group: h5py.Group, name: str, shape: Sequence[int], dtype: str | np.dtype, chunk: Sequence[int]
) -> h5py.Dataset:
    """A dataset that declares shuffle + deflate and is filled by a `ChunkWriter`."""
    return group.create_dataset(
        name,
        tuple(shape),
        np.dtype(dtype),
        chunks=tuple(chunk),
        compression="gzip",
        compression_opts=LEVEL,
        shuffle=np.dtype(dtype).itemsize > 1,
    )


def new_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="fastconv-deflate")
