"""`rules`: what it lists, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from pipeline.commands.rules import main
from pipeline.errors import Refused
from pipeline.graph.rewrites.names import NAMES


def test_json_lists_every_rule(capsys):
    assert main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(NAMES)
    for row in rows:
        assert set(row) == {
            "name", "kind", "summary", "takes", "makes", "needs", "promise", "from_opset", "opsets", "off",
        }  # fmt: skip
        assert row["off"] == f"{'export' if row['kind'] == 'lower' else 'target'}.rules.{row['name']}=false"


def test_words_narrow_the_list(capsys):
    assert main(["lower", "einsum"]) == 0
    assert capsys.readouterr().out == (
        "einsum  (lower, from opset 12 to 11, float noise)\n"
        "    Einsum becomes products of matrices\n"
        "    takes Einsum; makes Gather, Identity, MatMul, ReduceSum, Reshape, Squeeze, Transpose, Unsqueeze\n"
        "    needs the sizes of indices that share an axis of a matrix, or of which a diagonal is taken\n"
        "    off with export.rules.einsum=false\n"
        "1 rule\n"
    )


def test_a_word_that_no_rule_has_is_refused_with_near_names():
    with pytest.raises(Refused) as caught:
        main(["einsumm", "--json"])
    assert caught.value.reason.code == "PL-800"
    assert "Did you mean einsum" in caught.value.reason.next_step


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["gelu_tanh"], "Did you mean gelu_to_tanh?"),  # and not Tanh or gelu
        (["legalize"], "Did you mean legalise?"),  # and not Resize or dequantize
        (["lower", "einsumm"], "Did you mean einsum?"),  # and not lower or Floor
        (["qwerty"], "Type python -m pipeline rules"),
        (["legalise", "lower_slice", "einsum"], "Type python -m pipeline rules"),
        (["legalise", "Triangle"], "Type python -m pipeline rules legalise"),
    ],
)
def test_near_names_are_near_and_of_the_word_that_no_rule_has(words, step):
    with pytest.raises(Refused) as caught:
        main(words)
    assert caught.value.reason.next_step == step


def test_a_flag_that_there_is_not():
    with pytest.raises(Refused) as caught:
        main(["--all"])
    assert caught.value.reason.code == "PL-800"
