"""Findings of one cause together: 300 nodes that miss one limit are one line for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.targets.judge import VERDICTS, Finding, Verdict


@dataclass(frozen=True)
class Cause:
    """Findings with the same verdict, operator and limit.

    Attributes:
        findings: in the order of the graph, at least one.
    """

    verdict: Verdict
    operator: str | None
    limit: str
    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The one that stands for the others."""
        return self.findings[0]

    @property
    def mend(self) -> str | None:
        """What would mend it."""
        return next((finding.mend for finding in self.findings if finding.mend), None)


def causes(findings: Iterable[Finding]) -> tuple[Cause, ...]:
    """Findings by cause: refused ones first, then what is not known, then what runs on the CPU."""
    groups: dict[tuple[Verdict, str | None, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.verdict, finding.operator, finding.limit), []).append(finding)
    made = [Cause(*key, tuple(found)) for key, found in groups.items()]
    return tuple(sorted(made, key=lambda cause: (VERDICTS.index(cause.verdict), cause.operator is not None)))


def where_of(finding: Finding) -> str | None:
    """Node, module and line as one text."""
    if finding.node is None:
        return None
    parts = [f"node {finding.node}"]
    if finding.module:
        parts.append(f"module {finding.module}")
    if finding.line:
        parts.append(finding.line)
    return ", ".join(parts)
