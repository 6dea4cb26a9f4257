"""What one of pytest-xdist's processes has compiled, the other takes as it is.

Each process has a cache of its own, as Theano's lock on a cache would let only one of them compile at a time. A kernel of ours
takes g++ half a minute, and most are wanted by both: so each library is kept beside the caches under the digest of what it was
made of (ccache would do that, where it is installed), and a process that wants one that another is making waits for it.

Theano's own modules are many and short, and half of their time is Python's and numpy's headers: those are compiled first, once.
"""
import contextlib
import fcntl
import hashlib
import os
import shutil

from theano.gof import cmodule

from layoutopt.kernels import base

# As Theano's modules begin.
HEADERS = """#include <Python.h>
#include <iostream>
#include "theano_mod_helper.h"
#include <math.h>
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>
"""


def share_libraries(folder, worker):
    """Have Theano take libraries from this folder, and leave there what it compiles.

    Parameters
    ----------
    folder : str
        Made if it is not there.
    worker : str
        What the paths of this process have that those of the others have not.
    """
    os.makedirs(folder, exist_ok=True)
    compile_alone = cmodule.output_subprocess_Popen
    sources = base.headers_digest()

    @contextlib.contextmanager
    def made_once(*made_of):
        """Where it is kept, and whether it is there already."""
        kept = os.path.join(folder, hashlib.sha256(repr(made_of).encode()).hexdigest())
        with open(kept + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield kept, os.path.exists(kept)

    def with_headers(command, flags):
        """The command, with Theano's headers compiled."""
        with made_once(HEADERS, flags) as (kept, there):
            header = os.path.join(kept, "common.h")
            if not there:
                os.makedirs(kept + worker, exist_ok=True)  # of a process that was stopped
                with open(os.path.join(kept + worker, "common.h"), "w") as text:
                    text.write(HEADERS)
                paths = [word for word in command if word.startswith("-I")]
                compile_alone([command[0], *flags, *paths, "-x", "c++-header", os.path.join(kept + worker, "common.h"),
                               "-o", os.path.join(kept + worker, "common.h.gch")])
                os.replace(kept + worker, kept)
        # A compiler that cannot use them reads them as they are.
        return [command[0], "-include", header, *command[1:]]

    def compile_new(command, library, source, code):
        command = command + ["-g0"]  # nobody steps through them
        if code.startswith(HEADERS) and not any(word.startswith("-std=") for word in command):
            options = ("-o", "-shared", library, source)
            return compile_alone(with_headers(command, [word for word in command[1:] if word not in options
                                                        and not word.startswith(("-I", "-L", "-l"))]))
        # Vectors narrower than the machine's are tested for what they compute, not for what g++ makes of loops, which takes it
        # twice as long.
        narrow = any(word.startswith("-DLAYOUTOPT_LANES") for word in command)
        return compile_alone(command + ["-O1"] * narrow)

    def compile_once(command):
        if "-shared" not in command:  # no module: Theano tries what the compiler can do
            return compile_alone(command)
        library, source = command[command.index("-o") + 1:][:2]
        with open(source) as text:
            code = text.read()
        with made_once(code, sources, [word.replace(worker, "") for word in command if word not in (library, source)]) as (
                kept, there):
            if not there:
                answer = compile_new(command, library, source, code)
                if answer[2]:
                    return answer
                shutil.copyfile(library, kept + worker)
                os.replace(kept + worker, kept)
            shutil.copyfile(kept, library)
            return b"", b"", 0

    cmodule.output_subprocess_Popen = compile_once
