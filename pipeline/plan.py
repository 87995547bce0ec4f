"""The one place that turns a request into stages. No torch, no onnx.

Everything that can be refused without doing work is refused here: the source is identified, the
inputs are parsed, cross-field rules are checked and every key is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline import locations
from pipeline.config.canonical import asked_opset, canonical_request
from pipeline.config.code import pipeline_code_digest, public_version
from pipeline.config.keys import graph_digest, request_digest, result_digest
from pipeline.config.request import Config
from pipeline.errors import Refused
from pipeline.exporters.names import check_names
from pipeline.exporters.opsets import check_opset
from pipeline.exporters.parameters import check_parameters, exporters
from pipeline.exporters.stages import ExportStage
from pipeline.graph.contract import Promises
from pipeline.graph.legalise_stage import LegaliseStage
from pipeline.graph.rewrites.names import check_rules
from pipeline.graph.stages import AssembleStage, CheckStage, ContractStage, SimplifyStage
from pipeline.parity.stages import EvidenceStage, ParityStage, ReferenceStage
from pipeline.run.cache import default_directory, parse_size
from pipeline.run.plan import Plan
from pipeline.run.point import RunOptions
from pipeline.samples.spec import InputSpecs, parse_inputs
from pipeline.samples.stages import InputsStage
from pipeline.sources.default_inputs import with_default_inputs
from pipeline.sources.device import refuse_missing_device
from pipeline.sources.identity import SourceIdentity, identify
from pipeline.sources.onnx_file import facts_of, specs_of_file, with_file_settings
from pipeline.sources.onnx_file_stages import AdoptStage, FileReferenceStage, OnnxFileStage
from pipeline.sources.stages import SourceStage
from pipeline.stage import Stage, Storable
from pipeline.targets.config import TargetConfig

if TYPE_CHECKING:
    from pipeline.targets.planning import TargetPlan

#: Where the graph key stands in the finished file's metadata.
GRAPH_KEY: Final = "pipeline.graph_key"
#: Digits of the result key in the label of a run directory.
LABEL_DIGITS: Final = 8
#: Artifacts that can lie in the cache, and where their classes are.
STORABLE: Final[dict[str, str]] = {
    "reference": "pipeline.parity.reference:Reference",
    "signature": "pipeline.parity.signature:Signature",
    "exported": "pipeline.graph.bare:BareModel",
    "attempts": "pipeline.exporters.attempts:Attempts",
    "simplified": "pipeline.graph.bare:BareModel",
    "parity_report": "pipeline.parity.stages:ParityReport",
    "legalised": "pipeline.graph.bare:BareModel",
    "compiled": "pipeline.targets.compiled:CompiledFiles",
    "target_outputs": "pipeline.targets.compiled:TargetOutputs",
    "target_report": "pipeline.targets.compare:TargetReport",
}


@dataclass(frozen=True)
class _Named:
    """A request whose names are those of the graph from here on."""

    config: Config
    identity: SourceIdentity
    specs: InputSpecs
    parameter_names: tuple[str, ...]
    opset: int
    target: TargetPlan | None


def build_plan(config: Config, overrides: Sequence[str] = ()) -> Plan:
    """The plan of one request, with every key.

    Args:
        config: composed and typed.
        overrides: what was typed, for run.json.

    Raises:
        Refused: the request contradicts itself, or asks for what is not there.
    """
    config = with_file_settings(config)
    config = replace(config, model=with_default_inputs(config.model))
    named = _named(config)
    identity = named.identity
    graph_key = graph_digest(
        config,
        code=identity.code,
        weights=identity.weights,
        target=_shaped_by_target(named),
    )
    stages, skipped = _stages(named, graph_key)
    packages = tuple(sorted({name for stage in stages for name in stage.key_parts().packages}))
    keys = {
        "request": request_digest(config),
        "graph": graph_key,
        "result": result_digest(
            config,
            pipeline_code=pipeline_code_digest(_code_of(stages)),
            code=identity.code,
            weights=identity.weights,
            packages=packages,
            target=named.target.profile.digest if named.target else None,
        ),
    }
    request = canonical_request(config)
    target = f"-{config.target.name}" if config.target.name != "none" else ""
    plan = Plan(
        label=f"{identity.label}-op{named.opset}{target}-{keys['result'][:LABEL_DIGITS]}",
        stages=stages,
        keys=keys,
        describes={
            "request": request,
            "model": {
                "name": identity.label,
                "source": identity.source,
                "code": identity.code,
                "weights": identity.weights,
            },
            "seeds": {"weights": config.seed, "samples": config.seed},
        },
        config_yaml=_request_yaml(request),
        artifact_types=_StorableTypes(),
        code_digest=pipeline_code_digest,
        version_of=public_version,
        skipped=skipped,
        aliases=_aliases(named),
        packages=packages,
        allow_vacuous=config.parity.allow_vacuous,
        row={"model": identity.label, "opset_asked": named.opset, "target": config.target.name},
        overrides=tuple(overrides),
    )
    return replace(plan, group=plan.stage_keys["source"].key)


def _named(config: Config) -> _Named:
    export = config.export
    check_rules(config.export.rules, key="export.rules", kind="lower")
    refuse_missing_device(config.device)
    opset = asked_opset(config)
    check_opset(opset, export.exporter)
    check_parameters(export)
    _check_training(config)
    identity = identify(config.model, seed=config.seed)
    specs = parse_inputs(config.model.inputs)
    if config.model.source == "onnx_file":
        specs = specs_of_file(specs, facts_of(config.model))
    leaves = tuple(leaf.name for leaf in specs.leaves)
    check_names(len(leaves), export, leaf_names=leaves, output_names=config.model.outputs or ())
    parameter_names: tuple[str, ...] = ()
    if export.input_names is not None:
        specs = specs.renamed(export.input_names)
        parameter_names = tuple(export.input_names[len(leaves) :])
    model = replace(config.model, outputs=export.output_names or config.model.outputs)
    target = _target(config, specs, opset)
    return _Named(replace(config, model=model), identity, specs, parameter_names, opset, target)


def _target(config: Config, specs: InputSpecs, opset: int) -> TargetPlan | None:
    if config.target == TargetConfig():
        return None  # and nothing of that room is imported
    from pipeline.targets.planning import plan_target

    return plan_target(config.target, config.parity, specs, opset=opset, ir_version=config.export.ir_version)


def _shaped_by_target(named: _Named) -> dict[str, Any]:
    """What of the target shapes the file: its rules, what they are weighed by, and another order of exporters than ours."""
    if named.target is None:
        return {}
    export, first = named.config.export, named.config.target.preferred.exporter
    tried = exporters(export, named.opset, first)
    shaped: dict[str, Any] = {} if tried == exporters(export, named.opset) else {"exporters": list(tried)}
    if not named.target.rules:
        return shaped
    cost, asked = named.target.cost, named.target.asked
    weighed = {} if cost is None else {"weighed": {**cost.key(), "asked": list(asked)}}
    return {**shaped, "rules": list(named.target.rules), **weighed}


def _aliases(named: _Named) -> dict[str, str]:
    """Which graph stands for one that a stage takes but nobody makes."""
    simplified = "exported" if named.config.simplify.kind == "none" else "simplified"
    legalised = named.target is not None and bool(named.target.rules)
    aliases = {"finished": "legalised" if legalised else simplified}
    return aliases if simplified == "simplified" else {**aliases, "simplified": simplified}


def _check_training(config: Config) -> None:
    """The reference is the network at inference; a file in training mode computes something else."""
    training = config.export.training
    if training != "eval" and config.parity.kind != "none":
        raise Refused(
            "PL-111",
            "a file that may be in training mode cannot be compared with the network at inference",
            where="export.training",
            found=f"export.training={training} with parity={config.parity.kind}",
            next_step="Type parity=none to export it unproved, or export.training=eval",
        )


def _stages(named: _Named, graph_key: str) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """The stages in order, and those that the request switches off with the reason."""
    config, specs, export = named.config, named.specs, named.config.export
    metadata = {**_file_metadata(config), GRAPH_KEY: graph_key}
    stages = _file_stages(named) if config.model.source == "onnx_file" else _network_stages(named)
    skipped: dict[str, str] = {}
    if config.simplify.kind == "none":
        skipped["simplify"] = "simplify=none: the graph is as the exporter left it"
    else:
        stages.append(SimplifyStage(config.simplify, config.private_apis, keep=named.parameter_names))
    if named.target is not None and named.target.rules:
        target, simplifies = named.target, config.simplify.kind != "none"
        stages.append(
            LegaliseStage(
                target.rules,
                config.private_apis,
                simplifies,
                named.parameter_names,
                target.cost,
                target.asked,
            )
        )
    if config.check.kind == "none":
        skipped["check"] = "check=none: onnx.checker did not look at the file"
    else:
        stages.append(CheckStage())
    stages += [
        AssembleStage(export.external_data, export.ir_version, metadata),
        ContractStage(
            Promises(
                opset=named.opset,
                inputs=specs.leaves,
                custom_opsets=export.custom_opsets,
                ir_version=export.ir_version,
                training=export.training,
                shown_parameters=export.keep_initializers_as_inputs,
                parameter_names=named.parameter_names,
                export_params=export.export_params,
                metadata=metadata,
            )
        ),
    ]
    if config.parity.kind == "none":
        skipped["parity"] = "parity=none: nothing was proved"
    else:
        stages.append(ParityStage(config.parity))
    stages.append(EvidenceStage())
    if named.target is not None:
        stages += named.target.stages
        skipped |= named.target.skipped
    return tuple(stages), skipped


def _network_stages(named: _Named) -> list[Stage]:
    """From a network to its exported graph."""
    config, specs = named.config, named.specs
    return [
        SourceStage(config.model, named.identity, specs, config.seed, config.device, config.private_apis),
        InputsStage(specs, config.seed, max(1, config.parity.seeds), specs.files()),
        ReferenceStage(config.parity),
        ExportStage(
            config.export,
            named.opset,
            specs,
            named.parameter_names,
            config.private_apis,
            config.target.preferred.exporter,
        ),
    ]


def _file_stages(named: _Named) -> list[Stage]:
    """From a ready .onnx to its graph; the file as it came is the reference."""
    config, specs = named.config, named.specs
    facts = facts_of(config.model)
    path = facts.path
    return [
        OnnxFileStage(path, named.identity, specs),
        InputsStage(specs, config.seed, max(1, config.parity.seeds), specs.files()),
        FileReferenceStage(path, named.identity, specs, config.parity),
        AdoptStage(specs, facts.opset, named.opset, config.export.rules),
    ]


def _file_metadata(config: Config) -> dict[str, str]:
    """The model's metadata of a ready .onnx (class names and the like) stays in the finished file."""
    return dict(facts_of(config.model).metadata) if config.model.source == "onnx_file" else {}


