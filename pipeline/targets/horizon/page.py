"""README.md of a Horizon target: what was predicted, and what to type in the vendor's container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.targets.horizon.boards import Board
from pipeline.targets.horizon.options import MODEL, Settings
from pipeline.targets.horizon.schema import HB_MAPPER

if TYPE_CHECKING:
    from pipeline.targets.judge import Finding, Judgement

#: Findings and reasons that the page shows, at most; all of them are in findings.json and placement.csv.
SHOWN: Final = 12
#: Cosine similarity of an output, quantized against float: from here on it is usual, below that a clear loss.
USUAL_SIMILARITY: Final = 0.99
CLEAR_LOSS: Final = 0.8

_PAGE: Final = """\
# {label} for {title}

Nothing here was compiled or run: {tool} comes with the vendor's container. What it will say is predicted from
the vendor's published operator list (`placement.csv`, `findings.json`); `{yaml}` is held to its documented keys.
{unknown}
| predicted | |
|---|---|
| nodes on the {fast} | {nodes_fast} |
| multiply-accumulates on the {fast} | {macs_fast} |
| passages between {fast} and {slow} | {switches} |
{placed}
{findings}
## What to type

The run directory is mounted whole: the configuration refers to `{model}`. Type this in the folder of this page.

```
docker run --rm -it -v "$(cd .. && pwd)":/workspace -w /workspace/{folder} {image} bash
```
{note}
Inside, first the vendor's own judgement of the graph, then the conversion:

```
{commands}
```

The product is `model_output/{prefix}{product}`.

## Calibration data

{calibration}

## Then

{then}
"""

_MAPPER_THEN: Final = """\
- `hb_perf model_output/{prefix}.bin` estimates the time of the BPU's parts; nodes on the CPU are not in it.
- The log ends with `Convert to runtime bin file successfully!`. Its table of cosine similarities should show
  {usual} and more at the outputs; below {loss} something was lost. `model_output/{prefix}_original_float_model.onnx`
  must give what this run's `samples/expected.npz` says, to 3 to 5 decimals; where mean and std were given, for
  data from 0 to 255.
- On the board: `hrt_model_exec perf --model_file {prefix}.bin`.
- Order of what helps accuracy: calibration_type kl or max, max_percentile, per_channel, int16 for sensitive nodes
  (node_info; not on bernoulli2), a tail node on the CPU, quantization-aware training."""

_COMPILE_THEN: Final = """\
- `model_output/{prefix}.json` holds the estimated performance, `hb_compile.log` the table of cosine similarities:
  {usual} and more at the outputs is usual, below {loss} something was lost.
- `hb_verifier` compares the products with each other; on the board `hrt_model_exec perf --model_file {prefix}.hbm`."""


def page(label: str, folder: str, yaml: str, found: Settings, judgement: Judgement, calibration: str) -> str:
    """The page's text.

    Args:
        label: of the model.
        folder: the target's, in the run directory.
        yaml: name of the configuration file.
        found: what stands in it.
        judgement: of the profile.
        calibration: a paragraph on where the data comes from.
    """
    board = found.board
    prefix = str(found.tree["model_parameters"]["output_model_file_prefix"])
    figures = judgement.figures()
    places = judgement.places
    fast, slow = places.get("accelerator", "BPU"), places.get("cpu", "CPU")
    then = _MAPPER_THEN if board.tool == HB_MAPPER else _COMPILE_THEN
    unknown = ""
    if figures["unknown"]:
        unknown = f"\nOf {figures['unknown']} things nobody can tell here; the vendor's checker can.\n"
    return _PAGE.format(
        label=label, title=board.title, tool=board.tool, yaml=yaml, unknown=unknown, fast=fast, slow=slow,
        nodes_fast=_percent(figures["nodes_on_accelerator"]), macs_fast=_percent(figures["macs_on_accelerator"]),
        switches=figures["switches"], placed=_placed(figures["placed"], judgement), model=MODEL, folder=folder,
        findings=_findings(judgement.findings), image=board.image,
        note=f"\n({board.image_note}.)\n" if board.image_note else "",
        commands="\n".join(commands(board, yaml, found)), prefix=prefix, product=board.product,
        calibration=calibration, then=then.format(prefix=prefix, usual=USUAL_SIMILARITY, loss=CLEAR_LOSS),
    )  # fmt: skip


def commands(board: Board, yaml: str, found: Settings) -> list[str]:
    """What to type in the container, in order."""
    sizes = [(one.facts.name, "x".join(map(str, one.facts.shape))) for one in found.inputs]
    march = found.tree["model_parameters"]["march"]
    if board.tool == HB_MAPPER:
        shapes = "".join(f" --input-shape {_quoted(name)} {size}" for name, size in sizes)
        return [
            f"hb_mapper checker --model-type onnx --march {march} --model {MODEL}{shapes}",
            f"hb_mapper makertbin --config {yaml} --model-type onnx",
        ]
    shapes = "".join(f" -i {_quoted(name)} {size}" for name, size in sizes)
    return [f"hb_compile -m {MODEL} --march {march}{shapes}", f"hb_compile -c {yaml}"]


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)


def _percent(share: float | None) -> str:
    return "none to speak of" if share is None else f"{share:.1%}"


def _placed(counts: Mapping[str, int], judgement: Judgement) -> str:
    words = {"folded": "computed when it is compiled", "unsupported": "unsupported", "unknown": "not known"}
    return "\n".join(
        f"| nodes: {judgement.places.get(place, words.get(place, place))} | {count} |"
        for place, count in counts.items()
    )


def _findings(findings: Iterable[Finding]) -> str:
    every = list(findings)
    if not every:
        return ""
    lines = ["", "| node | finding | to mend it |", "|---|---|---|"]
    for one in every[:SHOWN]:
        where = f"`{one.node}` {one.operator}" if one.node else "the graph"
        if one.module:
            where += f" of {one.module}"
        cells = (where, f"{one.verdict}: {one.limit}; found {one.found}", one.mend or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(every) > SHOWN:
        lines.append(f"\n{len(every) - SHOWN} more are in `findings.json`.")
    return "\n".join(lines) + "\n"
