"""Real networks from dynamo's opset 18 down, and how long that takes. Slow: every export takes seconds."""

from __future__ import annotations

import time
from functools import lru_cache

import pytest

from pipeline.graph.bare import BareModel
from pipeline.graph.rewrites.lower import lower
from pipeline.graph.rewrites.prove import prove
from pipeline.graph.rewrites.raising import raise_opset

#: Network to the size of its input.
NETWORKS = {
    "resnet18": 64, "convnext_tiny": 64, "deeplabv3_mobilenet_v3_large": 96, "swin_t": 64, "vit_b_16": 224,
}  # fmt: skip
OPSETS = (17, 15, 13, 11, 10, 9)
#: CPU seconds that lowering from 18 to 11 may take; the issue's limit for resnet50 and swin_t.
SECONDS = 1.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


@lru_cache(maxsize=1)
def exported(name: str, size: int):
    """A network's graph as dynamo gives it, and the inputs that it was exported with."""
    import tempfile
    from pathlib import Path

    import torch
    import torchvision

    from pipeline.exporters.choice import export
    from pipeline.exporters.config import ExportConfig
    from pipeline.samples.make import make_samples
    from pipeline.samples.spec import parse_inputs
    from pipeline.sources.network import Network
    from tests.exporters.conftest import signature_of

    torch.manual_seed(0)
    more = {"weights_backbone": None} if name.startswith("deeplab") else {}
    module = torchvision.models.get_model(name, weights=None, **more).eval()
    for parameter in module.parameters():
        if not parameter.any():  # a head of zeros would hide every fault
            torch.nn.init.normal_(parameter, std=0.02)
    network = Network(module, parse_inputs({"x": {"shape": [1, 3, size, size]}}))
    values = make_samples(network.specs, seed=0, stream="export")
    model, _ = export(
        network, values, signature_of(network, values, None), ExportConfig(exporter="dynamo"), opset=18,
        parameter_names=(), emit=lambda event: None, private_apis=True, scratch=Path(tempfile.mkdtemp()),
    )  # fmt: skip
    return model, values


@pytest.mark.parametrize("name", NETWORKS)
def test_down_to_every_opset(name: str):
    model, values = exported(name, NETWORKS[name])
    for opset in OPSETS:
        lowered, rewriting = lower(model, opset)
        error = prove(model, lowered, rewriting, values, key="export.rules")
        assert error is not None
        assert error < 2e-5
        assert _origins(lowered) == _origins(model)
        kept = set(lowered.held) & set(model.held)
        assert all(lowered.held[one].data is model.held[one].data for one in kept)
        # A table that a rule made (of a Resize, of a ScatterND) is no weight: it has no origin and says who made it.
        made = [lowered.held[one] for one in lowered.held if one not in kept]
        assert all(one.origin is None and one.derived_by for one in made), made
    up = raise_opset(lowered, 23, values)
    assert _origins(up) == _origins(lowered)


def _origins(model: BareModel) -> float:
    """The share of nodes whose module is known."""
    nodes = model.parsed().graph.node
    return round(sum(node.name in model.scopes for node in nodes) / len(nodes), 1)


@pytest.mark.parametrize(("name", "size"), [("resnet50", 64), ("swin_t", 224)])
def test_the_cost(name: str, size: int):
    model, _ = exported(name, size)
    taken = []
    for _ in range(3):
        begun = time.process_time()
        lower(model, 11)
        taken.append(time.process_time() - begun)
    print(name, sorted(taken))
    assert sorted(taken)[1] < SECONDS
