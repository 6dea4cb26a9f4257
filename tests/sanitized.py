"""A pytest plugin that has g++ watch the C++ of layoutopt's ops: AddressSanitizer and UndefinedBehaviorSanitizer.

``make sanitize`` starts Python with AddressSanitizer's library in front of all others, which then sees every byte that
numpy allocates, and loads this (``-p sanitized``). Theano's other modules are compiled as they always are: what they do is
not ours to judge. The first finding ends the process, with the place in the kernel.
"""
import os

from layoutopt.kernels.base import C01bOp

# -O1 compiles sooner with all checks in; vectors and their loads are the same.
FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]

if not any("libasan" in line for line in open("/proc/self/maps")):
    raise RuntimeError("the sanitizers' plugin needs AddressSanitizer in the process: run it by `make sanitize`")
# Children, g++ above all, need not be watched.
os.environ.pop("LD_PRELOAD", None)

_unwatched = C01bOp.c_compile_args
C01bOp.c_compile_args = lambda self: _unwatched(self) + FLAGS
