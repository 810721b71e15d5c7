"""A network of the user's own: its file loads as Python loads a script, and whatever it raises is one line."""

from __future__ import annotations

import builtins
import os
import random
import statistics
import sys
import types
from itertools import count
from pathlib import Path

import pytest
import torch

import patchmine
from patchmine import models
from patchmine.cli import errors
from patchmine.defaults import Wanted
from patchmine.errors import ModelError, RequestError, StoreError
from patchmine.mining.merge import merge_indexes
from tests.support.commands import failed

NET = "import torch\nfrom torch import nn\n"
STEM = "from torch import nn\ndef stem(): return nn.Conv2d(3, {units}, 3, stride=4)\n"
BUILD = "def build(): return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU())\n"
WITH_STEM = "def build(): return nn.Sequential(stem(), nn.ReLU())\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A function that writes files, given by their paths in a new folder of modules, and returns the folder."""
    numbers = count()

    def write(**texts):
        folder = tmp_path / f"own{next(numbers)}"
        for path, text in texts.items():
            target = folder / path.replace("__", "/").replace("_py", ".py")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return folder

    return write


@pytest.fixture(autouse=True)
def nothing_stays():
    """Whatever a test loads, the interpreter is as before."""
    before = (list(sys.path), list(sys.argv), Path.cwd(), builtins.__import__, sys.modules["__main__"])
    libraries = {
        name: sys.modules[name] for name in ("random", "statistics", "types", "torch", "timm") if name in sys.modules
    }
    yield
    assert (list(sys.path), list(sys.argv), Path.cwd(), builtins.__import__, sys.modules["__main__"]) == before
    assert {name: sys.modules[name] for name in libraries} == libraries


def units(spec):
    """The units of the first layer of a network, which also runs once."""
    network = models.load(str(spec))
    network.module(network.blank())
    return next(iter(network.module.state_dict().values())).shape[0]


def test_neighbors_are_those_of_the_file_whichever_was_loaded_before(files):
    four, seven = (
        files(net_py=f"{NET}from parts import stem\n{WITH_STEM}", parts_py=STEM.format(units=n)) for n in (4, 7)
    )
    assert [units(f"{folder}/net.py:build") for folder in (four, seven, four)] == [4, 7, 4]
    (four / "parts.py").write_text(STEM.format(units=5) + "# of another size, so that no cached bytecode fits\n")
    assert units(f"{four}/net.py:build") == 5
    for text in ("def stem(:\\n", 's = """\\n'):
        (four / "parts.py").write_text(text)
        with pytest.raises(ModelError, match=r"parts.py, line 1: SyntaxError"):
            models.load(f"{four}/net.py:build")
    (four / "parts.py").unlink()
    with pytest.raises(ModelError, match=r"net.py, line 3: ModuleNotFoundError: No module named 'parts'"):
        models.load(f"{four}/net.py:build")


@pytest.mark.parametrize("name", ["types", "random", "torch", "timm", "my-net.v1"])
def test_a_file_may_have_any_name(files, name):
    folder = files(
        net_py=f"{NET}import random, timm, types\nrandom.random, timm.create_model, types.ModuleType\n{BUILD}"
    )
    (folder / "net.py").rename(folder / f"{name}.py")
    assert units(f"{folder}/{name}.py:build") == 4


def test_a_neighbor_with_a_name_of_the_standard_library_is_only_the_users(files):
    folder = files(
        net_py=f"{NET}import torchvision, tempfile\nfrom statistics import stem\nfrom random import SEED\n{WITH_STEM}",
        statistics_py=STEM.format(units=6),
        random_py="SEED = 3\n",
        calendar_py="raise RuntimeError('no library may import this')\n",
    )
    sys.modules.pop("calendar", None)
    assert units(f"{folder}/net.py:build") == 6
    import calendar

    assert calendar.month_name
    assert statistics.mean([1, 3]) == 2
    assert random.Random(0).random() < 1


