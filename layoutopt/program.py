"""Runs a user's program in an interpreter of its own, under flags that win over those that it is managed by.

The start-up hook (_layoutopt_startup.py) reads them from LAYOUTOPT_FLAGS when the program imports Theano. So the program is what
``python program.py`` makes it: its sys.argv, __main__, sys.path and exit status are Python's own.
"""
import os
import site
import subprocess
import sys

VARIABLE = "LAYOUTOPT_FLAGS"


class CannotRun(Exception):
    """One sentence about why nothing was run, and the exit status that goes with it."""

    def __init__(self, sentence, status):
        super().__init__(sentence)
        self.status = status


def check(script):
    """Raise CannotRun if the program cannot be run under layoutopt."""
    if not os.path.isfile(script):
        raise CannotRun("there is no program %s" % script, 2)  # Python's own status for it
    if not any(os.path.isfile(os.path.join(folder, "layoutopt.pth"))
               for folder in site.getsitepackages() + [site.getusersitepackages()]):
        raise CannotRun("layoutopt is not installed for %s, and without its start-up hook no program can be run under it: "
                        "pip install it" % sys.executable, 1)


def check_writable(path):
    """Raise CannotRun if a file cannot be written; one that was not there still is not."""
    existed = os.path.exists(path)
    try:
        open(path, "a").close()
    except OSError as problem:
        raise CannotRun("%s cannot be written: %s" % (path, problem.strerror), 1)
    if not existed:
        os.unlink(path)


def environment(layoutopt=True, profile=False, **flags):
    """The environment of a program with layoutopt, or without it.

    Parameters
    ----------
    profile : bool
        Whether Theano measures its functions' ops; it keeps to itself what it then says by itself.
    flags
        Of layoutopt: report='path'.
    """
    chosen = ["optimizer_including=layoutopt" if layoutopt else "optimizer_excluding=layoutopt"]
    chosen += ['layoutopt.%s="%s"' % item for item in flags.items()]
    chosen += ["profile=True", 'profiling.destination="%s"' % os.devnull] if profile else []
    return dict(os.environ, **{VARIABLE: ",".join(chosen)})


def command(script, arguments):
    return [sys.executable, script] + list(arguments)


def run(script, arguments, environ, stdout=None):
    """Run a program and wait for it; returns its exit status, of one that a signal ended what a shell says."""
    sys.stdout.flush()
    status = subprocess.call(command(script, arguments), env=environ, stdout=stdout)
    return status if status >= 0 else 128 - status
