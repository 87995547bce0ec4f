"""TensorRT: scripts for every run, and an engine where the machine has what it takes."""

from pipeline.targets.tensorrt.backend import BACKEND

__all__ = ["BACKEND"]
