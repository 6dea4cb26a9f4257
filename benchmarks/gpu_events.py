"""Times on a GPU by CUDA's events, for programs that use CUDA through other libraries."""
import ctypes

import numpy as np

CALLS = 10  # between two events, so that the host's time for a call hides behind the GPU's


class Events:
    """Two events in the default stream of a device's primary context, which waits for all work given before.

    Parameters
    ----------
    device : int
    """

    def __init__(self, device=0):
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.context = ctypes.c_void_p()
        handle = ctypes.c_int()
        self.check("cuInit", 0)
        self.check("cuDeviceGet", ctypes.byref(handle), device)
        self.check("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), handle)
        self.check("cuCtxSetCurrent", self.context)
        self.events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self.events:
            self.check("cuEventCreate", ctypes.byref(event), 0)

    def check(self, function, *arguments):
        error = getattr(self.driver, function)(*arguments)
        if error:
            raise RuntimeError("%s failed with CUDA's error %d" % (function, error))

    def timed(self, step, steps):
        """For `serve`: seconds of each of some steps, `CALLS` calls of `step` after the other taken as one."""
        seconds = []
        for _ in range(steps):
            self.check("cuCtxSetCurrent", self.context)
            self.check("cuEventRecord", self.events[0], None)
            for _ in range(CALLS):
                step()
            self.check("cuCtxSetCurrent", self.context)
            self.check("cuEventRecord", self.events[1], None)
            self.check("cuEventSynchronize", self.events[1])
            elapsed = ctypes.c_float()
            self.check("cuEventElapsedTime", ctypes.byref(elapsed), *self.events)
            seconds.append(1e-3 * elapsed.value / CALLS)
        return dict(seconds=seconds, loss=float(np.median(seconds)))
