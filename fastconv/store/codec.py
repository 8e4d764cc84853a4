"""Chunks compressed outside HDF5: shuffle + deflate in threads, handed over finished.

The datasets declare HDF5's own shuffle and deflate filters, so any reader opens them.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastconv.store.atomic import sync
from fastconv.store.low_level import new_chunked

try:
    from isal import isal_zlib as deflate

    LEVEL = 1
except ImportError:  # no wheel for this platform
    import zlib as deflate  # type: ignore[no-redef]

    LEVEL = 1

CHUNK_BYTES = 2**20
PROBE, PROBES = 2**15, 4  # bytes of a chunk that are tried, in so many places
NO_FILTER = 1  # mask of a chunk of bytes that is stored as it is: its filter, deflate, is left out
WRITE_BACK = 2**24  # bytes that go to the disk while the next are compressed
MAP_ROWS = 8  # samples in a chunk of maps
WORKERS = max(1, min(8, os.cpu_count() or 1))
QUEUE = 8 * WORKERS  # chunks that may wait, so that no thread does


def chunk_shape(
    shape: Sequence[int], itemsize: int, rows: int = 1, nbytes: int = CHUNK_BYTES
) -> tuple[int, ...]:
    """At most `nbytes`: `rows` of the first dimension, then as much as fits from the last on."""
    room = max(1, nbytes // itemsize)
    chunk = [1] * len(shape)
    if shape:
        chunk[0] = max(1, min(rows, shape[0]))
        room = max(1, room // chunk[0])
    for axis in range(len(shape) - 1, 0, -1):
        chunk[axis] = _share(shape[axis], room)
        room //= chunk[axis]
    if shape and room > 1 and rows == 1:
        chunk[0] = max(1, min(shape[0], room))
    return tuple(chunk)


def _share(size: int, room: int) -> int:
    """As much of a dimension as there is room for; a bit less when that divides it evenly."""
    most = max(1, min(size, room))
    even = (n for n in range(most, most // 2, -1) if size % n == 0)
    return next(even, most)


def encode(chunk: np.ndarray, keepbits: int = 23) -> bytes | np.ndarray:
    """Compress a chunk as HDF5's shuffle and deflate filters do, its mantissas rounded."""
    chunk = np.require(chunk, requirements=["C", "W"])
    if chunk.dtype == np.float32 and _native():
        import torch

        # a tenth smaller than igzip on maps, and faster: runs and Huffman codes plane by plane
        out = torch.empty(chunk.nbytes + chunk.nbytes // 8192 + 256, dtype=torch.uint8)
        values = torch.from_numpy(chunk)
        size = torch.ops.fastconv_cpu.deflate_chunk(values, keepbits, out)
        return out.numpy()[:size]
    if keepbits < 23:
        chunk = round_mantissa(chunk, keepbits)
    flat, size = chunk.reshape(-1), chunk.dtype.itemsize
    if size > 1:
        flat = np.ascontiguousarray(flat.view(np.uint8).reshape(-1, size).T)
    return deflate.compress(flat, LEVEL)


@cache
def _native() -> bool:
    try:
        import fastconv._C  # noqa: F401
    except ImportError:  # it was not built, or there is no torch
        return False
    return True


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


def checksum(blocks: Iterable[Any], crc: int = 0) -> int:
    """CRC-32 of bytes or contiguous arrays, one after the other, going on from `crc`."""
    for block in blocks:
        crc = deflate.crc32(block, crc)
    return crc


def chunks_checksum(dataset: h5py.Dataset) -> int:
    """CRC-32 over the CRC-32s (uint32) of the chunks as they are stored, in C order.

    The checksum of a chunk starts from its filter mask, mostly 0. Nothing is decompressed.
    """
    expected = math.prod(map(len, _ranges(dataset.shape, dataset.chunks)))
    if dataset.id.get_num_chunks() != expected:
        raise ValueError(f"{dataset.name} lacks some of its {expected} chunks")
    stored = (dataset.id.read_direct_chunk(at) for at in _grid(dataset.shape, dataset.chunks))
    return deflate.crc32(np.array([deflate.crc32(data, mask) for mask, data in stored], "<u4"))


def to_uint8(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """8-bit maps: x is about `scale * quantized + offset`, off by half a step at most.

    Args:
        x: [n, C, *spatial] float32, finite.

    Returns:
        uint8 of the same shape, and scale and offset [n, C] float32.
    """
    flat = np.asarray(x, np.float32).reshape(*x.shape[:2], -1)
    low, high = flat.min(axis=2), flat.max(axis=2)
    scale = (high - low) / np.float32(255)
    step = np.where(scale > 0, scale, 1)[..., None]
    return np.rint((flat - low[..., None]) / step).astype(np.uint8).reshape(x.shape), scale, low


Chunk = tuple[tuple[int, ...], np.ndarray]  # where it starts, and its values
Stored = tuple[Any, int]  # the bytes of a chunk, and the mask of the filters it did not go through


class Compressor:
    """Compresses chunks in threads; the caller's thread writes them, so one thread owns HDF5.

    At most `QUEUE` jobs wait: when the disk is slower than the work, `submit` waits too.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="fastconv-deflate")
        self._pending: deque[tuple[ChunkWriter, Future[list[Stored]], list[Chunk]]] = deque()
        self._to_disk: Future[None] | None = None
        self._on_disk = 0  # bytes of the file that went there before its end

    def submit(self, writer: ChunkWriter, chunks: list[Chunk], keepbits: int) -> None:
        """Queue some chunks, which must not change any more, and write those that are ready."""
        while self._pending and (len(self._pending) >= QUEUE or self._pending[0][1].done()):
            self._write_one()
        job = self._pool.submit(_compress_all, chunks, writer.chunk, keepbits)
        self._pending.append((writer, job, chunks))

    def drain(self) -> None:
        """Write everything that is queued; before a file is closed."""
        while self._pending:
            self._write_one()
        if self._to_disk is not None:
            self._to_disk.result()

    def write_back(self, file: h5py.h5f.FileID) -> None:
        """Let the disk take what a file has so far, once it is much: its end waits for the rest.

        Raises:
            OSError: the disk did not take what it got before.
        """
        size = file.get_filesize()
        if size - self._on_disk < WRITE_BACK or (self._to_disk and not self._to_disk.done()):
            return
        if self._to_disk is not None:
            self._to_disk.result()
        self._on_disk, self._to_disk = size, self._pool.submit(sync, Path(os.fsdecode(file.name)))

    def drop(self) -> None:
        """Forget what is queued."""
        for _, job, _ in self._pending:
            job.cancel()
        self._pending.clear()

    def close(self) -> None:
        """Forget what is queued, and end the threads."""
        self.drop()
        self._pool.shutdown()

    def _write_one(self) -> None:
        writer, job, chunks = self._pending.popleft()
        for (offset, _), stored in zip(chunks, job.result(), strict=True):
            writer.store(offset, *stored)

    def __enter__(self) -> Compressor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ChunkWriter:
    """Fills one chunked dataset with consecutive blocks of rows."""

    def __init__(
        self,
        dataset: h5py.Dataset,
        compressor: Compressor,
        *,
        keepbits: int = 23,
        checked: bool = False,
    ) -> None:
        """Begin; `checked` to have `chunks_checksum` at the end."""
        self._dataset, self._compressor, self._keepbits = dataset, compressor, keepbits
        self.chunk, self._shape, self._dtype = dataset.chunks, dataset.shape, dataset.dtype
        self._chunk_bytes = math.prod(self.chunk) * self._dtype.itemsize
        self._row = 0  # rows submitted
        self._buffer: np.ndarray | None = None  # of less than a row of chunks
        self._filled = 0
        self._waiting: list[Chunk] = []  # to be compressed together
        self._checksums: np.ndarray | None = None
        if checked:
            self._checksums = np.zeros([*map(len, _ranges(self._shape, self.chunk))], "<u4")

    def append(self, block: Any) -> None:
        """Add rows: an array, or a dataset whose chunks are copied as they are where they fit."""
        done = self._copy_chunks(block) if isinstance(block, h5py.Dataset) else 0
        rows = self.chunk[0]
        while done < block.shape[0]:
            take = min(rows - self._filled, block.shape[0] - done)
            last = not self._filled and self._row + take == self._shape[0]
            if take == rows or last:
                self._submit(np.asarray(block[done : done + take], self._dtype))
            else:
                if self._buffer is None:
                    self._buffer = np.empty((rows, *self._shape[1:]), self._dtype)
                self._buffer[self._filled : self._filled + take] = block[done : done + take]
                self._filled += take
                if self._filled == rows:
                    self._flush()
            done += take

    def close(self) -> None:
        """Submit what is left; the rows must be complete by now."""
        if self._filled:
            self._flush()
        if self._waiting:
            self._send()
        if self._row != self._shape[0]:
            raise ValueError(f"{self._dataset.name} got {self._row} of {self._shape[0]} rows")

    def store(self, offset: tuple[int, ...], data: bytes | np.ndarray, mask: int = 0) -> None:
        """Write one finished chunk; in the thread that owns HDF5."""
        if self._checksums is not None:
            at = tuple(a // c for a, c in zip(offset, self.chunk, strict=True))
            self._checksums[at] = deflate.crc32(data, mask)
        self._dataset.id.write_direct_chunk(offset, data, mask)

    def chunks_checksum(self) -> int:
        """The value of `chunks_checksum` for the dataset, once everything is stored."""
        assert self._checksums is not None
        return deflate.crc32(self._checksums)

    def _flush(self) -> None:
        """Queue the rows that were collected."""
        assert self._buffer is not None
        self._submit(self._buffer[: self._filled])
        self._buffer, self._filled = None, 0

    def _submit(self, rows: np.ndarray) -> None:
        """Queue the chunks of one row of chunks."""
        for at in _grid((rows.shape[0], *self._shape[1:]), self.chunk):
            part = rows[tuple(slice(a, a + c) for a, c in zip(at, self.chunk, strict=True))]
            self._waiting.append(((self._row, *at[1:]), part))
            if len(self._waiting) * self._chunk_bytes >= CHUNK_BYTES:
                self._send()
        self._row += rows.shape[0]

    def _send(self) -> None:
        self._compressor.submit(self, self._waiting, self._keepbits)
        self._waiting = []

    def _copy_chunks(self, source: h5py.Dataset) -> int:
        """Copy compressed chunks of the same grid; returns the rows done."""
        rows, last = self.chunk[0], self._row + source.shape[0] == self._shape[0]
        same = (
            source.chunks == self.chunk
            and source.dtype == self._dtype
            and source.shape[1:] == self._shape[1:]
            and _filters(source) == _filters(self._dataset)
        )
        if not same or self._filled:
            return 0
        whole = source.shape[0] if last else source.shape[0] // rows * rows
        for at in _grid((whole, *self._shape[1:]), self.chunk):
            mask, data = source.id.read_direct_chunk(at)
            self.store((self._row + at[0], *at[1:]), data, mask)
        self._row += whole
        return whole


def _compress_all(chunks: list[Chunk], chunk: tuple[int, ...], keepbits: int) -> list[Stored]:
    return [_compress(part, chunk, keepbits) for _, part in chunks]


def _compress(part: np.ndarray, chunk: tuple[int, ...], keepbits: int) -> Stored:
    """Pad to the full chunk and encode, unless that is no use."""
    if part.shape != chunk:
        full = np.zeros(chunk, part.dtype)
        full[tuple(slice(n) for n in part.shape)] = part
        part = full
    if part.dtype == np.uint8 and not _shrinks(part):
        return np.ascontiguousarray(part), NO_FILTER
    return encode(part, keepbits), 0


def _shrinks(chunk: np.ndarray) -> bool:
    """Whether deflate saves a tenth of some samples of a chunk of bytes."""
    flat, size = chunk.reshape(-1), PROBE // PROBES
    if flat.size <= PROBE:
        return True
    starts = range(0, flat.size - size + 1, (flat.size - size) // (PROBES - 1))
    probe = np.concatenate([flat[start : start + size] for start in starts])
    return len(deflate.compress(probe, LEVEL)) < 0.9 * probe.size


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return product(*_ranges(shape, chunk))


def _ranges(shape: Sequence[int], chunk: Sequence[int]) -> list[range]:
    """First indices of the chunks, per dimension."""
    return [range(0, n, c) for n, c in zip(shape, chunk, strict=True)]


def _filters(dataset: h5py.Dataset) -> list[tuple[int, ...]]:
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def create_chunked(
    group: h5py.Group, name: str, shape: Sequence[int], dtype: str | np.dtype, chunk: Sequence[int]
) -> h5py.Dataset:
    """A dataset that declares shuffle + deflate and is filled by a `ChunkWriter`."""
    return h5py.Dataset(new_chunked(group.id, name, shape, np.dtype(dtype), chunk))
