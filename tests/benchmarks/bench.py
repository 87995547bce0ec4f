"""Time and memory of the pipeline beside a hand-written script.

    python tests/benchmarks/bench.py [--case NAME]... [--pairs N] [--quick] [--json FILE]

Each figure is of the whole process. Pipeline and hand script run in turn, the order changing from
pair to pair, and the ratio is the median over the pairs' own ratios, so that a machine that slows
down for a while slows both. Memory is measured in separate runs (see measure.py). The figures are
no test: a goal that is missed is shown, and the exit code stays 0. It is 1 if a command failed.
"""

import argparse
import itertools
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from cases import CASES, ONE_MORE_POINTS, Case, OneMorePoint
from measure import MIB, CommandError, Cost, measure

REPOSITORY: Final = Path(__file__).resolve().parents[2]
HAND_SCRIPT: Final = Path(__file__).resolve().with_name("hand_script.py")
DEFAULT_JSON: Final = REPOSITORY / "outputs" / "bench.json"
DEFAULT_PAIRS: Final = 5
FIRST_NEW_VALUE: Final = 100  #: of the key that is swept; every further value is one more
NEW_POINTS: Final = 4  #: by which the long sweep is longer than the short one
IMPORT_CODE: Final = "import torch, torchvision"
MEANWHILE: Final = " (meanwhile)"  #: behind the name of a stage that ran beside others


@dataclass
class Result:
    """What was measured of a case.

    Attributes:
        ratios: wall time of the pipeline over that of the hand scripts, pair by pair.
        pipeline, hand: costs of the timed runs, in order.
        memory, hand_memory: costs of the runs whose memory was sampled.
        weights_mib: size of the ONNX file that the pipeline made, with its external data.
        stages: seconds a stage from the last timed run's own record.
        failure: why there is no more.
    """

    case: Case
    ratios: list[float] = field(default_factory=list)
    pipeline: list[Cost] = field(default_factory=list)
    hand: list[Cost] = field(default_factory=list)
    memory: Cost | None = None
    hand_memory: Cost | None = None
    weights_mib: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    failure: str | None = None

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None


@dataclass
class PointResult:
    """What one more point of a sweep costs.

    Attributes:
        cpu_s: processor seconds a point, each the difference of a long and a short sweep.
        stages_s: seconds a point of the stages that differ from point to point.
    """

    case: OneMorePoint
    cpu_s: list[float] = field(default_factory=list)
    stages_s: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def besides_s(self) -> float | None:
        both = zip(self.cpu_s, self.stages_s, strict=True)
        return statistics.median(cpu - stages for cpu, stages in both) if self.cpu_s else None