def test_relative_imports_reach_the_packages_around_the_file(files):
    folder = files(
        pkg__sub__net_py=f"{NET}import types\nfrom .parts import stem\nfrom ..common import UNITS\n"
        f"from pkg.types import X\n{WITH_STEM}",
        pkg__sub__parts_py=f"{NET}from pkg.common import UNITS\ndef stem(): return nn.Conv2d(3, UNITS, 3)\n",
        pkg__common_py="UNITS = 9\n",
        pkg__types_py="X = 1\n",
    )
    assert units(f"{folder}/pkg/sub/net.py:build") == 9
    (folder / "pkg/__init__.py").touch()
    (folder / "pkg/sub/__init__.py").write_text("from .parts import stem\n")
    assert units(f"{folder}/pkg/sub/net.py:build") == 9


def test_classes_find_their_module_while_the_file_loads_and_later(files):
    folder = files(
        late_py="ONE = 1\n",
        net_py=f"""from __future__ import annotations
import dataclasses, pickle, typing
{NET}
@dataclasses.dataclass
class Size:
    units: int = 4
    every: typing.ClassVar[int] = 4

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, Size().units, 3, stride=Size.every)

    def forward(self, x):
        import late
        assert pickle.loads(pickle.dumps(Size())) == Size()
        return self.stem(x) * late.ONE * len(typing.get_type_hints(Size)) / 2
""",
    )
    assert units(f"{folder}/net.py:Net") == 4


@pytest.mark.parametrize("main", [True, False])
def test_networks_that_a_script_has_pickled_are_unpickled(files, main, monkeypatch):
    folder = files(
        net_py=f"""{NET}from pathlib import Path
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
    def forward(self, x): return self.stem(x)
def saved(): return torch.load(Path(__file__).with_name("net.pt"), weights_only=False)
"""
    )
    module = models.load(f"{folder}/net.py:Net").module
    if main:  # as `python net.py` names the class
        type(module).__module__ = "__main__"
        monkeypatch.setattr(sys.modules["__main__"], "Net", type(module), raising=False)
    torch.save(module, folder / "net.pt")
    monkeypatch.undo()
    assert units(f"{folder}/net.py:saved") == 8


def test_the_file_sees_its_own_arguments_and_may_change_what_is_put_back(files):
    folder = files(
        lib__helper_py="UNITS = 3\n",
        net_py=f"""{NET}import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--units", type=int, default=5)
settings = parser.parse_args()
os.chdir(os.path.dirname(__file__))
open("data.txt").close()
sys.path.append(os.path.join(os.path.dirname(__file__), "lib"))
import helper
def build(): return nn.Conv2d(3, settings.units * helper.UNITS, 3)
if __name__ == "__main__":
    raise SystemExit(3)
""",
    )
    (folder / "data.txt").touch()
    assert units(f"{folder}/net.py:build") == 15


def test_a_file_runs_once_and_gives_the_same_network_again(files):
    registered = f"own_code_{os.getpid()}"
    folder = files(
        net_py=f"{NET}LIB = torch.library.Library('{registered}', 'DEF')\nLIB.define('f(Tensor x) -> Tensor')\n"
        f"torch.manual_seed(5)\n{BUILD}",
        unseeded_py=NET + BUILD,
    )
    before = torch.get_rng_state()
    for name in ("net", "unseeded"):
        one, other = (models.load(f"{folder}/{name}.py:build") for _ in range(2))
        assert one.module is not other.module
        assert one.weights == other.weights
    assert torch.equal(torch.get_rng_state(), before)


