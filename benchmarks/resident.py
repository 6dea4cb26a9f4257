"""Memory of a benchmarked process, for `serve.py`: what it has resident, and the most that it had since `settle`."""
import ctypes
import gc


def settle():
    """Give back what is free, as far as malloc can, and begin to watch for the peak; the bytes that are resident now."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")  # sets VmHWM to VmRSS; see proc(5)
    return _status("VmRSS")


def peak():
    """The most bytes that were resident at a time since `settle`."""
    return _status("VmHWM")


def _status(field):
    with open("/proc/self/status") as status:
        (kilobytes, unit), = [line.split()[1:] for line in status if line.startswith(field + ":")]
    assert unit == "kB"
    return 1024 * int(kilobytes)


QUESTIONS = {"settle": settle, "peak": peak}
