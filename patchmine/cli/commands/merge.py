"""`patchmine merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine.cli import options
from patchmine.defaults import Run
from patchmine.system.progress import Progress

if TYPE_CHECKING:
    from patchmine.mining.build import Report

RUN = Run()


def merge(
    indexes: Annotated[list[Path], typer.Argument(metavar="INDEX...", help="Two or more indexes of the same job.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Directory of the merged index.")],
    dedupe: Annotated[
        bool, typer.Option("--dedupe", help="If several indexes hold a photograph, keep the first copy by path.")
    ] = False,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    workers: options.Workers = RUN.workers,
    fresh: options.Fresh = RUN.fresh,
    json: options.Json = False,
) -> None:
    """Merge indexes of the same job over different photographs into one.

    The result equals the index that one run over all the photographs builds.

    Example: `patchmine merge one.patchmine two.patchmine -o both.patchmine`
    """
    from patchmine.cli.running import carry_out
    from patchmine.kept.in_bucket import here
    from patchmine.store.reading import read_manifest

    for one in indexes:
        read_manifest(here(one))

    def work(display: Progress) -> Report:
        from patchmine.mining.merge import merge_indexes

        return merge_indexes(indexes, out, dedupe, weights, Run(workers=workers, fresh=fresh), display, model)

    carry_out(work, out, json)
