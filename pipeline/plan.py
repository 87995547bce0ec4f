"""The one place that turns a request into stages. No torch, no onnx.

Everything that can be refused without doing work is refused here: the source is identified, the
inputs are parsed, cross-field rules are checked and every key is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.config.canonical import canonical_request
from pipeline.config.code import pipeline_code_digest, public_version
from pipeline.config.compose import Point, compose_points
from pipeline.config.keys import graph_digest, request_digest, result_digest
from pipeline.config.request import Config
from pipeline.errors import PipelineError
from pipeline.exporters.config import DEFAULT_OPSET
from pipeline.run.cache import default_directory, parse_size
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.samples.spec import parse_inputs
from pipeline.sources.identity import identify
