"""Import this first in a test module that needs Theano's GPU backend: where there is none, the module is skipped, and why.

    THEANO_FLAGS=device=opencl0:0,... python -m pytest tests -k gpu        a GPU, or a CPU through PoCL
    tools/make-gpu-venv makes an environment for that on Debian and Ubuntu.

With LAYOUTOPT_TESTS_NEED_GPU=1 in the environment, missing what it takes is an error: CI means what it says.
"""
import os

import pytest
import theano


def missing():
    """Why there is no GPU to test on, or ''."""
    try:
        import pygpu  # noqa: F401
    except ImportError as problem:
        return "no pygpu: %s" % problem
    if theano.config.device == "cpu":
        return "device=cpu: THEANO_FLAGS=device=opencl0:0 or device=cuda runs these tests"
    from theano import gpuarray
    if not gpuarray.pygpu_activated:
        return "Theano could not open device=%s" % theano.config.device
    return ""


_why = missing()
if _why and os.environ.get("LAYOUTOPT_TESTS_NEED_GPU"):
    raise RuntimeError(_why)
if _why:
    pytest.skip(_why, allow_module_level=True)

OPENCL = theano.config.device.startswith("opencl")
