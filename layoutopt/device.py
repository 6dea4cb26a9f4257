"""Where functions run, the CPU or a GPU, and what depends on that."""
import sys

import theano

from layoutopt.rewrites.gpu_cost import GpuMachine, rates_of

from .calibrate import find_machine

_MEGABYTE = 2 ** 20
_SPLITS = {"auto": 0, "None": -1}


def on_gpu():
    """Whether Theano moves functions to a GPU: device is one, and it could be opened."""
    return theano.config.device != "cpu" and _context() is not None


def find_target(settings):
    """What the optimizer plans for: a `GpuMachine` or a `Machine`."""
    context = _context() if on_gpu() else None
    if context is None:
        return find_machine(settings)
    kind = "cuda" if context.kind == b"cuda" else "opencl"
    compute = 0
    if kind == "cuda":
        # 'compute_90' or 'sm_90': a character for each of the two numbers, which goes on beyond '9'.
        name = context.bin_id.decode() if isinstance(context.bin_id, bytes) else str(context.bin_id)
        compute = 10 * (ord(name[-2]) - ord("0")) + ord(name[-1]) - ord("0")
    return GpuMachine(rates=rates_of(kind, compute, settings.precision == "tf32"),
                      cudnn=getattr(context, "cudnn_handle", None) is not None)


def conv_parameters():
    """The parameters of the GPU convolutions, as the flags are now: a dict for `kernels.gpu.GpuConv`."""
    settings = theano.config.layoutopt
    positions = settings.partial_sum
    return dict(tf32=settings.precision == "tf32", split=_SPLITS[positions] if positions in _SPLITS else int(positions),
                workspace=settings.workspace * _MEGABYTE)


def register():
    """Let Theano move the c01b ops to the GPU with everything else, where it has a GPU; a second call does nothing."""
    if _backend() is not None and _backend().pygpu is not None:
        from layoutopt.rewrites import gpu_lift

        gpu_lift.register(conv_parameters)


def why_not_gpu():
    """Why functions stay on the CPU though another device was asked for, or ''."""
    if theano.config.device == "cpu" or on_gpu():
        return ""
    return "device is %s, which Theano could not open (its own message says why): planned for the CPU" % theano.config.device


def _backend():
    """Theano's GPU backend, where Theano has loaded it."""
    return sys.modules.get("theano.gpuarray")


def _context():
    """The GPU that functions run on, or None."""
    backend = _backend()
    if backend is None or not backend.pygpu_activated:
        return None
    try:
        return backend.type.get_context(None)
    except backend.type.ContextNotDefined:
        return None
