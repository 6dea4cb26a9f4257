"""layoutopt: unedited Theano convnets, several times faster, by carrying the c01b layout through them.

    THEANO_FLAGS=optimizer_including=layoutopt python their_convnet.py

Importing this package registers the optimizer and its flags; it does nothing until a function's mode includes
'layoutopt', by the flag above or by ``theano.compile.get_default_mode().including('layoutopt')``. With the flag, OpenMP's
threads and OpenBLAS are told at once how to share the cores (`runtime`, `blas`).
"""
import os

from . import needs

needs.check_python()

try:
    import _layoutopt_startup  # noqa: F401  (before Theano, which needs a blas.ldflags that works)
except ImportError:
    pass  # a copy of this folder alone: the user's own settings must do

_FOLDER = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_FOLDER, "kernels")):
    __path__.append(os.path.dirname(_FOLDER))  # a checkout: the other two packages stand beside this one

import theano  # noqa: E402

needs.check_theano(theano)

from . import flags  # noqa: E402

flags.register()

from . import device, optimizer, plain_values, runtime, turns  # noqa: E402  (read the flags)
from .explain import Report, explain  # noqa: E402
from .verify import LayoutMismatch, verify  # noqa: E402

for _part in (optimizer, device, plain_values, turns):
    _part.register()
runtime.prepare_process()

__version__ = "0.1.0"
__all__ = ["LayoutMismatch", "Report", "explain", "verify"]
