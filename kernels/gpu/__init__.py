"""The c01b ops on theano.gpuarray; importable only where pygpu is."""
from .ops import *  # noqa: F401,F403
