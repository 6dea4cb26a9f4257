"""The CUDA kernels' texts, run by the host: every index, mask and fragment, without a GPU.

Each case asks ``choose.h`` for its kernels, as the launcher does, and compiles the same texts with a header that plays CUDA
(``cuda_on_host/cuda_on_host.h``). Operands are small whole numbers, which TF32 holds and whose sums are exact, so results
equal the numpy reference's to the last bit. What a host cannot show, races and the hardware's rounding, takes a GPU.
"""
import ctypes
import os
import shutil
import subprocess

import numpy as np
import pytest

from layoutopt.kernels.base import CPU_HEADERS
from layoutopt.kernels.reference import conv as reference

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_on_host")
GPU_SOURCES = os.path.join(os.path.dirname(CPU_HEADERS), "gpu")
COMPILER = shutil.which("g++")
FORWARD, IMAGES, WEIGHTS = range(3)
SCALAR, TF32, TF32X3 = range(3)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


class Launch(ctypes.Structure):
    _fields_ = [("files", ctypes.c_char * 512), ("name", ctypes.c_char * 128), ("instance", ctypes.c_char * 1024),
                ("sizes", ctypes.c_char * 256), ("blocks", ctypes.c_int64 * 3), ("threads", ctypes.c_int64),
                ("floats", ctypes.c_int64)]


# (channels, rows, columns, batch), (filters, rows, columns), groups, stride, leading pad, flip; op, arithmetic, by wgmma,
# output positions per partial sum (0: chosen).
CASES = [
    ((20, 5, 6, 132), (36, 3, 2), 1, (1, 2), (1, 0), True, FORWARD, SCALAR, False, 0),
    ((3, 6, 5, 30), (70, 4, 3), 1, (2, 1), (2, 1), True, FORWARD, TF32X3, False, 0),
    ((34, 4, 4, 36), (130, 2, 3), 2, (1, 1), (0, 1), False, FORWARD, TF32, False, 0),
    ((16, 3, 3, 5), (30, 3, 3), 1, (1, 1), (1, 1), False, FORWARD, TF32X3, False, 0),
    ((17, 5, 6, 32), (40, 3, 3), 1, (2, 3), (1, 2), True, IMAGES, TF32X3, False, 0),
    ((3, 7, 7, 36), (48, 5, 5), 1, (4, 4), (2, 2), False, IMAGES, SCALAR, False, 0),
    ((32, 4, 3, 70), (10, 2, 2), 2, (1, 1), (0, 1), False, IMAGES, TF32, False, 0),
    ((3, 6, 6, 36), (40, 3, 3), 1, (2, 1), (1, 1), True, WEIGHTS, SCALAR, False, 4),
    ((16, 4, 5, 30), (130, 3, 2), 1, (1, 1), (1, 0), False, WEIGHTS, TF32X3, False, 0),
    ((24, 4, 4, 20), (70, 3, 3), 2, (1, 2), (1, 1), True, WEIGHTS, TF32, False, 3),
    ((20, 4, 5, 36), (70, 3, 2), 1, (1, 1), (1, 0), True, FORWARD, TF32X3, True, 0),
    ((3, 7, 6, 128), (40, 3, 3), 1, (2, 2), (1, 1), True, FORWARD, TF32X3, True, 0),
    ((36, 4, 4, 30), (130, 2, 2), 2, (1, 1), (1, 1), False, FORWARD, TF32, True, 0),
    ((17, 5, 6, 32), (40, 3, 3), 1, (2, 3), (1, 2), True, IMAGES, TF32X3, True, 0),
    ((24, 4, 5, 30), (70, 3, 3), 2, (1, 1), (1, 1), True, WEIGHTS, TF32X3, True, 3),
    ((16, 4, 5, 36), (40, 3, 3), 1, (1, 2), (1, 1), False, WEIGHTS, TF32X3, True, 0),
]


# Winograd's algorithm: (channels, rows, columns, batch), filters, leading pad, flip, gradient, the tile's side, and how many
# rows of tiles the workspace holds.
WINOGRAD_CASES = [
    ((18, 7, 6, 6), 10, (1, 1), False, False, 2, 1),
    ((5, 6, 7, 5), 34, (0, 2), True, True, 2, 2),
    ((17, 9, 6, 4), 8, (1, 0), True, False, 4, 1),
    ((6, 7, 8, 3), 20, (1, 1), False, True, 4, 1),
]


