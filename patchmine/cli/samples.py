"""Photographs to try patchmine on: samples inside installed packages, and Imagenette."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from patchmine.errors import RequestError
from patchmine.labels.imagenet import imagenet_labels
from patchmine.sources import open_source
from patchmine.system.atomic import deliver

# The photographs of things among the pictures that scikit-image ships: no diagrams, silhouettes, pages of text, test
# patterns or microscope slides, and only one of the two stereo views of the motorcycle.
SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
SKLEARN = ("china.jpg", "flower.jpg")

IMAGENETTE_SIZE = "320px"
"""The smallest size from torchvision above the 256 px that networks need: 326 MB instead of 1.5 GB."""

PROBE_S = 5.0
"""Seconds to wait for the first response before the download counts as impossible."""


@dataclass(frozen=True)
class Sample:
    """A photograph inside a package, and its path in the folder: under its class, if that is known."""

    package: str
    file: Path
    place: str


def samples() -> list[Sample]:
    """Every photograph in the demo's packages. Raises RequestError if a package is missing."""
    found = list(_samples())
    if not found:
        raise RequestError("the installed packages hold no sample photographs: pip install 'patchmine[demo]'")
    return found


def collect_photographs(folder: Path) -> int:
    """Copy the samples byte for byte into the folder, and return their number.

    Raises RequestError if a package is missing or the folder cannot be written.
    """
    found = samples()
    try:
        for sample in found:
            target = folder / sample.place
            target.parent.mkdir(parents=True, exist_ok=True)
            deliver(target, sample.file.read_bytes())
    except OSError as error:
        raise _no_place(folder, error) from None
    return len(found)


def count_by_package() -> str:
    """One line with the number of photographs from each package."""
    counts = Counter(sample.package for sample in samples())
    parts = ", ".join(f"{count} from {package}" for package, count in counts.items())
    return f"{counts.total()} photographs: {parts}"


def _samples() -> Iterator[Sample]:
    pictures = _package("skimage", "scikit-image") / "data"
    yield from (Sample("scikit-image", pictures / name, name) for name in SKIMAGE if (pictures / name).is_file())
    pictures = _package("sklearn", "scikit-learn") / "datasets" / "images"
    yield from (Sample("scikit-learn", pictures / name, name) for name in SKLEARN if (pictures / name).is_file())
    labels = imagenet_labels()
    for file in sorted((_package("foolbox", "foolbox") / "data").glob("imagenet_*_*.jpg")):
        # foolbox gives the class only in the file name: imagenet_NUMBER_CLASS.jpg
        index = file.stem.rpartition("_")[2]
        if index.isdecimal() and int(index) < len(labels):
            yield Sample("foolbox", file, f"{labels[int(index)]}/{file.name}")


def _package(module: str, package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(f"the demo's photographs require {package}: pip install 'patchmine[demo]'")
    return Path(spec.submodule_search_locations[0])


def fetch_imagenette(folder: Path) -> int:
    """Download Imagenette to the folder, all 13,394 photographs in ten class folders, and return their number.

    Downloads nothing if the folder exists, since it is renamed into place only when complete. A complete archive is
    kept until it is unpacked. Raises RequestError if the archive cannot be downloaded.
    """
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        unpacked = _unpack_imagenette(unfinished)
        # Both splits together: mining patches needs no validation set.
        for photograph in sorted(unpacked.glob("val/*/*")):
            photograph.rename(unpacked / "train" / photograph.relative_to(unpacked / "val"))
        (unpacked / "train").rename(folder)
        shutil.rmtree(unfinished)
    return len(open_source(str(folder)).entries())


def _unpack_imagenette(folder: Path) -> Path:
    """Download the archive into the folder and unpack it there, with torchvision's own dataset class."""
    from torchvision.datasets import Imagenette
    from torchvision.datasets.utils import check_integrity

    url, md5 = Imagenette._ARCHIVES[IMAGENETTE_SIZE]
    archive, unpacked = folder / Path(url).name, folder / Path(url).stem
    # torchvision takes any folder of that name for the whole dataset, even a half-unpacked one.
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(folder, error) from None
    try:
        if not check_integrity(archive, md5):
            urlopen(Request(url, method="HEAD"), timeout=PROBE_S).close()
        with redirect_stdout(sys.stderr):
            Imagenette(folder, split="train", size=IMAGENETTE_SIZE, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise RequestError(
            f"could not download Imagenette from {url} ({_reason(error)}): try again with a network connection, "
            f"or unpack {archive.name} by hand and run patchmine index {unpacked.name}/train"
        ) from None
    return unpacked


def _no_place(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write to {str(folder)!r} ({_reason(error)}): choose another folder")


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"{error.code} {error.reason}"
    if isinstance(error, URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
