"""Running the network for its reference: what is kept, put back, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import StageFailed
from pipeline.events import Progress
from pipeline.parity.config import ParityConfig
from pipeline.parity.reference import EXPORT_LABEL, Reference, make_reference
from pipeline.parity.signature import Signature
from pipeline.samples.make import Samples, make_samples
from pipeline.samples.npz import write_npz
from pipeline.samples.spec import parse_inputs
from pipeline.samples.stages import other_sizes
from pipeline.sources.network import Network

VARIANTS: Any = ("plain", "negated", "scaled")


class Run:
    """make_reference on a module, with everything that it takes."""

    def __init__(self, module: torch.nn.Module, seeds: int = 3, **inputs: Any) -> None:
        self.specs = parse_inputs(inputs or {"x": {"shape": [2, 8]}})
        self.network = Network(module.eval(), self.specs)
        self.export = make_samples(self.specs, seed=0, stream="export")
        self.parity: dict[str, Samples] = {
            f"seed{i}": make_samples(self.specs, seed=0, stream=f"parity/{i}", variant=VARIANTS[i % 3])
            for i in range(seeds)
        }
        for label, sizes in other_sizes(self.specs).items():
            self.parity[label] = make_samples(self.specs, seed=0, stream=label, sizes=sizes)
        self.events: list[Any] = []

    def __call__(self, **config: Any) -> tuple[Reference, Signature]:
        return make_reference(
            self.network, self.export, self.parity, ParityConfig(**config), self.events.append
        )


def linear() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(8, 4)


class TestRuns:
    def test_every_input_and_the_first_in_float64(self) -> None:
        run = Run(linear())
        reference, signature = run()
        assert list(reference.outputs) == ["seed0", "seed1", "seed2"]
        assert list(reference.exact) == ["seed0"]
        assert reference.first == "seed0"
        weight, bias = (p.detach().double().numpy() for p in run.network.module.parameters())
        exact = run.parity["seed0"]["x"].astype(np.float64) @ weight.T + bias
        assert np.allclose(reference.exact["seed0"]["output1"], exact, rtol=1e-14)
        assert reference.outputs["seed0"]["output1"].dtype == np.float32
        assert signature.names == ("output1",)
        progress = [event for event in run.events if isinstance(event, Progress)]
        assert [event.done for event in progress][-1] == progress[-1].total

    def test_inputs_on_which_outputs_explode_get_a_float64_run_of_their_own(self) -> None:
        class Gates(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x**4

        assert list(Run(Gates())()[0].exact) == ["seed0", "seed2"]

    def test_fixed_tolerances_need_no_float64_run(self) -> None:
        assert Run(linear())(kind="fixed")[0].exact == {}

    def test_without_a_comparison_only_what_the_signature_needs_is_run(self) -> None:
        run = Run(linear())
        reference, signature = run(kind="none")
        assert reference.outputs == {}
        assert signature.names == ("output1",)

    def test_the_signature_does_not_depend_on_how_is_compared(self) -> None:
        inputs = {"x": {"shape": [2, 8], "dynamic": {0: "batch"}}}
        signatures = [
            Run(linear(), seeds, **inputs)(kind=kind)[1]
            for seeds in (1, 3)
            for kind in ("noise", "fixed", "none")
        ]
        assert all(signature == signatures[0] for signature in signatures)
        assert signatures[0].outputs[0].dimensions() == ("batch", 4)

    def test_a_single_seed_gets_a_second_input_to_compare_with(self) -> None:
        assert list(Run(linear(), 1)()[0].outputs) == ["seed0", EXPORT_LABEL]

    def test_a_network_that_has_no_float64_run(self) -> None:
        class Stubborn(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.from_numpy(x.detach().numpy().astype(np.float32))

        reference, _ = Run(Stubborn())()
        assert reference.exact == {}
        assert reference.declined == "output output1 stays torch.float32 whatever goes in"

    def test_it_can_lie_in_the_cache(self, tmp_path: Path) -> None:
        reference, _ = Run(linear())()
        reference.store(tmp_path)
        read = Reference.load(tmp_path)
        assert list(read.outputs) == list(reference.outputs)
        for sets, others in ((read.outputs, reference.outputs), (read.exact, reference.exact)):
            for label, outputs in others.items():
                assert all(np.array_equal(sets[label][name], array) for name, array in outputs.items())
        assert read.declined is None


class TestTheNetworkStays:
    def test_buffers_are_put_back(self) -> None:
        class Counter(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("count", torch.zeros(1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.count += 1
                return x + self.count

        run = Run(Counter())
        reference, _ = run()
        assert run.network.tensors()["count"].item() == 0
        for label, values in run.parity.items():
            assert np.allclose(reference.outputs[label]["output1"], values["x"] + 1)

    def test_a_parameter_that_forward_changes_is_refused(self) -> None:
        class Drifting(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(8))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.weight.mul_(0.9)
                return x * self.weight

        with pytest.raises(StageFailed, match="PL-502: weight: the network changes its own tensors"):
            Run(Drifting())()


class TestRandomness:
    def test_dropout_left_on_is_named(self) -> None:
        run = Run(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Dropout()))
        run.network.module.train()
        with pytest.raises(StageFailed) as caught:
            run()
        assert caught.value.reason.code == "PL-501"
        assert caught.value.reason.where == "1 (Dropout)"
        assert ".eval()" in str(caught.value.reason.next_step)

    @pytest.mark.parametrize("source", ["torch", "numpy", "python"])
    def test_a_module_left_random(self, source: str) -> None:
        import random

        class Noise(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if source == "torch":
                    return x + torch.rand_like(x)
                return x + float(np.random.rand() if source == "numpy" else random.random())

        with pytest.raises(StageFailed, match="PL-501: 0 \\(Noise\\): the network is random at inference"):
            Run(torch.nn.Sequential(Noise()))()

    def test_a_generator_of_its_own_shows_in_the_noise(self) -> None:
        class Own(torch.nn.Module):
            generator = np.random.default_rng(0)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + float(self.generator.standard_normal())

        with pytest.raises(StageFailed, match="PL-501"):
            Run(Own())()

    def test_numbers_that_are_drawn_and_not_used_are_no_matter(self) -> None:
        class Draws(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                torch.rand(3)
                return x * 2

        assert Run(Draws())()[0].outputs


class TestTheSignatureComesFirst:
    @pytest.mark.parametrize("kind", ["noise", "fixed", "none"])
    def test_it_is_known_before_the_longer_runs(self, kind: str) -> None:
        """The export beside it waits for nothing else."""
        run = Run(linear(), x={"shape": [2, 8], "dynamic": {0: "batch"}})
        known: list[tuple[Signature, int]] = []
        reference, signature = make_reference(
            run.network, run.export, run.parity, ParityConfig(kind=kind), run.events.append,
            lambda found: known.append((found, len(run.events))),
        )  # fmt: skip
        ((found, runs),) = known
        sizes = sum(label.startswith("sizes") for label in run.parity)
        assert found == signature
        assert runs == 1 + sizes
        assert (len(run.events) > runs) == (kind != "none")
        wanted = {label for label in run.parity if kind != "none" or label.startswith("sizes")}
        assert set(reference.outputs) == wanted

    def test_random_numbers_that_only_a_later_input_draws_are_found(self) -> None:
        class Late(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.rand(1) if x.abs().max() > 4 else x

        run = Run(Late())
        with pytest.raises(StageFailed, match="PL-501"):
            run()


class TestRefusals:
    def test_a_network_that_fails_on_an_input(self) -> None:
        class Picky(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if x.abs().max() > 5:
                    raise ValueError("too large")
                return x

        with pytest.raises(StageFailed) as caught:
            Run(Picky())()
        assert caught.value.reason.message == "the network fails on its inputs: ValueError: too large"
        assert str(caught.value.reason.where).startswith(__file__)

    @pytest.mark.parametrize(
        ("error", "step"),
        [
            (ModuleNotFoundError("No module named 'gone'", name="gone"), "Install gone, or put it beside"),
            (ImportError("cannot import name 'x' from 'os'"), "Mend the import, or install the version"),
        ],
    )
    def test_an_import_in_forward_that_fails(self, error: ImportError, step: str) -> None:
        """It was said to compare model.inputs with what forward takes."""

        class Imports(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise error

        with pytest.raises(StageFailed, match="PL-503") as caught:
            Run(Imports())()
        assert str(caught.value.reason.next_step).startswith(step)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_outputs_that_are_not_finite(self, value: float) -> None:
        class Broken(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.where(x > 0, x, value)

        with pytest.raises(StageFailed, match="PL-500: seed0: the network's output output1 is not finite"):
            Run(Broken())()

    def test_another_number_of_outputs_on_a_later_seed(self) -> None:
        """It was a broken invariant of ours."""

        class More(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return (x, x * 2) if x.abs().max() > 4 else x

        with pytest.raises(
            StageFailed, match=r"PL-504: seed2: .* other outputs on one input than on another"
        ):
            Run(More())()

    def test_another_structure_on_another_input(self) -> None:
        class Loose(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x if x.shape[0] == 2 else x[0]

        with pytest.raises(StageFailed, match="PL-504"):
            Run(Loose(), x={"shape": [2, 8], "dynamic": {0: "batch"}})()


def test_the_same_arrays_give_the_same_npz(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3).T, "b": np.float32(1)}
    for name in ("one.npz", "two.npz"):
        write_npz(tmp_path / name, arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as read:
        assert np.array_equal(read["a"], arrays["a"])
        assert read["b"] == 1