class Bench:
    """Runs cases in a scratch folder."""

    def __init__(self, pipeline: list[str], hand: Path, scratch: Path, console: Console) -> None:
        self._pipeline = pipeline
        self._hand = hand
        self._scratch = scratch
        self._console = console
        self._numbers = itertools.count()
        # The user's own cache and settings stay out of it.
        self._environment = {"XDG_CACHE_HOME": str(scratch / "home-cache"), "NO_COLOR": "1"}

    def cost_of_import(self) -> Cost:
        """Memory that importing torch and torchvision takes; also brings them into the page cache."""
        command = [sys.executable, "-c", IMPORT_CODE]
        measure([command], cwd=REPOSITORY, environment=self._environment)
        return measure([command], cwd=REPOSITORY, environment=self._environment, memory=True)

    def run(self, case: Case, pairs: int) -> Result:
        """All timed pairs of a case, then one run a side for memory."""
        result = Result(case)
        try:
            warm = self._folder()
            if case.start == "warm":
                self._run_pipeline(case, warm, memory=False)
            pairs = min(pairs, case.most_pairs or pairs)
            for pair in range(pairs):
                self._console.print(f"{case.name}: pair {pair + 1} of {pairs}", style="dim")
                self._one_pair(case, result, warm, pipeline_first=pair % 2 == 0)
            self._console.print(f"{case.name}: memory", style="dim")
            folder = warm if case.start == "warm" else self._folder()
            result.memory = self._run_pipeline(case, folder, memory=True)
            shutil.rmtree(folder)
            if case.hand:
                result.hand_memory = self._run_hand(case, memory=True)
        except CommandError as failure:
            result.failure = str(failure)
        return result

    def _one_pair(self, case: Case, result: Result, warm: Path, *, pipeline_first: bool) -> None:
        folder = warm if case.start == "warm" else self._folder()

        def run_pipeline() -> None:
            result.pipeline.append(self._run_pipeline(case, folder, memory=False))

        def run_hand() -> None:
            if case.hand:
                result.hand.append(self._run_hand(case, memory=False))

        steps: list[Callable[[], None]] = [run_pipeline, run_hand]
        for step in steps if pipeline_first else reversed(steps):
            step()
        if case.hand:
            result.ratios.append(result.pipeline[-1].wall_s / result.hand[-1].wall_s)
        result.weights_mib = _size_of_models(folder) or result.weights_mib
        result.stages = _seconds_by_stage(folder)
        if case.start != "warm":
            shutil.rmtree(folder)

    def run_one_more_point(self, case: OneMorePoint, times: int) -> PointResult:
        """Sweeps over one new value and over several, with a cache that holds all else."""
        result = PointResult(case)
        try:
            cache = self._folder()
            self._sweep(case, cache, points=1)
            for number in range(times):
                self._console.print(f"{case.name}: {number + 1} of {times}", style="dim")
                short, _ = self._sweep(case, cache, points=1)
                long, stages_s = self._sweep(case, cache, points=1 + NEW_POINTS)
                result.cpu_s.append((long.cpu_s - short.cpu_s) / NEW_POINTS)
                result.stages_s.append(stages_s)
        except CommandError as failure:
            result.failure = str(failure)
        return result

    def _sweep(self, case: OneMorePoint, cache: Path, *, points: int) -> tuple[Cost, float]:
        """A sweep over new values; its cost, and the seconds a point of the stages that differ."""
        folder = self._folder()
        numbers = [FIRST_NEW_VALUE + next(self._numbers) for _ in range(points)]
        values = ",".join(case.value.format(number) for number in numbers)
        places = (f"out={folder / 'out'}", f"cache.dir={cache}")
        command = [*self._pipeline, *case.arguments, f"{case.key}={values}", *places]
        cost = measure([command], cwd=REPOSITORY, environment=self._environment)
        seconds = _seconds_by_stage(folder)
        stages_s = sum(seconds.get(name, 0.0) for name in case.stages) / points
        shutil.rmtree(folder)
        return cost, stages_s

    def _run_pipeline(self, case: Case, folder: Path, *, memory: bool) -> Cost:
        command = [*self._pipeline, *case.arguments]
        if case.start != "no files":
            command.append(f"out={folder / 'out'}")
            command.append("cache.mode=none" if case.start == "fresh" else f"cache.dir={folder / 'cache'}")
        return measure([command], cwd=REPOSITORY, environment=self._environment, memory=memory)

    def _run_hand(self, case: Case, *, memory: bool) -> Cost:
        folder = self._folder()
        commands = []
        for number, (network, opset, *flags) in enumerate(case.hand):
            file = str(folder / f"{number}.onnx")
            commands.append([sys.executable, str(self._hand), network, opset, file, *flags])
        cost = measure(commands, cwd=folder, environment=self._environment, memory=memory)
        shutil.rmtree(folder)
        return cost

    def _folder(self) -> Path:
        """A new empty folder."""
        folder = self._scratch / str(next(self._numbers))
        folder.mkdir()
        return folder


def _size_of_models(folder: Path) -> float | None:
    """MiB of the ONNX file below `folder`; None if there is not exactly one."""
    models = list(folder.rglob("model.onnx"))
    if len(models) != 1:
        return None
    return sum(path.stat().st_size for path in models[0].parent.glob("model.onnx*")) / MIB


def _seconds_by_stage(folder: Path) -> dict[str, float]:
    """What the run records below `folder` say, added up over the runs."""
    seconds: dict[str, float] = {}
    for record in sorted(folder.rglob("run.json")):
        for stage in json.loads(record.read_text()).get("stages", ()):
            name = stage["name"] + (MEANWHILE if stage.get("beside") else "")
            seconds[name] = seconds.get(name, 0.0) + (stage.get("seconds") or 0.0)
    return seconds


def memory_goal_mib(result: Result, import_mib: float) -> float | None:
    """What the peak should not be above, if the case has such a goal and its parts are known."""
    case, hand = result.case, result.hand_memory
    if case.goal_memory_ratio is not None and hand is not None and hand.peak_pss_mib is not None:
        return case.goal_memory_ratio * hand.peak_pss_mib
    if case.goal_memory_factor is not None and result.weights_mib is not None:
        return import_mib + case.goal_memory_factor * result.weights_mib + case.goal_memory_room_mib
    return None


def _median(costs: list[Cost], of: str) -> float | None:
    return statistics.median(getattr(cost, of) for cost in costs) if costs else None


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _goal(value: float | None, goal: float | None, digits: int = 2) -> str:
    """The goal, and in a word whether it is reached: colour alone must not say it."""
    if value is None or goal is None:
        return ""
    return f"<={goal:.{digits}f} {'met' if value <= goal else '[bold]missed[/bold]'}"


def _columns(title: str, *names: str) -> Table:
    """An empty table that fits 80 columns."""
    made = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("case", no_wrap=True)
    for name in names:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def time_table(results: list[Result]) -> Table:
    """One row a case: medians over the timed runs."""
    made = _columns(
        "Time in seconds, whole process; ratio: median over the pairs",
        *("wall", "by hand", "ratio", "goal", "cpu", "by hand"),
    )
    for result in results:
        wall_s, ratio = _median(result.pipeline, "wall_s"), result.ratio
        goals = [_goal(ratio, result.case.goal_ratio)]
        if result.case.goal_s is not None:
            goals.append(f"wall {_goal(wall_s, result.case.goal_s)}")
        made.add_row(
            result.case.name,
            "failed" if result.failure else _number(wall_s),
            _number(_median(result.hand, "wall_s")),
            _number(ratio),
            "\n".join(goal for goal in goals if goal),
            _number(_median(result.pipeline, "cpu_s")),
            _number(_median(result.hand, "cpu_s")),
        )
    return made


