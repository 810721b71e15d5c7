"""The command line as scripts see it: documents, exit codes, one-line errors, and what is not imported."""

import csv
import gc
import io
import json
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from patchmine import cli as cli_module
from patchmine.cli import app
from patchmine.cli.running import carry_out
from tests.support.commands import failed

COMMANDS = sorted(get_command(app).commands)
FIRST = "colour:0"


def test_top_json_is_the_contract(process, shapes_index_dir):
    done = process("top", "-i", shapes_index_dir, "--unit", FIRST, "-k", 3, "--json")
    document = json.loads(done.stdout)
    assert list(document) == ["index", "pick", "by", "crop", "unit", "patches", "labels"]
    assert document["unit"].keys() >= {"layer", "channel", "name", "label"}
    assert len(document["patches"]) == 3
    patch = document["patches"][0]
    assert patch.keys() >= {
        "rank",
        "value",
        "image",
        "image_id",
        "class",
        "position",
        "visible",
        "input_box",
        "box",
    }
    assert patch["rank"] == 1
    assert patch["position"].keys() == {"y", "x"}
    assert list(patch["box"]) == list(patch["input_box"]) == ["left", "top", "right", "bottom"]
    assert 0 < patch["visible"] <= 1
    assert done.stderr == ""


def test_top_csv_and_table_agree_with_json(cli, shapes_index_dir):
    words = ("top", "-i", shapes_index_dir, "--unit", FIRST, "-k", 4)
    patches = json.loads(cli(*words, "--json").stdout)["patches"]
    rows = list(csv.DictReader(io.StringIO(cli(*words, "--csv").stdout)))
    assert [row["image"] for row in rows] == [patch["image"] for patch in patches]
    assert [float(row["value"]) for row in rows] == [patch["value"] for patch in patches]
    assert [int(row["box_left"]) for row in rows] == [patch["box"]["left"] for patch in patches]
    table = cli(*words).stdout.splitlines()
    assert [line.split()[-1] for line in table[2:]] == [patch["image"] for patch in patches]


def test_index_json_is_the_contract_and_progress_is_on_stderr(cli):
    done = cli("index", "shapes:6", "--model", "shapes", "--json")
    document = json.loads(done.stdout)
    assert list(document) == [
        "index",
        "images",
        "skipped",
        "skipped_files",
        "layers",
        "seconds",
        "images_per_second",
        "resumed",
        "classes",
        "passed_over",
        "left_out",
        "notes",
    ]
    assert (document["images"], document["skipped"], document["resumed"]) == (6, 0, False)
    assert document["layers"][0].keys() == {"layer", "units", "grid"}
    assert "6 photographs" in done.stderr
    again = json.loads(cli("index", "shapes:6", "--model", "shapes", "--json").stdout)
    assert again["resumed"] is True


def test_the_other_documents(cli, shapes_index_dir):
    units = json.loads(cli("units", "-i", shapes_index_dir, "--sort", "max", "--json").stdout)
    assert units["units"][0].keys() >= {
        "layer",
        "channel",
        "name",
        "label",
        "auroc",
        "max",
        "mean",
        "positive",
    }
    assert [u["max"] for u in units["units"]] == sorted((u["max"] for u in units["units"]), reverse=True)
    info = json.loads(cli("info", "-i", shapes_index_dir, "--json").stdout)
    assert info["job"]["model"] == "shapes"
    layers = json.loads(cli("layers", "--model", "shapes", "--json").stdout)
    assert layers["model"] == "shapes"
    assert layers["layers"][0].keys() == {"layer", "channels", "grid"}
    fields = json.loads(cli("rf", "--model", "shapes", "--json").stdout)
    assert fields["input"] == [224, 224]
    group = fields["layers"][0]["groups"][0]
    assert group.keys() >= {"channels", "size", "stride", "offset", "rows", "cols"}
    assert len(group["rows"]) == fields["layers"][0]["grid"][0]


def test_rf_shows_what_an_index_holds_without_its_network(cli, shapes_index_dir):
    computed = json.loads(cli("rf", "--model", "shapes", "--json").stdout)
    stored = json.loads(cli("rf", "-i", shapes_index_dir, "--json").stdout)
    assert all(layer.pop("effective_size") is None for layer in computed["layers"])
    assert all(layer.pop("effective_size") > 0 for layer in stored["layers"])
    assert stored == computed
    small = json.loads(cli("rf", "--model", "shapes", "--size", "97x131", "--json").stdout)
    assert small["input"] == [97, 131]
    for layer in small["layers"]:
        assert [len(layer["groups"][0][axis]) for axis in ("rows", "cols")] == layer["grid"]


def test_rf_table_has_padding_and_effective_size(cli, shapes_index_dir):
    header, first, *_ = cli("rf", "-i", shapes_index_dir).stdout.splitlines()
    assert header.split()[-4:] == ["stride", "padding", "inside", "effective"]
    assert first.split()[-1].isdigit()


