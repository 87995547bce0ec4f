"""Doing a point's work in this process: walk the plan, write the manifest, say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import Reason
from pipeline.events import Emit
from pipeline.run import records
from pipeline.run.cache import Cache
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions, WorkResult
from pipeline.run.runner import execute
from pipeline.run.workspace import Shared


def work_in(
    plan: Plan,
    folder: Path,
    options: RunOptions,
    emit: Emit,
    shared: Shared,
    on_stage: Callable[[str], None],
    *,
    copies: bool = False,
) -> WorkResult:
    """Run the plan into `folder` and write manifest.json there; arguments as for `execute`."""
    cache = Cache(options.cache_dir, options.cache_mode, options.cache_bytes)
    outcome = execute(
        plan,
        folder,
        cache=cache,
        emit=emit,
        shared=shared,
        on_stage=on_stage,
        debug=options.debug,
        copies=copies,
    )
    failed = outcome.failed
    if failed is not None:
        reason = failed.verdict.reason or Reason(
            "PL-710", f"stage {failed.name} ended {failed.verdict.status}"
        )
        return WorkResult(outcome.files, reason, failed.name, failed.exit_code)
    own = {"config.yaml": ("config", True), **outcome.files}
    listed = records.artifacts(folder, own, same=True, known=outcome.digests)
    records.write(folder / records.MANIFEST, records.manifest(plan, outcome, listed))
    return WorkResult(outcome.files)