def memory_table(results: list[Result], import_mib: float) -> Table:
    """One row a case whose memory was sampled."""
    made = _columns(
        "Peak memory in MiB: sum of PSS over the process tree",
        *("weights", "peak", "by hand", "ratio", "goal"),
    )
    for result in results:
        if result.memory is None:
            continue
        peak = result.memory.peak_pss_mib
        hand = result.hand_memory.peak_pss_mib if result.hand_memory else None
        made.add_row(
            result.case.name,
            _number(result.weights_mib, 0),
            _number(peak, 0),
            _number(hand, 0),
            _number(peak / hand if peak and hand else None),
            _goal(peak, memory_goal_mib(result, import_mib), 0),
        )
    return made


def where_the_time_goes(result: Result) -> str:
    """The stages of the last timed run, longest first, and what is left of its wall time.

    A stage that others waited for in the end is in what is left, as far as they did.
    """
    if not result.stages or not result.pipeline:
        return ""
    wall_s = result.pipeline[-1].wall_s
    parts = [f"{name} {s:.2f}" for name, s in sorted(result.stages.items(), key=lambda item: -item[1])]
    rest = wall_s - sum(s for name, s in result.stages.items() if not name.endswith(MEANWHILE))
    return f"{result.case.name}: {wall_s:.2f} s = {', '.join(parts)}, outside the stages {rest:.2f}"


def one_more_point_line(result: PointResult) -> str:
    """The figure of `OneMorePoint` in a sentence."""
    if result.besides_s is None:
        return ""
    cpu_s, stages_s = statistics.median(result.cpu_s), statistics.median(result.stages_s)
    return (
        f"{result.case.name}: {cpu_s:.2f} s of cpu a point, {' and '.join(result.case.stages)} {stages_s:.2f} s, "
        f"besides {result.besides_s:.2f} (goal <= {result.case.goal_s:.2f})"
    )


def as_json(results: list[Result], points: list[PointResult], import_cost: Cost) -> dict[str, Any]:
    """Everything that was measured, run by run."""
    import_mib = import_cost.peak_pss_mib or 0.0
    return {
        "processors": os.cpu_count(),
        "import": asdict(import_cost),
        "cases": [
            {**asdict(result), "ratio": result.ratio, "memory_goal_mib": memory_goal_mib(result, import_mib)}
            for result in results
        ],
        "one_more_point": [{**asdict(result), "besides_s": result.besides_s} for result in points],
    }


def _chosen(arguments: argparse.Namespace) -> tuple[list[Case], list[OneMorePoint]]:
    if arguments.case:
        named = [case for case in CASES if case.name in arguments.case]
        return named, [point for point in ONE_MORE_POINTS if point.name in arguments.case]
    if arguments.quick:
        return [case for case in CASES if case.quick], []
    return [case for case in CASES if case.by_default], list(ONE_MORE_POINTS)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [case.name for case in (*CASES, *ONE_MORE_POINTS)]
    parser.add_argument("--case", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--pairs", type=int, help=f"timed pairs a case (default {DEFAULT_PAIRS}, quick 1)")
    parser.add_argument("--quick", action="store_true", help="one pair of the quick cases")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="where all figures go")
    parser.add_argument("--scratch", type=Path, help="folder for what is made (default: the system's)")
    parser.add_argument("--hand", type=Path, default=HAND_SCRIPT, help="another hand script")
    parser.add_argument(
        "--pipeline",
        default=f"{shlex.quote(sys.executable)} -m pipeline",
        help="another command in its place",
    )
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (1 if arguments.quick else DEFAULT_PAIRS)
    return arguments


def main() -> int:
    """Measure, show, write."""
    arguments = _parse()
    progress, console = Console(stderr=True), Console()
    cases, points = _chosen(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.scratch) as scratch:
        bench = Bench(shlex.split(arguments.pipeline), arguments.hand.resolve(), Path(scratch), progress)
        import_cost = bench.cost_of_import()
        results = [bench.run(case, arguments.pairs) for case in cases]
        point_results = [bench.run_one_more_point(case, arguments.pairs) for case in points]

    import_mib = import_cost.peak_pss_mib or 0.0
    console.print(time_table(results))
    console.print(memory_table(results, import_mib))
    console.print(f"`{IMPORT_CODE}` alone takes {import_mib:.0f} MiB")
    for line in [
        *map(where_the_time_goes, results),
        *map(one_more_point_line, point_results),
        *(f"{result.case.name} failed. {result.failure}" for result in results if result.failure),
        *(f"{result.case.name} failed. {result.failure}" for result in point_results if result.failure),
    ]:
        if line:
            console.print(line, markup=False)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(as_json(results, point_results, import_cost), indent=2) + "\n")
    console.print(f"all figures: {arguments.json}")
    return int(any(result.failure for result in (*results, *point_results)))


if __name__ == "__main__":
    sys.exit(main())
