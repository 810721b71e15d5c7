"""PatchSAE and HugoFry's: `{"cfg", "state_dict"}` with `W_enc`, `b_enc`, `W_dec`, `b_dec`: relu((x - b_dec) W + b_enc).

Their cfg is a pickled class, so such a file is exported first. W_enc and the others without settings are read so too.
"""

from __future__ import annotations

from patchmine.readouts import _sae, dictionary_learning, prisma, saelens
from patchmine.readouts._check import Directions
from patchmine.readouts._contents import Contents

HELP = "patchsae: W_enc, b_enc, W_dec, b_dec without the settings of another format (PatchSAE, HugoFry)"


def claim(contents: Contents) -> bool:
    return _sae.named(contents) and not any(kind.claim(contents) for kind in (prisma, saelens, dictionary_learning))


def read(contents: Contents) -> Directions:
    return _sae.of_named(contents, centered=True)
