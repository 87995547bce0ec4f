"""`precheck MODEL.onnx|DIR --target NAME`: a finished file against a target's profile, without its tools.

Exit code 0: nothing is refused. 1: something is refused, or nobody can tell here. 2: a bad call.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.commands.arguments import one_path, parser, print_json
from pipeline.errors import EXIT_FAILED, EXIT_MADE, Refused
from pipeline.report.units import count
from pipeline.run.records import RECORD

if TYPE_CHECKING:
    from pipeline.targets.causes import Cause
    from pipeline.targets.judge import Finding, Judgement
    from pipeline.targets.profile import Profile

MODEL: Final = "model.onnx"
SOURCE_MAP: Final = "source_map.json"
HEADINGS: Final = {
    "refused": "refused",
    "unknown": "not known",
    "limited-to-cpu": "not on {accelerator}, but on {cpu}",
}
#: Causes of one kind that are shown; --json has all.
MOST_CAUSES: Final = 30


def main(argv: Sequence[str]) -> int:
    """Judge one file or run directory."""
    from pipeline.targets.judge import judge, requested_nodes
    from pipeline.targets.precheck_stage import places

    arguments = parser("precheck", "Judge a finished ONNX file against a target's profile.")
    # Both may be missing for argparse, which otherwise calls the overrides required too.
    arguments.add_argument("path", type=Path, nargs="?", help="an ONNX file, or a run directory")
    arguments.add_argument(
        "--target", required=True, metavar="NAME", help="python -m pipeline targets lists them"
    )
    arguments.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own folder with target/NAME.yaml"
    )
    arguments.add_argument("overrides", nargs="*", help="target.limits.KEY=VALUE and the like")
    given = arguments.parse_intermixed_args(list(argv))
    if given.path is None:
        arguments.error("the following arguments are required: path")
    # Paths behind the first one would be taken for overrides.
    others = [Path(word) for word in given.overrides if "=" not in word and Path(word).exists()]
    one_path(arguments, [given.path, *others])
    profile, options = target(given.target, given.config_dir, given.overrides)
    file, rows = _model(given.path)
    _refuse_without_data(file)
    modules, lines = places(rows)
    judgement = judge(profile, file, modules=modules, lines=lines, requested=requested_nodes(options))
    made, aimed = _words(given.path), [f"target={given.target}", *given.overrides]
    judgement = replace(judgement, findings=tuple(_typed(one, made, aimed) for one in judgement.findings))
    if given.json:
        print_json({"target": given.target, **_data(file, profile, judgement, modules)})
    else:
        print("\n".join(_text(given.target, file, profile, judgement)))
    return EXIT_MADE if judgement.passed else EXIT_FAILED


def target(name: str, config_dir: Path | None, overrides: Sequence[str]) -> tuple[Profile, Mapping[str, Any]]:
    """The profile of a target as a run with the same words would have it, and its options.

    Raises:
        Refused: there is no such target, or its profile is damaged.
    """
    from pipeline.targets.profile import load_profile

    if name == "none":
        raise Refused("PL-600", "target=none is no target", where="--target", found="none",
                      expected="a target", next_step="Type python -m pipeline targets")  # fmt: skip
    if config_dir is not None and not config_dir.is_dir():
        raise Refused("PL-108", "the configuration folder is not there", where="--config-dir",
                      found=str(config_dir), expected="a folder with target/NAME.yaml",
                      next_step="Type --config-dir FOLDER")  # fmt: skip
    if config_dir is None and not overrides:
        # Composing would give the same: the pipeline's own targets are their profiles.
        return load_profile(name), {}
    from pipeline.config.compose import compose
    from pipeline.graph.rewrites.names import check_rules

    for word in overrides:
        if not word.lstrip("+~").startswith("target."):
            raise Refused("PL-800", "only keys of target count here", where="precheck", found=word,
                          expected="target.KEY=VALUE", next_step="Take it away")  # fmt: skip
    folders = [] if config_dir is None else [config_dir]
    config = compose([f"target={name}", "model=mynet", *overrides], config_dirs=folders).target
    if config.name == "none":
        raise Refused("PL-600", "target.name=none is no target", where="target.name", found="none",
                      expected=name, next_step="Take the key away")  # fmt: skip
    check_rules(config.rules, key="target.rules", kind="legalise")
    return load_profile(config.profile or config.name, config.limits), config.options


def _model(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file, and the nodes of its source map."""
    if not path.is_dir():
        if not path.is_file():
            raise Refused("PL-800", "there is no such file", where="precheck", found=str(path),
                          expected="an ONNX file or a run directory", next_step="Give its path")  # fmt: skip
        return path, {}
    file = path / MODEL
    if not file.is_file():
        raise Refused("PL-801", "the folder is no run directory", where=str(path), found=f"no {MODEL}",
                      expected="an ONNX file or a run directory", next_step="Give its path")  # fmt: skip
    try:
        nodes = json.loads((path / SOURCE_MAP).read_text(encoding="utf-8"))["nodes"]
        return file, nodes if isinstance(nodes, dict) else {}
    except FileNotFoundError:
        return file, {}
    except (ValueError, KeyError, TypeError, OSError):
        print(f"{SOURCE_MAP} is damaged: modules and lines are not shown", file=sys.stderr)
        return file, {}


def _refuse_without_data(file: Path) -> None:
    """A file whose weights are not there is refused as a run refuses it; what else is wrong the judge says.

    Raises:
        Refused: PL-240, PL-242.
    """
    from pipeline.sources.onnx_reader import read_facts

    try:
        read_facts(file.resolve())
    except Refused as refusal:
        if refusal.reason.code in ("PL-240", "PL-242"):
            raise


