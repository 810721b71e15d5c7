"""`patchmine verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options
from patchmine.defaults import Run

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.questions.verify import Finding

UNITS, K = 16, 5
RUN = Run()


def verify(
    everything: Annotated[
        bool, typer.Option("--all", help="Check every photograph and all its activations, not a sample.")
    ] = False,
    crops: Annotated[
        bool, typer.Option("--crops", help="Measure instead how well a crop alone drives its unit.")
    ] = False,
    units: Annotated[
        int, typer.Option("--units", metavar="N", help="With --crops: random units of each layer.")
    ] = UNITS,
    k: Annotated[int, typer.Option("-k", metavar="K", help="With --crops: patches of each unit.")] = K,
    share: options.Energy = defaults.SHARE,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random samples.")] = 0,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    workers: options.Workers = RUN.workers,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Check an index: its files, its rankings, its photographs, and a sample of its activations, which are recomputed.

    The command prints each check and the limits of the proof, and exits with 1 if a check fails.

    `--crops` measures crops instead: the network sees each crop alone, on a gray background, at its place and scale.
    The table gives the share of its activation that a patch keeps.

    Example: `patchmine verify -i imagenet-val.patchmine --all`
    """
    from patchmine.cli.running import opened

    at = opened(index, source, model, weights)
    if crops:
        _crops(at, units, k, share, seed, json)
    else:
        _whole(at, everything, seed, Run(workers=workers), json)


def _whole(index: Index, everything: bool, seed: int, run: Run, json: bool) -> None:
    from patchmine.cli.output import print_json
    from patchmine.cli.progress import shown
    from patchmine.errors import StoreError
    from patchmine.questions.verify import verify as checks

    findings: list[Finding] = []
    with shown() as display:
        for finding in checks(index, everything=everything, seed=seed, run=run, progress=display):
            findings.append(finding)
            if not json:
                _print(finding)
    wrong = [finding.check for finding in findings if finding.wrong]
    if json:
        print_json({"index": index.name, "ok": not wrong, "checks": [finding.as_dict() for finding in findings]})
    else:
        _conclude(findings)
    if wrong:
        way_out = _way_out(index, findings)
        raise StoreError(f"{index.name}: {len(wrong)} of {len(findings)} checks failed ({', '.join(wrong)}); {way_out}")


def _way_out(index: Index, findings: Sequence[Finding]) -> str:
    """What to do about failed checks. Only damage of what cannot be made again is a reason to build the index again."""
    from patchmine.store.reading import PATCHES

    wrong = {finding.check for finding in findings if finding.wrong}
    if wrong == {"photographs"}:
        return "restore the photographs or, if they are gone for good, build the index again with --fresh"
    if wrong == {"tight crops"}:
        return "measure them again: remove its folder tight, then patchmine tighten"
    of_files = [text for finding in findings if finding.check == "files" for text in finding.wrong]
    if wrong <= {"faiss", "files"} and all(PATCHES in text for text in of_files):
        return f"remove {index.directory / PATCHES}: patchmine similar makes it again"
    return "build the index again with --fresh"


def _print(finding: Finding) -> None:
    from patchmine.cli.output import print_line

    print_line(f"{'FAILED' if finding.wrong else 'ok':7} {finding.check:12} {finding.compared}")
    for text in finding.wrong[:10]:
        print_line(f"{'':20} - {text}")
    if len(finding.wrong) > 10:
        print_line(f"{'':20} - and {len(finding.wrong) - 10} more: --json lists all")


def _conclude(findings: Sequence[Finding]) -> None:
    from patchmine.cli.output import print_line

    if not any(finding.wrong for finding in findings):
        print_line(
            "proved: nothing in this index has changed since it was built, and the recomputed values are the same"
        )
    for finding in findings:
        if finding.unproved:
            print_line(f"not proved: {finding.unproved}")
    print_line("not proved: that nobody edited both the index and its checksums where no value was recomputed")


def _crops(index: Index, units: int, k: int, share: float, seed: int, json: bool) -> None:
    from patchmine.cli.output import print_json, print_line, print_table
    from patchmine.cli.progress import shown

    index.network()
    from patchmine.questions.retained import CROPS, retained, summary

    drawn = sum(min(units, channels) for channels in index.layers.values())
    with shown() as display:
        display.begin(drawn * min(k, len(index)) * len(CROPS), 0, "crops")
        found = retained(index, units=units, k=k, share=share, seed=seed, advance=display.advance)
    if json:
        shares = [
            {"layer": e.unit.layer, "channel": e.unit.channel, "crop": e.crop, "retained": e.shares.tolist()}
            for e in found
        ]
        print_json({"index": index.name, "share": share, "layers": summary(found), "units": shares})
        return
    print_line(
        f"activation retained by a crop alone, {units} units of each layer, top {k}; erf: {share:.0%} of the energy"
    )
    print_table(
        [
            (row["layer"], row["crop"], row["patches"], *(_percent(row[key]) for key in ("median", "p10")))
            for row in summary(found)
        ],
        ["layer", "crop", "patches", "median", "10th percentile"],
    )


def _percent(number: float | None) -> str | None:
    return None if number is None else f"{number:.0%}"
