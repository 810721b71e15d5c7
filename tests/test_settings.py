"""Settings of the user's session and environment reach neither pages nor numbers, and stay as they are."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import patchmine
from patchmine.networks.session import own_settings, with_own_settings
from patchmine.sheets import write
from patchmine.sheets.layouts.grid import grid_page
from patchmine.study import report

STYLE = {
    "text.usetex": True,
    "font.family": "serif",
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "savefig.dpi": 30,
    "figure.facecolor": "red",
    "figure.autolayout": True,
    "axes.grid": True,
    "path.sketch": (1, 100, 2),
    "pdf.use14corefonts": True,
    "svg.fonttype": "none",
    "image.origin": "lower",
}


@pytest.fixture
def styled():
    """A session whose matplotlib is set up for something else."""
    with mpl.rc_context(STYLE):
        yield


def pages(index, folder):
    """The digests of a sheet of every kind."""
    unit = index.unit("thing:0")
    found = {}
    for suffix in ("png", "pdf", "svg"):
        target = folder / f"page.{suffix}"
        write(grid_page(unit, unit.top(2)), target)
        found[suffix] = hashlib.md5(target.read_bytes()).hexdigest()
    return found


def test_a_style_changes_no_page_and_no_page_changes_the_style(shapes_index, tmp_path, styled, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    before = dict(mpl.rcParams)
    styled_pages = pages(shapes_index, tmp_path)
    assert dict(mpl.rcParams) == before
    assert os.environ["SOURCE_DATE_EPOCH"] == "soon"
    mpl.rcdefaults()
    assert styled_pages == pages(shapes_index, tmp_path)


def test_how_numpy_prints_changes_no_page(shapes_index, tmp_path):
    plain = pages(shapes_index, tmp_path)
    with np.printoptions(legacy="1.13", precision=1, threshold=1):
        assert pages(shapes_index, tmp_path) == plain


def test_limits_of_pillow_change_no_page(shapes_index, tmp_path, monkeypatch):
    plain = pages(shapes_index, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert pages(shapes_index, tmp_path) == plain
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (100, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_nowhere", "MATPLOTLIBRC": "rc", "SOURCE_DATE_EPOCH": "soon"},
        {"MATPLOTLIBRC": "unreadable", "MPLCONFIGDIR": "/proc/nowhere", "PYTHONWARNINGS": "error"},
    ],
)
def test_the_environment_is_not_in_the_way_of_a_page(shapes_index_dir, tmp_path, settings):
    (tmp_path / "rc").mkdir()
    (tmp_path / "rc" / "matplotlibrc").write_text("text.usetex: True\nno.such.key: 1\nfont.size: large\n")
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "matplotlibrc").write_bytes(b"\xff\xfe\0")
    command = [sys.executable, "-m", "patchmine", "top", "-i", shapes_index_dir, "--unit", "thing:0", "-o", "page.pdf"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.pdf").read_bytes().rstrip().endswith(b"%%EOF")


def test_the_page_of_a_study_is_saved_as_it_is_drawn(styled, tmp_path, monkeypatch):
    seen = []

    class Figure:
        def savefig(self, *_, **__):
            seen.append((mpl.rcParams["text.usetex"], mpl.rcParams["savefig.bbox"]))

    monkeypatch.setattr(report, "page", lambda _: Figure())
    monkeypatch.setattr(report, "markdown", lambda *_: "")
    monkeypatch.setattr(report, "as_dict", lambda *_: {})
    report.write_report(None, None, tmp_path)
    assert seen == [(False, None)] * 2


def session():
    """What a session has set."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().tolist(),
        np.geterr(),
    )


@pytest.fixture
def foreign():
    """A session of double precision without gradients, whose tensors have no content."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu"), np.errstate(all="raise"):
        yield
    torch.set_default_dtype(before)


def answers(index_dir, folder, name):
    """What the parts that compute answer."""
    patchmine.build_index("shapes:12", folder / name, model="shapes", layers=("thing",))
    sums = json.loads((folder / name / "manifest.json").read_text())["checksums"]["datasets"]
    index = patchmine.open_index(shutil.copytree(index_dir, folder / f"asked-{name}"))  # it keeps its images
    (image,) = index.unit("thing:0").synthesize(steps=3)
    fired = index.fires("000020.png", layer="thing", k=3).as_dict()["units"]
    similar = index.similar(image="000020.png", layer="thing", k=2).as_dict()["patches"]
    return sums, image.picture.tolist(), fired, similar


def test_settings_of_torch_and_numpy_change_no_answer_and_stay(shapes_index_dir, tmp_path, foreign):
    before = session()
    under = answers(shapes_index_dir, tmp_path, "under.patchmine")
    assert session() == before
    with own_settings():
        assert answers(shapes_index_dir, tmp_path, "plain.patchmine") == under


def test_a_generator_keeps_its_settings_to_itself(foreign):
    @with_own_settings
    def steps():
        for _ in range(2):
            yield torch.get_default_dtype()

    before = session()
    for dtype in steps():
        assert dtype == torch.float32
        assert session() == before


def test_warnings_as_errors_stop_nothing(photographs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = patchmine.build_index(photographs, tmp_path / "x.patchmine", model="shapes", layers=("thing",))
    assert report.as_dict()["skipped"] == 0