FAULTS = {
    "import no_such_package": ("line 3: ModuleNotFoundError: No module named 'no_such_package'; install it"),
    "from torch import no_such_name": "line 3: ImportError: cannot import name 'no_such_name'",
    "def build(:": "line 3: SyntaxError",
    "raise SystemExit('bye')": "line 3: SystemExit: bye; the file must not exit when it is imported",
    "def build():\n    raise ValueError": "line 4: ValueError",
    "def build():\n    raise ValueError('\\n\\nfirst\\nsecond')": "line 4: ValueError: first",
    "def build(): return build()": "line 3: RecursionError: maximum recursion depth exceeded",
    "def build(): return nn.Conv2d(3, 4)": "line 3: TypeError: Conv2d.__init__() missing 1 required",
    "def build(): return open('no-such-file')": "line 3: FileNotFoundError: [Errno 2]",
    "def build(classes, *, size, more=1): pass": "line 3, requires arguments (classes, size): give them defaults",
    "def build(): pass": "must return a torch module or a tuple (module, Preprocessing), not None",
    "def build(): return 1, 2, 3": "must return a torch module or a tuple (module, Preprocessing), not a tuple",
    "build = nn.ReLU()": "is a torch module, not a function that returns one",
    "build = 3": "has no function 'build'",
}


@pytest.mark.parametrize("code", FAULTS)
def test_whatever_the_file_does_wrong_is_one_line_with_its_place(files, code):
    folder = files(net_py=f"{NET}{code}\n")
    with pytest.raises(ModelError) as refusal:
        models.load(f"{folder}/net.py:build")
    line = str(refusal.value)
    assert FAULTS[code] in line
    assert "net.py" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "values",
    [
        "256, 224, 'bilinear', half, half",
        "256, (0, 224), 'bilinear', half, half",
        "'256', (224, 224), 'bilinear', half, half",
        "256, (224, 224), 'lanczos', half, half",
        "256, (224, 224), 'bilinear', 0.5, 0.5",
        "256, (224, 224), 'bilinear', half, (0, 0, 0)",
        "256, (224, 224), 'bilinear', half, half, 'all'",
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(files, values):
    folder = files(
        net_py=f"{NET}from patchmine import Preprocessing\nhalf = [0.5] * 3\n"
        f"def build(): return nn.Conv2d(3, 4, 3), Preprocessing({values})\n"
        "def sound(): return nn.Conv2d(3, 4, 3), Preprocessing([32, 32], [32, 32], 'bilinear', half, half)\n"
    )
    with pytest.raises(ModelError, match=r"returns Preprocessing\(.*give values such as"):
        models.load(f"{folder}/net.py:build")
    assert models.load(f"{folder}/net.py:sound").preprocessing.crop == (32, 32)


def test_the_line_is_that_of_the_neighbor_that_fails(files):
    folder = files(net_py="import parts\n", parts_py="\n1 / 0\n")
    with pytest.raises(ModelError, match=r"fails: .*parts\.py, line 2: ZeroDivisionError: division by zero$"):
        models.load(f"{folder}/net.py:build")


FORWARD = """import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.calls = nn.Conv2d(3, 4, 3, stride=4), 0
    def forward(self, x):
        self.calls += 1
        print("forward", self.calls)
        {}
        return self.stem(x)
"""


@pytest.mark.parametrize("when", [1, 6])
def test_errors_of_a_forward_name_the_users_line_and_debug_shows_the_users_part(cli, files, when, monkeypatch):
    folder = files(net_py=FORWARD.format(f"if self.calls >= {when}: raise KeyError('mine')"))
    words = ("index", "shapes:3", "--model", f"{folder}/net.py:Net", "--layers", "stem", "-o", "a.patchmine")
    line = cli(*words).stderr.splitlines()[-1]
    assert line.endswith("net.py, line 11: KeyError: 'mine'")
    monkeypatch.setattr(errors, "show_traceback", False)  # put back what --debug sets
    told = cli("--debug", *words).stderr
    assert f'File "{folder}/net.py", line 11, in forward' in told
    assert str(Path(patchmine.__file__).parent) not in told


def test_what_a_network_prints_does_not_reach_the_answer(cli, files):
    import json

    folder = files(net_py="print('loaded')\n" + FORWARD.format("pass"))
    words = ("index", "shapes:3", "--model", f"{folder}/net.py:Net", "--layers", "stem", "-o", "a.patchmine", "--json")
    done = cli(*words)
    assert json.loads(done.stdout)["images"] == 3
    assert "loaded\n" in done.stderr
    assert "forward 1\n" in done.stderr


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A folder with a network in net.py, a neighbor, and an index of it."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "net.py").write_text(
        f"{NET}from parts import stem  # the first layer\n{WITH_STEM}{WITH_STEM.replace('build', 'other')}"
    )
    (folder / "parts.py").write_text(STEM.format(units=4))
    _index(folder)
    return folder


