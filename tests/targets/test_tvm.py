"""TVM's backend against the contract of all backends, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StageFailed
from pipeline.targets.backend import BackendError
from pipeline.targets.contract_tests import TWO, BackendContract, Trial
from pipeline.targets.tvm import BACKEND
from pipeline.targets.tvm_library import constant_pool, precision_of
from pipeline.targets.tvm_schedule import Registers, registers_of, tile_of

DET = """
<ir_version: 8, opset_import: ["" : 17]>
determinant (float[2,3,3] image) => (float[2] d) { d = Det (image) }
"""
ANTIALIAS = """
<ir_version: 8, opset_import: ["" : 18]>
smaller (float[1,3,8,8] image) => (float[1,3,4,4] small)
{
    scales = Constant <value = float[4] {1.0, 1.0, 0.5, 0.5}> ()
    small = Resize <mode = "linear", antialias = 1> (image, , scales)
}
"""
#: Every rule of the schedule: tiles, awkward sizes, reductions along the last axis, two reductions, a reshape.
MIXED = """
<ir_version: 8, opset_import: ["" : 17]>
mixed (float[2,3,13,11] image) => (float[2,4,13,11] soft, float[2,572] flat, float[2,4,1,1] best)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    active = Sigmoid (features)
    pooled = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (active)
    shape = Constant <value = int64[2] {2, 572}> ()
    flat = Reshape (pooled, shape)
    soft = Softmax <axis = 3> (pooled)
    best = GlobalMaxPool (features)
}
"""


#: Two sizes that are only known when it runs, and padding.
SIZES = """
<ir_version: 8, opset_import: ["" : 17]>
sizes (float[1,3,height,width] image) => (float[1,4,height,width] active)
{
    features = Conv <pads = [1, 1, 1, 1]> (image, weight)
    active = Relu (features)
}
"""


class TestTvm(BackendContract):
    backend = BACKEND


class TestItsOwn:
    def test_an_operator_that_it_lacks_is_named_with_its_node(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="no rule for Det") as failed:
            Trial(TestTvm(), tmp_path, DET).compile()
        assert failed.value.reason.where == "node d, operator Det"

    def test_what_it_computes_wrongly_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match="antialias=1 and computes something else"):
            Trial(TestTvm(), tmp_path, ANTIALIAS).compile()

    def test_every_function_of_a_mixed_graph_is_scheduled_and_right(self, tmp_path: Path) -> None:
        trial = Trial(TestTvm(), tmp_path, MIXED)
        made = trial.compile()
        schedule = made.compiled.facts["schedule"]
        assert schedule["unscheduled"] == []
        assert set(schedule["functions"]) == {"elementwise", "tiled reduction", "parallel reductions"}
        trial.expect_right(trial.run(made, trial.samples()))

    def test_two_unknown_sizes_are_scheduled_and_right(self, tmp_path: Path) -> None:
        trial = Trial(TestTvm(), tmp_path, SIZES)
        made = trial.compile()
        assert made.compiled.facts["schedule"] == {
            "functions": {"elementwise": 2, "tiled reduction": 1},
            "unscheduled": [],
        }
        trial.expect_right(trial.run(made, trial.samples(batch=6)))

    @pytest.mark.slow
    def test_two_compilations_have_the_same_schedule(self, tmp_path: Path) -> None:
        facts = [Trial(TestTvm(), tmp_path / name, TWO).compile().compiled.facts for name in "ab"]
        assert facts[0] == facts[1]


class TestTiles:
    @pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64-v4", "generic"])
    @pytest.mark.parametrize("places", [1, 7, 14, 56, 112, 197, None])
    @pytest.mark.parametrize("channels", [3, 24, 64, 1000])
    def test_a_tile_divides_both_axes_and_fits_the_registers(
        self, mcpu: str, places: int | None, channels: int
    ) -> None:
        registers = registers_of(mcpu)
        width, lanes = tile_of(places, channels, registers)
        assert channels % lanes == 0
        assert places is None or places % width == 0
        vectors = max(1, lanes // registers.lanes)
        assert width == 1 or width * vectors + vectors + 1 <= registers.count

    def test_unknown_channels_are_not_tiled(self) -> None:
        assert tile_of(56, None, Registers(8, 16)) == (1, 1)

    def test_resnet_sizes_on_avx2(self) -> None:
        assert [tile_of(places, 64, Registers(8, 16)) for places in (56, 14, 7)] == [(4, 16), (2, 32), (7, 8)]


class TestReadBack:
    def test_the_constant_pool_is_split_at_its_own_commas(self) -> None:
        text = (
            'Relax VM executable statistics:\n  Constant pool (# 5): [float32, "ErrorContext(a, annotation=R.Tensor('
            '(1, 3), dtype="float32")) ", shapetuple[1, 2], [3, 3], float16]\n  Globals (#1): [x]'
        )
        assert [entry[:10] for entry in constant_pool(text)] == [
            "float32", '"ErrorCont', "shapetuple", "[3, 3]", "float16",
        ]  # fmt: skip

    def test_a_mixture_is_said(self) -> None:
        assert precision_of({"float16": 3, "float32": 1}) == "float16 with float32 in places"
        assert precision_of({}) == "float32"

    def test_unknown_schedules_are_refused(self, tmp_path: Path) -> None:
        from pipeline.targets.backend import Job

        job = Job(tmp_path / "model.onnx", tmp_path, tmp_path, (), (), options={"schedule": "magic"})
        with pytest.raises(BackendError, match="no schedule magic"):
            BACKEND.compile(job)
