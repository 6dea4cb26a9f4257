"""What one of pytest-xdist's processes has compiled, the other takes as it is.

Each process has a cache of its own, as Theano's lock on a cache would let only one of them compile at a time. A kernel of ours
takes g++ half a minute, and most are wanted by both: so each library is kept beside the caches under the digest of what it was
made of (ccache would do that, where it is installed), and a process that wants one that another is making waits for it.
"""
import fcntl
import hashlib
import os
import shutil

from theano.gof import cmodule

from layoutopt.kernels import base

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
    headers = base.headers_digest()

    def compile_once(command):
        if "-shared" not in command:  # no module: Theano tries what the compiler can do
            return compile_alone(command)
        library, source = command[command.index("-o") + 1:][:2]
        with open(source) as text:
            made_of = [text.read(), headers, [word.replace(worker, "") for word in command if word not in (library, source)]]
        kept = os.path.join(folder, hashlib.sha256(repr(made_of).encode()).hexdigest())
        with open(kept + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(kept):
                # Nobody steps through them; and vectors narrower than the machine's are tested for what they compute, not for what
                # g++ makes of loops, which takes it twice as long.
                narrow = any(word.startswith("-DLAYOUTOPT_LANES") for word in command)
                answer = compile_alone(command + ["-g0"] + ["-O1"] * narrow)
                if answer[2]:
                    return answer
                shutil.copyfile(library, kept + worker)
                os.replace(kept + worker, kept)
            shutil.copyfile(kept, library)
            return b"", b"", 0

    cmodule.output_subprocess_Popen = compile_once