def _words(path: Path) -> list[str]:
    """The overrides that make the file again; none where its run was not typed."""
    if not path.is_dir():
        return ["model=onnx_file", f"model.path={path}"]
    try:
        typed = [str(word) for word in json.loads((path / RECORD).read_text(encoding="utf-8"))["overrides"]]
    except (ValueError, KeyError, TypeError, OSError):
        return []
    return typed if all("=" in word for word in typed) else []


def _typed(finding: Finding, made: Sequence[str], aimed: Sequence[str]) -> Finding:
    """A mend that begins with an override has before it what makes the file, and the target of a target's key."""
    from pipeline.targets.precheck_stage import OVERRIDE, as_override

    mend = as_override(finding.mend) if finding.mend else ""
    if not OVERRIDE.match(mend):
        return finding
    key = mend.partition("=")[0]
    if key.startswith("target."):
        words = [word for word in made if not word.lstrip("+~").startswith("target")] + list(aimed)
    else:
        words = [word for word in made if word.partition("=")[0].lstrip("+") != key]
    return replace(finding, mend=" ".join([*map(shlex.quote, words), mend]))


def _data(file: Path, profile: Profile, judgement: Judgement, modules: Mapping[str, str]) -> dict[str, Any]:
    from pipeline.targets.precheck_stage import placement_rows

    return {
        "file": str(file),
        "title": profile.title,
        "citation": profile.citation,
        "passed": judgement.passed,
        **judgement.to_json(),
        "placements": placement_rows(judgement.placements, modules),
    }


def _text(name: str, file: Path, profile: Profile, judgement: Judgement) -> list[str]:
    from pipeline.targets.causes import causes

    nodes = count(len(judgement.placements), "node", "nodes")
    lines = [
        f"{name}: {profile.title}",
        f"{file}: opset {judgement.opset}, IR version {judgement.ir_version}, {nodes}",
        "predicted from published data; no tool of the vendor's was run",
    ]
    if judgement.problem:
        lines.append(f"shapes could not be inferred: {judgement.problem}")
    words = {kind: profile.place(kind) for kind in ("accelerator", "cpu")}
    found = causes(judgement.findings)
    for verdict, heading in HEADINGS.items():
        group = [cause for cause in found if cause.verdict == verdict]
        if group:
            lines += ["", f"{heading.format(**words)}:"]
            for cause in group[:MOST_CAUSES]:
                lines += _cause(cause)
            if len(group) > MOST_CAUSES:
                lines.append(f"  {len(group) - MOST_CAUSES} more causes: --json has them")
    return [*lines, "", *_placement(profile, judgement), *_end(judgement)]


def _cause(cause: Cause) -> list[str]:
    first, number = cause.first, len(cause.findings)
    if first.node is None:
        lines = [f"  the graph: {cause.limit}; found {first.found}"]
    else:
        nodes = f"node {first.node}" if number == 1 else f"{number} nodes, first {first.node}"
        word = "" if cause.verdict == "unknown" else "found "
        known = first.found in (first.operator, cause.limit)
        found = "" if known else f"; {word}{first.found}"
        lines = [f"  {cause.operator} ({nodes}): {cause.limit}{found}"]
        origin = [text for text in (first.module and f"module {first.module}", first.line) if text]
        if origin:
            lines.append(f"      from {', '.join(origin)}")
    if cause.mend:
        lines.append(f"      to mend it: {cause.mend}")
    return lines


def _placement(profile: Profile, judgement: Judgement) -> list[str]:
    """Operators by place, and shares."""
    by_place: dict[str, Counter[str]] = {}
    for one in judgement.placements:
        by_place.setdefault(one.place, Counter())[one.operator] += 1
    lines = ["placement, predicted:"]
    for place in ("accelerator", "cpu", "unknown", "unsupported", "folded"):
        if place in by_place:
            counts = by_place[place]
            shown = ", ".join(f"{operator} {number}" for operator, number in counts.most_common())
            lines.append(f"  {profile.place(place)}: {counts.total()} ({shown})")
    figures = judgement.figures()
    shares = [f"{figures['nodes_on_accelerator'] or 0:.1%} of the nodes that are left"]
    if figures["macs_on_accelerator"] is not None:
        shares.append(
            f"{figures['macs_on_accelerator']:.1%} of {_figure(figures['macs'])} multiply-accumulates"
        )
    if figures["macs_not_known"]:
        unknown = count(figures["macs_not_known"], "node", "nodes")
        shares.append(f"an unknown number of those of {unknown} without a known shape")
    lines.append(f"  on {profile.place('accelerator')}: {' and '.join(shares)}")
    if "cpu" in profile.places:
        lines.append(
            f"  tensors that pass between {profile.place('accelerator')} and {profile.place('cpu')}: {judgement.switches}"
        )
    return lines


def _figure(number: float) -> str:
    """`512`, `36.86 k`, `4.19 M`, `1.82 G`."""
    for unit, worth in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= worth:
            return f"{number / worth:.2f} {unit}"
    return f"{number:.0f}"


def _end(judgement: Judgement) -> list[str]:
    lines = [f"  remark: {remark}" for remark in judgement.remarks]
    refused, unknown = len(judgement.refused), len(judgement.unknown)
    if judgement.passed:
        return [*lines, "", "nothing is refused"]
    parts = [f"{refused} refused"] if refused else []
    parts += [f"{unknown} not known"] if unknown else []
    return [*lines, "", ", ".join(parts)]