def outputs(case):
    images, filters, _, stride, pad = case[:5]
    return [(images[1 + a] + 2 * pad[a] - filters[1 + a]) // stride[a] + 1 for a in (0, 1)]


def compiled(library, *arguments):
    folders = ["-I" + folder for folder in (HERE, os.path.join(GPU_SOURCES, "cuda"), CPU_HEADERS)]
    subprocess.run([COMPILER, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", *folders, *arguments, "-o", str(library)],
                   check=True, timeout=600)
    return ctypes.CDLL(str(library))


def chosen(library, case):
    """The launches of a case."""
    images, (filters, *filter_shape), groups, stride, pad, flip, op, arithmetic, wgmma, positions = case
    shape = [*images, filters, *filter_shape, groups, *outputs(case), *stride, *pad, flip]
    launches = (Launch * 2)()
    count = library.choices(op, (ctypes.c_int64 * len(shape))(*shape), arithmetic, wgmma, positions, launches)
    return launches[:count]


def winograd_launches(library, case):
    images, filters, pad, flip, gradient, size, band_rows = case
    grid = [images[1 + a] + 2 * pad[a] - 2 for a in (0, 1)]
    shape = [*images, filters, 3, 3, 1, *grid, 1, 1, *pad, flip]
    launches = (Launch * 14)()
    count = library.winograd_choices(gradient, (ctypes.c_int64 * len(shape))(*shape), size, band_rows, launches)
    return launches[:count]


def on_host(launch):
    """C++ that defines ``run_<name>(blocks, threads, operands, target, sizes)`` around a kernel's texts."""
    texts = []
    for file in launch.files.decode().split():
        if not file.endswith("ptx.cuh"):
            with open(os.path.join(GPU_SOURCES, file)) as opened:
                texts.append(opened.read())
    name, instance = launch.name.decode(), launch.instance.decode()
    two = "const float* b" in instance
    sizes = instance.split(" p) {")[0].split()[-1]
    return "namespace %s_ {\n%s\n%s}\n" % (name, "\n".join(texts), instance) + """
        extern "C" void run_%s(const int64_t* blocks, int threads, const float** from, float* to, const void* sizes) {
            launch_on_host(blocks, threads, [&] { %s_::%s(from[0], 0, %s to, 0, *static_cast<const %s_::%s*>(sizes)); });
        }""" % (name, name, name, "from[1], 0," if two else "", name, sizes)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """(launches of a case, library of all kernels)"""
    folder = tmp_path_factory.mktemp("cuda")
    choices = compiled(folder / "choices.so", HERE + "/choices.cpp")
    by_name = {launch.name: launch for case in CASES for launch in chosen(choices, case)}
    by_name.update((launch.name, launch) for case in WINOGRAD_CASES for launch in winograd_launches(choices, case))
    source = folder / "kernels.cpp"
    source.write_text('#include "cuda_on_host.h"\n%s\n' % "\n".join(map(on_host, by_name.values())) + """
        extern "C" void readable(const char* begin, const char* end) { arrays.push_back({begin, end}); }
        extern "C" long finish() { const long found = violations; violations = 0; arrays.clear(); return found; }""")
    return choices, compiled(folder / "kernels.so", str(source))


def aligned(values):
    """A copy that begins at a multiple of 16 bytes, and ends where its memory does, up to 16 bytes."""
    store = np.empty(values.size + 4, "float32")
    start = -store.ctypes.data // 4 % 4
    copy = store[start:start + values.size].reshape(values.shape)
    copy[...] = values
    return copy


def run(library, launch, operands):
    """What a launch writes: every float of it, nothing around it, and nothing read beside the operands."""
    pointers = (ctypes.c_void_p * len(operands))(*[operand.ctypes.data for operand in operands])
    for operand in operands:
        library.readable(ctypes.c_void_p(operand.ctypes.data), ctypes.c_void_p(operand.ctypes.data + operand.nbytes))
    target = aligned(np.full(launch.floats + 64, np.nan, "float32"))
    getattr(library, "run_" + launch.name.decode())(
        launch.blocks, int(launch.threads), pointers, ctypes.c_void_p(target[32:].ctypes.data),
        ctypes.c_void_p(ctypes.addressof(launch) + Launch.sizes.offset))
    assert library.finish() == 0
    assert np.isnan(target[:32]).all() and np.isnan(target[-32:]).all()
    return target[32:-32]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "%s-%s" % (case[6:9], case[0]))
def test_the_kernels_that_are_chosen_compute_the_convolution(kernels, case):
    choices, library = kernels
    images, (filters, *filter_shape), groups, stride, pad, flip, op = case[:7]
    rng = np.random.RandomState(0)
    x, w, y = [aligned(rng.randint(-4, 5, shape).astype("float32")) for shape in
               (images, (images[0] // groups, *filter_shape, filters), (filters, *outputs(case), images[3]))]
    rule = (pad, stride, flip, groups)
    expected = (reference.filter_acts(x, w, y.shape[1:3], *rule) if op == FORWARD else
                reference.image_acts(y, w, images[1:3], *rule) if op == IMAGES else
                reference.weight_acts(x, y, tuple(filter_shape), *rule))
    launches = chosen(choices, case)
    if op == WEIGHTS:
        result = run(library, launches[0], [x, y])
        for launch in launches[1:]:
            result = run(library, launch, [result])
    else:
        for launch in launches[:-1]:
            w = run(library, launch, [w])
        result = run(library, launches[-1], [x if op == FORWARD else y, w])
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: "F%d-%s" % (case[5], case[0]))
def test_winograds_algorithm_in_bands_of_tiles(kernels, case):
    """Tiles of 2 x 2 are exact on whole numbers: their filters' fourths are. Those of 4 x 4 divide by 24."""
    choices, library = kernels
    images, filters, pad, flip, gradient, size = case[:6]
    rng = np.random.RandomState(0)
    grid = tuple(images[1 + a] + 2 * pad[a] - 2 for a in (0, 1))
    x, w, y = [aligned(rng.randint(-4, 5, shape).astype("float32")) for shape in
               (images, (images[0], 3, 3, filters), (filters, *grid, images[3]))]
    rule = (pad, (1, 1), flip)
    expected = reference.image_acts(y, w, images[1:3], *rule) if gradient else reference.filter_acts(x, w, grid, *rule)
    result = np.full(expected.shape, np.nan, "float32")
    transform, pack, *bands = winograd_launches(choices, case)
    packed = run(library, pack, [run(library, transform, [w])])
    assert len(bands) >= 6  # two bands at least
    for split, multiply, join in zip(*[iter(bands)] * 3):
        products = run(library, multiply, [run(library, split, [y if gradient else x]), packed])
        band = run(library, join, [products]).reshape(expected.shape)
        assert np.isnan(result[~np.isnan(band)]).all()  # no output is written twice
        result = np.where(np.isnan(band), result, band)
    if size == 2:
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
