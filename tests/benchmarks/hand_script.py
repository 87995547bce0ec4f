"""What one types without the pipeline: the baseline that `make bench` puts beside it.

    python hand_script.py NETWORK OPSET FILE [--dynamo]

A torchvision classifier with random weights is exported, checked, simplified with onnxsim, checked
again and run in ONNX Runtime on a fresh input, whose result has to be near PyTorch's. Nothing here
comes from the pipeline, and nothing is tuned: it is the straight road, one library call a step.
Exit code 0 means that every step went well.
"""

import argparse
import sys

import numpy
import onnx
import onnxruntime
import onnxsim
import torch
import torchvision

IMAGE = (1, 3, 224, 224)  # what torchvision's classifiers are described with
RTOL, ATOL = 1e-3, 1e-5  # the tolerances of the usual tutorials


def export(network: torch.nn.Module, opset: int, path: str, dynamo: bool) -> None:
    """Write `network` to one file with the exporter that was asked for."""
    example = torch.randn(IMAGE)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    if dynamo:
        torch.onnx.export(
            network, (example,), path, opset_version=opset, dynamo=True, external_data=False, **names
        )
    else:
        torch.onnx.export(network, (example,), path, opset_version=opset, dynamo=False, **names)


def check_and_simplify(path: str) -> None:
    """Replace the file by its simplified form; the checker has to accept both."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    model, accepted = onnxsim.simplify(model)
    if not accepted:
        sys.exit("onnxsim does not vouch for its result")
    onnx.save(model, path)
    onnx.checker.check_model(model)


def compare(network: torch.nn.Module, path: str) -> None:
    """Both on one image that the export did not see."""
    image = torch.randn(IMAGE)
    with torch.no_grad():
        wanted = network(image).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    (given,) = session.run(None, feed)
    numpy.testing.assert_allclose(given, wanted, rtol=RTOL, atol=ATOL)


def main() -> None:
    """Read the command line and do the steps."""
    parser = argparse.ArgumentParser(description="export, check, simplify and compare by hand")
    parser.add_argument("network", help="a torchvision classifier: resnet18")
    parser.add_argument("opset", type=int)
    parser.add_argument("file", help="where the ONNX file goes")
    parser.add_argument("--dynamo", action="store_true", help="export with torch.export")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    network = torchvision.models.get_model(arguments.network, weights=None).eval()
    export(network, arguments.opset, arguments.file, arguments.dynamo)
    check_and_simplify(arguments.file)
    compare(network, arguments.file)
    print(f"{arguments.file}: made, checked and equal to PyTorch's")


if __name__ == "__main__":
    main()