def test_the_only_index_here_and_the_environment(cli, shapes_index_dir, monkeypatch):
    assert "no *.patchmine in this folder" in failed(cli("info"))
    monkeypatch.setenv("PATCHMINE_INDEX", str(shapes_index_dir))
    assert "48 photographs" in cli("info").stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["index", "no/such/folder"], "no/such/folder"),
        (["index", "shapes:3", "--model", "efficientnet_lite9"], "efficientnet_lite0?"),
        (["index", "shapes:3", "--model", "shapes", "--layers", "colr*"], "colr*"),
        (["top", "-i", "{index}", "--unit", "clour:0"], "did you mean colour"),
        (["rf", "-i", "{index}", "--layers", "colr"], "colr"),
        (["rf", "-i", "{index}", "--size", "97x131"], "leave out"),
        (["rf", "--model", "shapes", "--size", "97"], "HEIGHTxWIDTH"),
        (["rf", "--model", "shapes", "--field", "locl"], "did you mean local"),
        (["top", "-i", "{index}", "--unit", "colour:9999"], "channels 0 to"),
        (["top", "-i", "{index}", "--unit", FIRST, "-k", "0"], "-k must be at least 1, not 0"),
        (["top", "-i", "{index}", "--unit", FIRST, "-o", "x.gif"], "end its name in .png, .pdf or .svg"),
        (["top", "-i", "{index}", "--unit", FIRST, "-o", "no/x.png"], "folder 'no' not found"),
        (["top", "-i", "{index}", "--unit", FIRST, "--json", "--csv"], "exclude each other"),
        (["top", "-i", "nothing.patchmine", "--unit", FIRST], "index 'nothing.patchmine' does not exist"),
        (["units", "-i", "{index}", "--sort", "maxx"], "did you mean max"),
        (["units", "-i", "{index}", "--match", "zzz*"], "no unit matches 'zzz*'"),
        (["layers", "--model", "timm:resnt18"], "did you mean"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_type(cli, shapes_index_dir, words, answer):
    words = [str(shapes_index_dir) if word == "{index}" else word for word in words]
    assert answer in failed(cli(*words))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["tops"], "no command 'tops'; did you mean top?"),
        (["--bug"], "no option '--bug'; did you mean --debug?"),
        (["top"], "top needs --unit, as in: patchmine top --unit"),
        (["index"], "index needs SOURCE, as in: patchmine index "),
        (["top", "--cropp", "rf"], "top has no option '--cropp'; did you mean --crop"),
        (["index", "--zzzzzz"], "index has no option '--zzzzzz', as in: patchmine index "),
        (["top", "--unit"], "--unit needs a value, as in: patchmine top "),
        (["top", "--unit", FIRST, "--json=3"], "--json takes no value, as in: patchmine top "),
        (["top", "--unit", FIRST, "-k", "many"], "-k must be a whole number, not 'many', as in: patchmine top "),
        (["top", "--unit", FIRST, "--share", "half"], "--share must be a number, not 'half', as in: patchmine top "),
        (["info", "one", "two"], "info has no place for 'one two', as in: patchmine info "),
    ],
)
def test_wrong_usage_is_one_line_too_and_exits_with_2(cli, words, answer):
    assert f"patchmine: {answer}" in failed(cli(*words), 2)


@pytest.mark.parametrize("command", cli_module.COMMANDS)
def test_every_command_refuses_an_unknown_option_in_one_line(cli, command):
    line = failed(cli(command, "--zzzzzz"), 2)
    assert line.startswith(f"patchmine: {command} has no option '--zzzzzz', as in: patchmine {command} ")


@pytest.mark.parametrize(
    ("option", "word", "code"),
    [
        ("-k", "3", 0),
        ("-k", " 3", 0),
        ("-k", "+3", 0),
        ("-k", "x", 2),
        ("-k", "", 2),
        ("-k", "²", 2),
        ("--share", ".5", 0),
        ("--share", "5e-1", 0),
        ("--share", ".", 2),
    ],
)
def test_words_that_are_plain_and_words_that_are_not(cli, shapes_index_dir, option, word, code):
    """Plain words are converted without Typer's help, and the others as Typer does."""
    done = cli("top", "-i", shapes_index_dir, "--unit", FIRST, "--json", option, word)
    assert done.returncode == code
    if option == "-k" and code == 0:
        assert len(json.loads(done.stdout)["patches"]) == 3


def test_debug_shows_the_traceback(process):
    for words in (["--debug", "info", "-i", "x"], ["info", "-i", "x", "--debug"]):
        assert "Traceback" in process(*words).stderr


def test_version(process):
    assert re.fullmatch(r"patchmine \d+\.\d+\.\d+\n", process("--version").stdout)


