import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastconv.store import codec
from fastconv.store.codec import (
    CHUNK_BYTES,
    ChunkWriter,
    Compressor,
    chunk_shape,
    create_chunked,
    round_mantissa,
    to_uint8,
)

SHAPES = [(1, 1), (7, 3), (9, 5, 33), (17, 16, 7, 9), (3, 2, 5, 6, 7), (11, 300, 40, 41)]


def write(file, name, array, dtype=None, sizes=(), keepbits=23):
    """Write `array` in blocks of the given numbers of rows (and the rest), as fastconv does."""
    dtype = dtype or array.dtype.str
    chunk = chunk_shape(array.shape, np.dtype(dtype).itemsize, 8)
    dataset = create_chunked(file, name, array.shape, dtype, chunk)
    with Compressor() as compressor:
        writer = ChunkWriter(dataset, compressor, keepbits=keepbits)
        for block in np.split(array, np.cumsum(sizes, dtype=int)):
            writer.append(block)
        writer.close()
        compressor.drain()
    return dataset


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "|u1", "<i8"])
def test_hdf5_itself_reads_back_every_bit(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    array = (rng.normal(size=shape) * 9).astype(dtype)
    for sizes in ((), (1,), (shape[0] // 2, shape[0] - shape[0] // 2)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            write(file, "a", array, sizes=sizes)
        with h5py.File(tmp_path / "a.h5") as file:
            np.testing.assert_array_equal(file["a"][()], array)
            assert file["a"].compression == "gzip"


def test_blocks_of_any_size_give_the_same_bytes_on_disk(tmp_path):
    array = np.random.default_rng(0).normal(size=(29, 3, 5)).astype("f4")
    seen = set()
    for sizes in ((), (1, 1, 1), (8, 8), (13,), (7, 9, 12)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            found = write(file, "a", array, sizes=sizes)
            chunks = (found.id.read_direct_chunk((row, 0, 0))[1] for row in range(0, 29, 8))
            seen.add(b"|".join(chunks))
    assert len(seen) == 1


@pytest.mark.parametrize("first", [8, 16, 5, 29])
def test_compressed_chunks_are_copied_where_the_grids_meet(tmp_path, monkeypatch, first):
    array = np.random.default_rng(0).normal(size=(29, 3, 5)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        parts = (
            [write(file, "a", array[:first]), write(file, "b", array[first:])]
            if first < 29
            else [write(file, "a", array)]
        )
        compressed = []
        submit = Compressor.submit
        monkeypatch.setattr(
            Compressor, "submit", lambda *args: (compressed.append(args[2]), submit(*args))
        )
        whole = create_chunked(file, "whole", array.shape, "<f4", (8, 3, 5))
        with Compressor() as compressor:
            writer = ChunkWriter(whole, compressor)
            for part in parts:
                writer.append(part)
            writer.close()
            compressor.drain()
        np.testing.assert_array_equal(whole[()], array)
        assert bool(compressed) == (first % 8 != 0 and first != 29)


def test_missing_rows_are_an_error(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file, Compressor() as compressor:
        writer = ChunkWriter(create_chunked(file, "a", (9, 2), "<f4", (8, 2)), compressor)
        writer.append(np.zeros((8, 2), "f4"))
        with pytest.raises(ValueError, match="8 of 9 rows"):
            writer.close()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.sampled_from([1, 2, 4, 8]))
def test_chunks_hold_at_most_a_mebibyte_and_no_more_than_the_array(shape, itemsize):
    for rows in (1, 8):
        chunk = chunk_shape(shape, itemsize, rows)
        assert len(chunk) == len(shape)
        assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
        assert np.prod(chunk) * itemsize <= CHUNK_BYTES
    assert chunk_shape((100, 64, 56, 56), 4, 8) == (8, 8, 56, 56)
    assert chunk_shape((100, 512, 7, 7), 4, 8) == (8, 512, 7, 7)


FLOATS = arrays(np.uint32, st.integers(1, 64)).map(lambda bits: bits.view(np.float32))


@settings(max_examples=300)
@given(FLOATS, st.sampled_from([7, 10]))
def test_rounding_is_to_the_nearest_and_to_even_on_ties(x, keepbits):
    rounded = round_mantissa(x, keepbits)
    drop = 23 - keepbits
    assert not (rounded.view(np.uint32)[~np.isnan(x)] & np.uint32((1 << drop) - 1)).any()
    np.testing.assert_array_equal(np.isnan(rounded), np.isnan(x))
    np.testing.assert_array_equal(round_mantissa(rounded, keepbits), rounded)
    normal = np.isfinite(x) & (np.abs(x) >= np.finfo(np.float32).tiny) & np.isfinite(rounded)
    error = np.abs(rounded[normal].astype(np.float64) - x[normal])
    assert (error <= 2.0 ** -(keepbits + 1) * np.abs(x[normal])).all()


def test_rounding_keeps_what_fewer_bits_can_hold():
    rng = np.random.default_rng(0)
    half = rng.normal(size=1000).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(round_mantissa(half, 10), half)
    brain = (rng.normal(size=1000).astype("f4").view("u4") & 0xFFFF0000).view("f4")
    np.testing.assert_array_equal(round_mantissa(brain, 7), brain)
    tie = np.array([1 + 2**-11, 1 + 3 * 2**-11, np.inf, -np.inf, 0.0, -0.0], "f4")
    expected = np.array([1, 1 + 2**-9, np.inf, -np.inf, 0.0, -0.0], "f4")
    np.testing.assert_array_equal(round_mantissa(tie, 10).view("u4"), expected.view("u4"))


def test_rounding_happens_on_the_way_to_the_file(tmp_path):
    array = np.random.default_rng(0).normal(size=(11, 3, 4)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        np.testing.assert_array_equal(
            write(file, "a", array, keepbits=10)[()], round_mantissa(array, 10)
        )


def test_eight_bits_are_off_by_half_a_step_at_most():
    x = np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype("f4") * 50
    x[0, 0] = 7
    quantized, scale, offset = to_uint8(x)
    back = quantized * scale[..., None, None] + offset[..., None, None]
    assert quantized.dtype == np.uint8
    assert (np.abs(back - x) <= 0.501 * scale[..., None, None] + 1e-5).all()
    np.testing.assert_array_equal(back[0, 0], 7)


RUNS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 700)), min_size=1, max_size=12)


@pytest.mark.parametrize("native", [True, False])
@settings(max_examples=60, deadline=None)
@given(runs=RUNS, noise=st.integers(0, 3000), keepbits=st.sampled_from([7, 10, 23]))
def test_any_decoder_unpacks_what_is_packed(native, runs, noise, keepbits):
    if native and not codec._native():
        pytest.skip("the C++ library is not built")
    rng = np.random.default_rng(noise)
    words = np.concatenate(
        [np.repeat(*np.uint32(runs).T), rng.normal(size=noise).astype("f4").view("u4")]
    )
    values = words.view("f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_native", lambda: native)
        packed = codec.encode(values, keepbits)
    expected = round_mantissa(values, keepbits).view("u1").reshape(-1, 4).T.tobytes()
    assert zlib.decompress(packed) == expected
    assert len(packed) < len(expected) + len(expected) // 1000 + 200


@pytest.mark.parametrize("size", [63, 64, 79, 80, 81, 145, 100_000])
@pytest.mark.parametrize("every", [5, 61, 64, 259])
def test_runs_are_found_wherever_they_start(size, every):
    """Of `every` equal values; a run that is missed costs bytes."""
    words = (np.arange(size, dtype=np.uint32) // every % 16) * 0x01010101
    packed = codec.encode(words.view("f4"))
    assert zlib.decompress(packed) == words.view("u1").reshape(-1, 4).T.tobytes()
    assert len(packed) < 4 * (size / every * 2.5 + size / 200 + 200)


def test_codes_that_would_grow_too_long_are_cut():
    counts = [1, 1]
    while sum(counts) < 250_000:
        counts.append(counts[-1] + counts[-2])
    words = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    np.random.default_rng(0).shuffle(words)
    packed = codec.encode(words.view("f4"))
    assert zlib.decompress(packed) == words.view("u1").reshape(-1, 4).T.tobytes()
    assert len(packed) < len(words)


def test_bytes_that_do_not_shrink_are_stored_as_they_are(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (700, 50, 50, 3), np.uint8)
    pictures[:200] = 7
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = write(file, "x", pictures)
        infos = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
        assert {info.filter_mask for info in infos} == {0, codec.NO_FILTER}
        whole = np.prod(dataset.chunks)
        for info in infos:  # what is stored unfiltered has the size of the chunk
            assert (info.size == whole) == (info.filter_mask == codec.NO_FILTER)
        assert np.array_equal(dataset[()], pictures)
