"""Where `write_npz` was; it lives with the samples now (`pipeline.samples.npz`)."""

from pipeline.samples.npz import write_npz

__all__ = ["write_npz"]
