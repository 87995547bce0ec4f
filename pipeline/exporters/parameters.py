"""Parameters of the export that not every exporter serves: refused before work, never dropped. No torch."""

from __future__ import annotations

from pipeline.errors import Refused
from pipeline.exporters.config import ExportConfig
from pipeline.exporters.opsets import Exporter, order

#: Names of the operator set that the opset itself versions.
STANDARD_DOMAINS = ("", "ai.onnx")


def check_parameters(config: ExportConfig) -> None:
    """Refuse parameters that contradict each other or the exporter.

    Raises:
        Refused: PL-305, dynamo was asked for something that it does not do; PL-306, custom_opsets
            names the standard operator set or a version below 1.
    """
    if config.exporter == "dynamo" and config.training == "train":
        raise Refused(
            "PL-305",
            "the dynamo exporter writes BatchNorm as it is at inference, whatever mode the network is in",
            where="export.training",
            found="train",
            expected="eval, or preserve for a network that is all in eval mode",
            next_step="Type export.exporter=torchscript",
        )
    for domain, version in config.custom_opsets.items():
        if domain in STANDARD_DOMAINS:
            raise Refused(
                "PL-306",
                "the standard operator set is no custom one",
                where="export.custom_opsets",
                found=repr(domain),
                expected="the domain of custom operators, such as com.example",
                next_step=f"Type export.opset={version}",
            )
        if version < 1:
            raise Refused(
                "PL-306",
                "versions of operator sets begin at 1",
                where=f"export.custom_opsets.{domain}",
                found=str(version),
                expected="1 or more",
            )


def exporters(config: ExportConfig, opset: int, first: Exporter | None = None) -> tuple[Exporter, ...]:
    """The exporters to try, in order; an exporter that was named is the only one.

    Training mode leaves TorchScript alone: dynamo would write another network.

    Args:
        config: what was asked.
        opset: of ai.onnx.
        first: what the target prefers, where the request leaves the choice.
    """
    if config.exporter != "auto":
        return (config.exporter,)
    if config.training == "train":
        return ("torchscript",)
    own = order(opset)
    return own if first is None else (first, *(one for one in own if one != first))
