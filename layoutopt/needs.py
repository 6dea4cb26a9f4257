"""What layoutopt runs on. Where that is not what there is, importing it says so in one sentence."""
import sys

PYTHONS = (3, 8), (3, 11)  # Theano 1.0.5 imports modules that 3.12 dropped; setup.py says the same to pip
THEANOS = "1.0."


def check_python():
    """Raise ImportError where Theano 1.0.5 cannot be imported. Comes first, as Theano's own error names only a module."""
    version = sys.version_info[:2]
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        raise ImportError("layoutopt needs CPython 3.8 to 3.11 (Theano 1.0.5 runs on no newer one); this is %d.%d." % version)


def check_theano(theano):
    """Raise ImportError where another package that is called theano is not Theano 1.0; its module is the argument."""
    version = getattr(theano, "__version__", "unknown")
    if not version.startswith(THEANOS):
        raise ImportError("layoutopt needs Theano 1.0.5; the theano installed here is version %s%s." % (
            version, " (Theano-PyMC, whose graphs and ops have another interface)" if version.startswith("1.1") else ""))
