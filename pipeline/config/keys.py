"""The three keys of a run, full sha256, computed without torch.

*request*: what was asked. *graph*: the part of it that shapes the ONNX file, with the digests of
the network's code and weights; it stands inside the file, so that a parity or target setting does
not change the file. *result*: request, code, weights, inputs and public versions of the packages
that take part; it names the run directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline.config.canonical import canonical_json, canonical_request
from pipeline.config.code import public_version, user_code_digest
from pipeline.config.request import GRAPH_KEYS, Config

#: Raised whenever the canonical form or a key's recipe changes.
FORMAT: Final = 1
#: Keys inside the graph's sections that do not shape the file.
_NOT_IN_GRAPH: Final = (("export", "verbose"), ("model", "trust_pickle"))


def request_digest(config: Config) -> str:
    """The request key.

    Raises:
        Refused: a file that the request names cannot be read.
    """
    return digest("request", canonical_request(config))


def graph_digest(
    config: Config, *, code: str, weights: str | None, target: Mapping[str, Any] | None = None
) -> str:
    """The graph key.

    Args:
        config: the configuration.
        code: digest of the network's code (`SourceIdentity.code`).
        weights: digest of the network's weights, or None when they are random.
        target: what of the target shapes the file; empty when nothing does.

    Raises:
        Refused: a file that the request names cannot be read.
    """
    request = canonical_request(config)
    shaping: dict[str, Any] = {name: request[name] for name in GRAPH_KEYS}
    for section, name in _NOT_IN_GRAPH:
        shaping[section] = {key: value for key, value in shaping[section].items() if key != name}
    parts = {"request": shaping, "code": code, "weights": weights, "symbolics": symbolics(config)}
    return digest("graph", {**parts, "target": dict(target)} if target else parts)


def result_digest(
    config: Config,
    *,
    pipeline_code: str,
    code: str,
    weights: str | None,
    packages: Iterable[str],
    inputs: str | None = None,
    target: str | None = None,
) -> str:
    """The result key.

    Args:
        config: the configuration.
        pipeline_code: digest of the pipeline's modules that do the work (`pipeline_code_digest`).
        code: digest of the network's code.
        weights: digest of the network's weights, or None when they are random.
        packages: names of the distributions that take part; their public versions count.
        inputs: digest of inputs that neither the seed nor a file of the request determines.
        target: digest of the target's profile, or None without a target.

    Raises:
        Refused: a file that the request names cannot be read.
    """
    return digest(
        "result",
        {
            "request": canonical_request(config),
            "pipeline": pipeline_code,
            "code": code,
            "symbolics": symbolics(config),
            "weights": weights,
            "inputs": inputs,
            "target": target,
            "packages": public_versions(packages),
        },
    )


def symbolics(config: Config) -> str | None:
    """Digest of the code behind `export.custom_symbolics`."""
    text = config.export.custom_symbolics
    return user_code_digest(text, "export.custom_symbolics").sha256 if text is not None else None


def public_versions(packages: Iterable[str]) -> dict[str, str]:
    """Distribution name to public version, sorted by name."""
    return {name: public_version(name) for name in sorted(set(packages))}


def digest(kind: str, data: Mapping[str, Any]) -> str:
    """sha256 of canonical data, apart for each kind of key."""
    return hashlib.sha256(f"{kind} {FORMAT}\n{canonical_json(data)}".encode()).hexdigest()
