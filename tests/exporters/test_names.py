"""Names that contradict each other are refused, each with its own sentence."""

from __future__ import annotations

import pytest

from pipeline.errors import Refused
from pipeline.exporters.config import ExportConfig
from pipeline.exporters.names import check_against_network, check_names, listed
from pipeline.exporters.parameters import check_parameters, exporters


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_names_that_fit_are_taken():
    check_names(2, ExportConfig(input_names=("a", "b", "learned_0"), output_names=("c",)))
    check_names(1, ExportConfig(), leaf_names=("x",), output_names=("y",))
    check_against_network(["a"], ["c"], ["learned_0"], ["weight", "bias"], ["table"])


def test_fewer_names_than_inputs():
    assert refusal(check_names, 2, ExportConfig(input_names=("a",))) == (
        "PL-301: export.input_names: there are fewer names than inputs; found 1 name (a), expected one for each of "
        "the 2 inputs, and then, if wanted, for parameters. Name every input, or leave the key out to keep the names "
        "of model.inputs"
    )


def test_repeated_names():
    assert "PL-302: export.input_names: the name 'a' is given twice" in refusal(
        check_names, 1, ExportConfig(input_names=("a", "a"))
    )
    assert "PL-302: export.output_names: the name 'y' is given twice" in refusal(
        check_names, 1, ExportConfig(output_names=("y", "y")), leaf_names=("x",)
    )
    assert "PL-303" in refusal(check_names, 1, ExportConfig(input_names=("",)))


@pytest.mark.parametrize(
    ("config", "outputs"),
    [
        (ExportConfig(input_names=("a",), output_names=("a",)), ()),
        (ExportConfig(input_names=("y",)), ("y",)),
        (ExportConfig(output_names=("x",)), ()),
    ],
)
def test_an_input_named_like_an_output(config, outputs):
    assert "names an input and an output" in refusal(
        check_names, 1, config, leaf_names=("x",), output_names=outputs
    )


def test_more_names_than_inputs_and_parameters():
    assert refusal(check_against_network, ["a"], ["y"], ["p", "q", "r"], ["weight", "bias"]) == (
        "PL-304: export.input_names: there are more names than inputs and parameters together; found 4 names, "
        "expected at most 3: 1 input and 2 parameters. Leave out the last 1"
    )


def test_names_of_parameters():
    assert "'weight' names an input and is the name of a parameter of the network" in refusal(
        check_against_network, ["weight"], ["y"], [], ["weight"]
    )
    assert "'table' names an output and is" in refusal(
        check_against_network, ["a"], ["table"], [], ["weight"], ["table"]
    )
    assert "'bias' names a parameter and is the name of another one" in refusal(
        check_against_network, ["a"], ["y"], ["bias"], ["weight", "bias"]
    )
    # A parameter that is renamed gives its name free.
    check_against_network(["weight"], ["y"], ["learned_0"], ["weight", "bias"])


def test_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 more"


def test_parameters_that_the_exporter_does_not_serve():
    assert "Type export.exporter=torchscript" in refusal(
        check_parameters, ExportConfig(exporter="dynamo", training="train")
    )
    assert "PL-306" in refusal(check_parameters, ExportConfig(custom_opsets={"": 3}))
    assert "PL-306" in refusal(check_parameters, ExportConfig(custom_opsets={"com.example": 0}))
    check_parameters(ExportConfig(training="train", custom_opsets={"com.example": 2}))


def test_the_order_of_the_exporters():
    assert exporters(ExportConfig(), 17) == ("torchscript", "dynamo")
    assert exporters(ExportConfig(), 18) == ("dynamo", "torchscript")
    assert exporters(ExportConfig(training="train"), 18) == ("torchscript",)
    assert exporters(ExportConfig(exporter="dynamo"), 11) == ("dynamo",)
