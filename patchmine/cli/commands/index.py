"""`patchmine index`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import options
from patchmine.defaults import CLASSES_OF, TIGHT_SHARE, Run, Wanted
from patchmine.errors import RequestError
from patchmine.system.progress import Progress

if TYPE_CHECKING:
    from patchmine.mining.build import Report

WANTED, RUN = Wanted(), Run()
DIR = "DIR"


def index(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help=f"The photographs: {options.SOURCES}.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar=DIR,
            help="Directory of the index, or its URL in a bucket: s3://BUCKET/NAME.patchmine. Default: "
            "SOURCE-NAME.patchmine in the working directory.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = WANTED.model,
    weights: options.Weights = WANTED.weights,
    layer_patterns: options.Layers = None,
    directions: options.Directions = None,
    threshold: options.Threshold = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Class labels: a CSV of PATH,CLASS, or ImageNet's val.txt or validation_ground_truth.txt.",
            show_default=False,
        ),
    ] = WANTED.labels,
    keep: Annotated[
        int, typer.Option("--keep", help="Best patches to keep for each unit, with their vectors.")
    ] = WANTED.keep,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="Index only the first N photographs.", show_default=False),
    ] = WANTED.limit,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="N", help="Photographs in a shard; each finished shard is saved.")
    ] = WANTED.shard_size,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", metavar="N", help="Photographs in a batch. Default: calibrated.", show_default=False
        ),
    ] = WANTED.batch_size,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", help="Threads that compute one batch. Default: calibrated.", show_default=False
        ),
    ] = WANTED.threads,
    workers: options.Workers = RUN.workers,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="D", help="cpu or cuda. Default: cuda if available, else cpu.", show_default=False
        ),
    ] = WANTED.device,
    precision: Annotated[str, typer.Option("--precision", metavar="P", help="fp32, bf16 or fp16.")] = WANTED.precision,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="E",
            help=f"Library that computes the activations: {options.EXECUTORS}. Default: torch for a short job, "
            "else the fastest.",
            show_default=False,
        ),
    ] = WANTED.executor,
    no_calibrate: Annotated[
        bool, typer.Option("--no-calibrate", help="Use default settings: do not measure the fastest before a long job.")
    ] = not RUN.calibrate,
    engine: Annotated[
        str, typer.Option("--engine", help=f"Where the shards are computed: {options.ENGINES}.")
    ] = RUN.engine,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="A",
            help="The Ray cluster, HOST:PORT. Default: RAY_ADDRESS from the environment, else this machine.",
            show_default=False,
        ),
    ] = RUN.address,
    no_table: Annotated[
        bool, typer.Option("--no-table", help="Keep only the best patches, not the activation of every photograph.")
    ] = not WANTED.table,
    field: options.Field = WANTED.field,
    view: Annotated[
        str,
        typer.Option(
            "--view",
            help="Part of a photograph that the network sees. crop: the center; pad: all of it, padded; "
            "whole: all of it, at its own size.",
        ),
    ] = WANTED.view,
    fresh: options.Fresh = RUN.fresh,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Update a finished index: compute new photographs, drop those that are gone."),
    ] = RUN.extend,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a photograph that cannot be read, instead of skipping it.")
    ] = RUN.strict,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where the time went, and how near it came to the limit of this machine."),
    ] = RUN.profile,
    tighten: Annotated[
        int,
        typer.Option(
            "--tighten", metavar="K", help="Then find the tight crops of each unit's K best patches: patchmine tighten."
        ),
    ] = 0,
    embed: Annotated[
        bool, typer.Option("--embed", help="Then put pictures of the top patches into the index: patchmine embed.")
    ] = False,
    relevance: Annotated[
        bool,
        typer.Option(
            "--relevance", help="Then compute how much each unit contributes to the network's decision on a photograph."
        ),
    ] = False,
    class_of: Annotated[
        str | None,
        typer.Option(
            "--class-of",
            help="The decision of --relevance. predicted (default): the class with the highest output; "
            "label: that of the photograph.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Names of the network's outputs for --class-of label, one a line. Default: its own.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="How --relevance goes back. plus: the z+ rule; gradient: activation times gradient; "
            "auto: gradient in a network without biases, which conserves by itself, else plus.",
        ),
    ] = "auto",
    json: options.Json = False,
) -> None:
    """Index the photographs in SOURCE: find where each unit responds most strongly in each of them, and how strongly.

    You can stop it at any time; run the same command again to resume. If photographs were added or removed after the
    index was finished, `--extend` brings it up to date. `--relevance` adds to a finished index what it lacks, without
    computing the activations again.

    Example: `patchmine index imagenet-val/ --model torchvision:resnet50 --layers 'layer*'`

    In a bucket: `patchmine index s3://bucket/photographs -o s3://bucket/photographs.patchmine`
    """
    from patchmine import engines
    from patchmine.cli.running import carry_out
    from patchmine.cli.stopping import starting
    from patchmine.mining.workspace import Workspace
    from patchmine.models import check
    from patchmine.plugins import Kinds
    from patchmine.readouts import asked
    from patchmine.sources import open_source

    of_class = (class_of or CLASSES_OF[0]) if relevance else None
    how: dict[str, Any] = {"fresh": fresh, "extend": extend, "strict": strict, "profile": profile, "classes": classes}
    run = Run(engine=engine, address=address, workers=workers, calibrate=not no_calibrate, class_of=of_class, **how)
    engines.check(run)
    if executor is not None:
        Kinds[object]("patchmine.executors").check(executor, "--executor")
    _check_then(tighten, relevance, class_of, classes, rule)
    asked(directions or ())
    directory = out or Path(f"{open_source(source).name}.patchmine")
    Workspace.at(directory).refuse(engines.shared(engine))
    with starting():
        check(model)
    wanted = Wanted(
        model=model,
        weights=weights,
        layers=tuple(layer_patterns or ()),
        directions=tuple(directions or ()),
        threshold=threshold,
        labels=labels,
        keep=keep,
        limit=limit,
        shard_size=shard_size,
        batch_size=batch_size,
        device=device,
        precision=precision,
        executor=executor,
        threads=threads,
        table=not no_table,
        field=field,
        view=view,
    )

    def work(display: Progress) -> Report:
        from patchmine.mining.build import build_index

        return build_index(source, directory, wanted, run, display)

    with engines.started(run):
        carry_out(work, directory, json, profile, lambda: _then(directory, run, rule, tighten, embed, model, weights))


def _check_then(tighten: int, relevance: bool, class_of: str | None, classes: Path | None, rule: str) -> None:
    if tighten < 0:
        raise RequestError(f"--tighten must be at least 0, not {tighten}")
    if class_of is not None and not relevance:
        raise RequestError(f"--class-of {class_of} chooses the class of relevance: add --relevance")
    if rule != "auto" and not relevance:
        raise RequestError(f"--rule {rule} is the way back of relevance: add --relevance")
    if classes is not None and class_of != "label":
        raise RequestError("--classes names the outputs for labels: add --relevance --class-of label")


def _then(directory: Path, run: Run, rule: str, k: int, embed: bool, model: str, weights: Path | None) -> None:
    """What is to be done with the finished index."""
    if run.extend and run.class_of is None:
        from patchmine.relevance.joining import decision

        before = decision(directory)
        if before is not None:  # that of the new photographs is added
            run, rule = replace(run, class_of=before.class_of), before.rule
    if run.class_of is not None:
        _relevance(directory, run, rule, model, weights)
    _tighten(directory, k, run.workers, model, weights)
    if embed:
        _embed(directory, run.workers)


def _relevance(directory: Path, run: Run, rule: str, model: str, weights: Path | None) -> None:
    from patchmine.cli.errors import say
    from patchmine.cli.running import opened

    assert run.class_of is not None
    try:
        at = opened(directory, None, model, weights)
        found = at.relevance(run.class_of, rule, run=run)
        at.deliver()
    except KeyboardInterrupt as interrupt:
        kept = (
            f"{directory} is finished, and keeps the finished shards of its relevance; run the same command to resume"
        )
        raise type(interrupt)(kept) from None
    for line in found.lines():
        say(line)


def _tighten(directory: Path, k: int, workers: int, model: str, weights: Path | None) -> None:
    if k:
        from patchmine.cli.commands.tighten import tightened
        from patchmine.cli.running import opened

        tightened(opened(directory, None, model, weights), None, None, k, "top", TIGHT_SHARE, workers)


def _embed(directory: Path, workers: int) -> None:
    from patchmine.cli.commands.embed import embedded
    from patchmine.cli.errors import say
    from patchmine.cli.running import opened
    from patchmine.defaults import K

    say(embedded(opened(directory), K, workers))