def test_an_empty_folder_says_so(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in failed(cli("index", "empty"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli, command):
    done = cli(command, "--help")
    assert done.returncode == 0
    assert f"patchmine {command}" in done.stdout.split("Example:")[1].replace("`", "")


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "c.patchmine"
    words = ["index", "shapes:400", "-o", str(out), "--model", "shapes", "--shard-size", "4"]
    command = [sys.executable, "-m", "patchmine", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("shards/*.shard")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    last = stderr.strip().splitlines()[-1]
    assert re.search(
        r"patchmine: interrupted: \d+ of 100 shards are kept in .*; run the same command \(without --fresh\) to resume",
        last,
    )
    assert "Traceback" not in stderr


BUDGET = """
import sys
from patchmine import cli as cli_module
from patchmine.cli import app
try:
    app({words!r})
except SystemExit:
    pass
heavy = [name for name in {heavy!r} if name in sys.modules]
print(heavy, file=sys.stderr)
"""
UNUSED = [
    "patchmine.cli.commands.index",
    "patchmine.sources",
    "patchmine.buckets.copy",
    "patchmine.kept.findings",
    "hashlib",
]
HEAVY = ["torch", "torchvision", "timm", "faiss", "matplotlib", "rich.progress", "pydantic"]


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], []),
        (["top", "-i", "{index}", "--unit", FIRST, "--json"], []),
        (["top", "-i", "{index}", "--unit", FIRST, "-o", "sheet.png"], []),
        (["units", "-i", "{index}"], []),
        (["similar", "-i", "{index}", "--unit", FIRST, "--json"], ["faiss"]),
        (["between", "{index}", "{index}", "--unit", FIRST, "-o", "sheet.png"], []),
        (["info", "-i", "{index}"], []),
    ],
)
def test_reading_commands_import_nothing_heavy(shapes_index_dir, tmp_path, words, allowed):
    words = [str(shapes_index_dir) if word == "{index}" else word for word in words]
    program = BUDGET.format(words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.strip().splitlines()[-1] == str(allowed)
    assert done.returncode == 0


def test_crops_of_a_deep_layer_are_effective_on_a_sheet_and_whole_in_json(cli, shapes_index_dir):
    words = ("top", "-i", shapes_index_dir, "--unit", "thing:0", "-k", 2, "--json")
    whole, effective = (json.loads(cli(*words, *more).stdout) for more in ((), ("--crop", "erf")))
    assert (whole["crop"], effective["crop"]) == ("rf", "erf")
    for large, small in zip(whole["patches"], effective["patches"], strict=True):
        assert small["value"] == large["value"]
        assert small["input_box"] == large["input_box"]
        assert small["box"]["right"] - small["box"]["left"] < large["box"]["right"] - large["box"]["left"]
    assert "did you mean erf" in failed(cli(*words, "--crop", "er"))
    assert "--share must be above 0 and at most 1, not 2" in failed(cli(*words, "--share", 2))


def test_verify_says_what_crops_retain(cli, shapes_index_dir):
    done = cli("verify", "--crops", "-i", shapes_index_dir, "--units", 2, "-k", 2, "--json")
    document = json.loads(done.stdout)
    rows = {(row["layer"], row["crop"]): row for row in document["layers"]}
    for layer in ("contrast", "colour", "thing"):
        # Nothing outside the receptive field takes part, so the crop alone brings back the whole activation.
        assert rows[layer, "rf"]["median"] == pytest.approx(1, abs=1e-4)
        assert rows[layer, "rf"]["p10"] == pytest.approx(1, abs=1e-4)
    assert "--units must be at least 1, not 0" in failed(cli("verify", "-i", shapes_index_dir, "--units", 0))


@pytest.mark.parametrize(
    ("words", "known"), [(["top", "--json"], ["top"]), (["--help"], COMMANDS), (["tpo"], COMMANDS)]
)
def test_only_the_command_that_is_named_is_read(words, known, monkeypatch):
    seen = []
    monkeypatch.setattr(type(app), "__call__", lambda self, *_: seen.append(sorted(get_command(self).commands)))
    monkeypatch.setattr("sys.argv", ["patchmine", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # main would set it for good
    cli_module.main()
    assert seen == [known]


def test_a_query_imports_no_other_command_and_nothing_that_its_answer_does_not_need(shapes_index_dir):
    program = f"""
import sys
sys.argv = ["patchmine", "top", "-i", {str(shapes_index_dir)!r}, "--unit", {FIRST!r}, "--json"]
from patchmine.cli import main
try:
    main()
finally:
    print([name for name in {UNUSED!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert json.loads(done.stdout)["unit"]["layer"] == "colour"
    assert done.stderr.strip() == "[]"


def test_the_list_of_commands_is_that_of_the_commands_with_their_options():
    def printed(program):
        return CliRunner().invoke(program, ["--help"]).stdout

    assert printed(cli_module.application(*cli_module.COMMANDS, listed=True)) == printed(app)


def test_python_looks_for_garbage_as_usual_once_libraries_are_imported(tmp_path):
    before, seen = gc.get_threshold(), []

    def work(_):
        seen.append(gc.get_threshold()[0])
        raise KeyboardInterrupt

    gc.set_threshold(100_000)
    try:
        with pytest.raises(KeyboardInterrupt):
            carry_out(work, tmp_path / "none.patchmine", json=False)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    assert seen == [700]
