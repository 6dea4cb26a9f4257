"""layoutopt: unedited Theano convnets, several times faster, by carrying the c01b layout through them.

    THEANO_FLAGS=optimizer_including=layoutopt python their_convnet.py

Importing this package registers the optimizer and its flags; it does nothing until a function's mode includes
'layoutopt', by the flag above or by ``theano.compile.get_default_mode().including('layoutopt')``.
"""
from . import flags

flags.register()

from . import optimizer  # noqa: E402  (reads the flags)
from .explain import Report, explain  # noqa: E402

optimizer.register()

__version__ = "0.1.0"
__all__ = ["Report", "explain"]
