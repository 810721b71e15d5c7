"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine import defaults
from patchmine.cli import completion

MODELS, SOURCES, EXECUTORS, ENGINES, EXPORTS = "{models}", "{sources}", "{executors}", "{engines}", "{exports}"
"""Placeholders in help texts; `with_kinds` replaces them with the installed kinds when help is printed."""


def with_kinds(text: str) -> str:
    """The help text with the installed kinds in place of each placeholder. Imports no kind."""
    from patchmine.plugins import Kinds

    for place in (MODELS, SOURCES, EXECUTORS, ENGINES, EXPORTS):
        if place in text:
            kinds: Kinds[object] = Kinds(f"patchmine.{place.strip('{}')}")
            every = "; ".join(map(kinds.help, kinds.names)) if place in (SOURCES, EXPORTS) else kinds.words()
            text = text.replace(place, every)
    return text


IndexDir = Annotated[
    Path | None,
    typer.Option(
        "-i",
        "--index",
        metavar="DIR",
        help="The index, also at s3://, gs:// or hf://. Default: PATCHMINE_INDEX from the environment, else the only "
        "*.patchmine in the working directory.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="M",
        help=f"The network: {MODELS}.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Weights: a state dict or safetensors file.", show_default=False),
]
ModelOfIndex = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="The network of the index. Required only if it is a Python file, because patchmine runs that file.",
        show_default=False,
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="SHEET", help="Draw a contact sheet: .png, .pdf or .svg.", show_default=False),
]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Threads that decode and compute.", show_default="all cores")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over and replace the existing index.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="PATTERN",
        help="Layers: a dotted name or a shell pattern; may be repeated. Default: the outputs of the network's stages.",
        show_default=False,
    ),
]
Directions = Annotated[
    list[str] | None,
    typer.Option(
        "--directions",
        metavar="LAYER@NAME=FILE",
        help="Directions in the channels of a layer, as units of their own: a probe, CAVs or a sparse autoencoder; may "
        "be repeated.",
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="T",
        help="What a latent must exceed, for a batch-top-k autoencoder whose file does not hold it.",
        show_default=False,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option("--layer", metavar="L", help="Only this layer.", show_default=False, autocompletion=completion.layers),
]
LayersOfIndex = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="L",
        help="Only this layer; may be repeated.",
        show_default=False,
        autocompletion=completion.layers,
    ),
]
_UNIT = "The unit: a name such as fish_412, LAYER:CHANNEL or LAYER_CHANNEL"
Unit = Annotated[str, typer.Option("--unit", metavar="U", help=f"{_UNIT}.", autocompletion=completion.units)]
OneUnit = Annotated[
    str | None,
    typer.Option("--unit", metavar="U", help=f"{_UNIT}.", show_default=False, autocompletion=completion.units),
]
Units = Annotated[
    list[str] | None,
    typer.Option(
        "--unit",
        metavar="U",
        help=f"{_UNIT}; may be repeated.",
        show_default=False,
        autocompletion=completion.units,
    ),
]
Moved = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="FOLDER", help="Where the photographs are now, if they have moved.", show_default=False
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        "--crop",
        help="Extent of a patch. tight: the smallest box that alone brings back most of the activation, found with the "
        "network and kept; rf: the receptive field, or a token with its surroundings; erf: the effective field; image: "
        "the network's whole input; auto: tight where it is kept, else rf while it covers less than half of the input, "
        "else erf. Default: auto on sheets, rf elsewhere.",
        show_default=False,
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        "--share",
        help=f"Share of the activation that --crop tight retains (default {defaults.TIGHT_SHARE:g}), or of the "
        f"gradient's energy inside --crop erf (default {defaults.SHARE:g}).",
        show_default=False,
    ),
]
Energy = Annotated[float, typer.Option("--share", help="Share of the gradient's energy inside an effective field.")]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="METHOD",
        help="Draw beside each patch the parts that drive the unit, by one of "
        f"{', '.join(defaults.PROJECTIONS)}. Loads the network; needs the extra 'attribution'.",
        show_default=False,
    ),
]
Field = Annotated[
    str,
    typer.Option(
        "--field", help="Receptive field. local: hold gates that see the whole input constant; full: include them."
    ),
]
