"""The c01b ops on theano.gpuarray; importable only where pygpu is."""
from .ops import (GpuAvgPool, GpuAvgPoolGrad, GpuFilterActs, GpuImageActs, GpuMaxPool, GpuMaxPoolGrad, GpuMaxPoolGradGrad,
                  GpuToBC01, GpuToC01B, GpuWeightActs)

__all__ = ["GpuAvgPool", "GpuAvgPoolGrad", "GpuFilterActs", "GpuImageActs", "GpuMaxPool", "GpuMaxPoolGrad",
           "GpuMaxPoolGradGrad", "GpuToBC01", "GpuToC01B", "GpuWeightActs"]
