"""Write docs/receptive-fields-checked.md from the results of tests/slow/test_fields.py.

python -m pytest tests/slow/test_fields.py -m slow --networks all --results FILE
python -m docs.figures.fields_checked FILE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.support.documents import DOCS
from tests.support.measured_fields import KINDS

PREFACE = """Written by `python -m docs.figures.fields_checked`. For the last layer of every grid size of each network
and three inner layers drawn at random: how many intervals of input rows and columns differ, of how many,
from NaN probing (every position of every channel) and from gradients of the same network with positive
weights (boxes at two corners and inside, for up to three groups of channels). *Full*: the whole field.
*Local*: gates held constant; where a network has no gate, or one that the oracles cannot hold, there is
none. Seconds are those of patchmine's own computation. A fixed or least input size of a network takes
precedence over 97x131."""


def page(results: list[dict[str, Any]]) -> str:
    """The results as a page of documentation."""
    titles = ["network", "input", "layers", "status", *(kind.replace("_", ", ") for kind in KINDS), "seconds"]
    lines = [
        "# The networks whose receptive fields have been checked",
        "",
        PREFACE,
        "",
        " | ".join(["", *titles, ""]).strip(),
        "|" + " --- |" * len(titles),
    ]
    for r in sorted(results, key=lambda r: (r["network"], r["size"])):
        status = "whole_input" if "whole_input" in r["status"].values() else "exact"
        counts = [f"{r[kind]['wrong']:,} of {r[kind]['of']:,}" if kind in r else "" for kind in KINDS]
        size = "x".join(map(str, r["size"]))
        cells = [f"`{r['network']}`", size, str(len(r["layers"])), status, *counts, f"{r['seconds']['fields']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    families = {
        kind: len({r["network"] for r in results if r["network"].startswith(kind)}) for kind in ("torchvision", "timm")
    }
    sums = ", ".join(
        f"{kind.replace('_', ' ')} {sum(r[kind]['wrong'] for r in results if kind in r):,} of "
        f"{sum(r[kind]['of'] for r in results if kind in r):,}"
        for kind in KINDS
    )
    lines += ["", f"{families['torchvision']} networks of torchvision, {families['timm']} of timm; in all {sums}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    lines = parser.parse_args().results.read_text().splitlines()
    # A network that was measured twice counts as it was measured last.
    results = {(r["network"], tuple(r["asked"])): r for r in map(json.loads, lines)}
    (DOCS / "evidence" / "fields-checked.md").write_text(page(list(results.values())), "utf-8")


if __name__ == "__main__":
    main()