def _index(folder, source="shapes:3", out="i.patchmine"):
    wanted = Wanted(model=f"{folder}/net.py:build", layers=("0",), keep=3)
    return patchmine.build_index(source, folder / out, wanted)


def asked(folder, model):
    return models.load_for_index(patchmine.open_index(folder / "i.patchmine").job, str(model))


def test_the_same_network_is_accepted_wherever_its_file_lies(indexed, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(indexed, tmp_path / "elsewhere")
    monkeypatch.chdir(indexed)
    for path in ("net.py", "./net.py", f"../{indexed.name}/net.py", tmp_path / "elsewhere/net.py"):
        asked(indexed, f"{path}:build")
    copy = tmp_path / "elsewhere/net.py"
    copy.write_text("# moved\n\n" + copy.read_text().replace("  # the first layer", ""))
    asked(indexed, f"{copy.rename(copy.with_name('renamed.py'))}:build")


def test_what_differs_is_named(indexed, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(indexed, copy)
    with pytest.raises(StoreError, match=r"the function 'build' of .*, not with 'other': add --model .*net\.py:build"):
        asked(indexed, f"{copy}/net.py:other")
    with pytest.raises(StoreError, match="was built with --model .*net.py:build, not shapes"):
        asked(indexed, "shapes")
    (copy / "parts.py").write_text((copy / "parts.py").read_text().replace("stride=4", "stride=2"))
    with pytest.raises(StoreError, match=r"the code of .*net\.py:build or of a file that it imports is not that of"):
        asked(indexed, f"{copy}/net.py:build")
    job = patchmine.open_index(indexed / "i.patchmine").job
    torch.save({"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(4)}, tmp_path / "other.pt")
    with pytest.raises(StoreError, match="built with other weights of .* than those in .*other.pt"):
        models.load_for_index(job, f"{indexed}/net.py:build", tmp_path / "other.pt")


def test_a_run_by_another_path_resumes_and_merges(indexed, tmp_path, monkeypatch):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(indexed, copy)
    assert _index(copy).mined == 0  # finished, though the path is another
    (tmp_path / "one").mkdir()
    shutil.copy(copy / "net.py", tmp_path / "one")
    shutil.copy(copy / "parts.py", tmp_path / "one")
    _index(tmp_path / "one", "shapes:5", "j.patchmine")
    both = [copy / "i.patchmine", tmp_path / "one/j.patchmine"]
    ran = []
    monkeypatch.setattr("patchmine.models.file._built", lambda *_: ran.append(1))
    with pytest.raises(ModelError, match="runs only if you ask for it"):
        merge_indexes(both, tmp_path / "both.patchmine", dedupe=True)
    assert not ran
    monkeypatch.undo()
    merge_indexes(both, tmp_path / "both.patchmine", dedupe=True, model=f"{copy}/net.py:build")
    assert len(patchmine.open_index(tmp_path / "both.patchmine")) == 5


def test_a_task_finds_the_file_from_another_folder(indexed, monkeypatch, tmp_path):
    monkeypatch.chdir(indexed)
    absolute = models.absolute("net.py:build")
    monkeypatch.chdir(tmp_path)
    models.load_for_job(patchmine.open_index(indexed / "i.patchmine").job, absolute)
    assert models.absolute("shapes") == "shapes"


WRONG = {
    "top --unit a:0 --pick bset": "unknown --pick 'bset'",
    "top --unit a:0 --project deconvnet -o a.png": "unknown --project 'deconvnet'; did you mean deconv?",
    "top --unit a:0 --crop tihgt": "unknown --crop 'tihgt'; did you mean tight?",
    "sheet --layer a -o a.png --layout stripe": "unknown --layout 'stripe'; did you mean strip?",
    "sheet --layer a -o a.png --layout zeiler --project gradcam": "unknown --project 'gradcam'",
    "tighten --share 4": "--share must be above 0 and at most 1, not 4",
    "fires a.png -k 0": "-k must be at least 1, not 0",
    "synth --unit a:0 --objective neurn": "unknown objective 'neurn'; did you mean neuron?",
    "verify --seed -4": "--seed must be at least 0, not -4",
    "index shapes:3 --precision fp8": "unknown --precision 'fp8'",
    "index shapes:3 --device gpu": "unknown --device 'gpu': give cpu, or cuda",
    "index shapes:3 --engine nix": "unknown --engine 'nix'; known: claims, local, ray",
    "index shapes:3 --executor tensorrt": "unknown --executor 'tensorrt'",
    "index shapes:3 --view all": "unknown --view 'all'",
    "index shapes:3 --workers 0": "--workers must be at least 1, not 0",
    "index shapes:3 --weights no.pt": "weights file 'no.pt' not found",
    "index shapes:3 --model efficientnet_lite": "unknown model 'efficientnet_lite'; did you mean efficientnet_lite2",
    "index shapes:3 --model net.py:build": "model file 'net.py' not found",
    "layers --model net.py": "'net.py' names a file but no function in it",
    "rf --field nix": "unknown --field 'nix'",
    "rf --size 3": "--size 3 is not a valid size",
}

PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "timm", "matplotlib", "captum")))
from typer.testing import CliRunner
from patchmine.cli import app
for line in sys.stdin:
    print(CliRunner().invoke(app, line.split()).stderr.strip() or "nothing")
"""


def test_a_wrong_word_is_refused_before_anything_heavy_is_imported(tmp_path):
    import subprocess

    (tmp_path / "a.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\n".join(WRONG), capture_output=True, text=True, cwd=tmp_path
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(WRONG), done.stderr
    for line, (command, refusal) in zip(lines, WRONG.items(), strict=True):
        assert refusal in line, command


def test_a_missing_extra_is_named_before_the_work(cli, monkeypatch):
    monkeypatch.setattr("patchmine.defaults.find_spec", lambda name: None)
    line = failed(cli("top", "--unit", "a:0", "--project", "ig", "-o", "a.png"))
    assert line == "patchmine: --project needs captum: pip install 'patchmine[attribution]'"


@pytest.mark.parametrize("model", ["timm:resnet18", "torchvision:resnet18"])
def test_without_a_network_weights_are_refused_at_once(model, monkeypatch, tmp_path):
    from time import perf_counter
    from urllib.error import URLError

    from huggingface_hub import constants

    from patchmine.models import _downloads

    def refuse(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(_downloads, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = perf_counter()
    with pytest.raises(ModelError, match=rf"could not download the weights of {model} \(.*no route.*\): give"):
        models.load(model)
    assert perf_counter() - began < 10
    assert constants.HF_HUB_OFFLINE is False


def test_a_host_that_keeps_silent_is_not_waited_for(monkeypatch):
    from threading import Event

    from patchmine.models import _downloads

    monkeypatch.setattr(_downloads, "PROBE_S", 0.05)
    silence = Event()
    monkeypatch.setattr(
        _downloads, "urlopen", lambda *_, **__: silence.wait(5) and types.SimpleNamespace(close=silence.clear)
    )
    assert _downloads.unreachable("https://example.org") == "no answer within 0 s"
    silence.set()


def test_settings_are_checked_in_python_too():
    with pytest.raises(RequestError, match="unknown --view 'all'"):
        patchmine.build_index("shapes:3", "i.patchmine", model="shapes", view="all")