def _code_of(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(sorted({module for stage in stages for module in stage.key_parts().code}))


class _StorableTypes(Mapping[str, type[Storable]]):
    """Artifact name to its class, imported when it is asked for: some bring numpy."""

    def __getitem__(self, name: str) -> type[Storable]:
        module, _, kind = STORABLE[name].partition(":")
        found: type[Storable] = getattr(import_module(module), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(STORABLE)

    def __len__(self) -> int:
        return len(STORABLE)


def _request_yaml(request: dict[str, Any]) -> str:
    """The request for people, the same text for the same request."""
    import yaml

    model = {**request["model"], "inputs": dict(request["model"]["inputs"])}
    text: str = yaml.safe_dump({**request, "model": model}, sort_keys=False, width=110, allow_unicode=True)
    return text


def run_options(config: Config) -> RunOptions:
    """How the run goes about it.

    Raises:
        Refused: a size that cannot be read, or a memory limit that nothing can keep.
    """
    cache = config.cache
    memory = parse_size(config.memory_limit, "memory_limit") if config.memory_limit is not None else None
    if memory == 0:
        raise Refused(
            "PL-103", "memory_limit is out of range", found=repr(config.memory_limit), expected="more than 0",
            next_step="Type memory_limit=null for no limit",
        )  # fmt: skip
    return RunOptions(
        out=Path(config.out).expanduser(),
        cache_dir=Path(cache.dir).expanduser() if cache.dir else default_directory(),
        cache_mode=_written_only(cache.mode) if config.force else cache.mode,
        cache_bytes=parse_size(cache.size, "cache.size"),
        wait_s=config.wait_s,
        timeout_s=config.timeout_s,
        memory_bytes=memory,
        force=config.force,
        debug=config.debug,
        private_apis=config.private_apis,
        checkouts=_checkouts(config),
    )


def _written_only(mode: str) -> str:
    """What is made again by force is really made: nothing of it comes from the cache."""
    return "write" if mode in ("readwrite", "write") else "none"


def _checkouts(config: Config) -> dict[str, Path]:
    """Folders whose git state run.json notes: the pipeline's own, and that of the user's code."""
    found = {"pipeline": Path(locations.__file__).resolve().parent}
    for key, text in (("model.factory", config.model.factory), ("model.prepare", config.model.prepare)):
        place = text.rpartition(":")[0] if text else ""
        if place and not locations.is_packaged(place) and (place.endswith(".py") or "/" in place):
            found[key] = Path(place).expanduser().resolve().parent
    return found
