"""Labels and names of an index: stored, computed anew, given by a person, completed by the shell."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

import patchmine
from patchmine import models
from patchmine.errors import StoreError
from patchmine.labels.support import Support
from patchmine.mining.predictions import predictor
from patchmine.questions import rename
from patchmine.sheets.layouts.bands import spectrum_page
from patchmine.sheets.layouts.fires import fires_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.similar import similar_page
from patchmine.sheets.layouts.strips import strips_page
from patchmine.sources import Entry
from patchmine.units import Unit
from tests.support.commands import failed

LABELED = "thing"

CHANNELS = {"contrast": 8, "colour": 8, "template": 52, "shape": 4, "thing": 24}
"""The layers of the network that is set by hand."""

STATISTICS = ("max", "mean", "positive", "tied")


@pytest.fixture(scope="module")
def classes_dir(tmp_path_factory):
    """120 drawn pictures: many of each class."""
    directory = tmp_path_factory.mktemp("names") / "s.patchmine"
    patchmine.build_index("shapes:160", directory, model="shapes", keep=10)
    return directory


@pytest.fixture
def named(classes_dir, tmp_path):
    return shutil.copytree(classes_dir, tmp_path / "s.patchmine")


def unit_of(directory):
    return patchmine.open_index(directory).units(LABELED)


def labeled_unit(directory):
    return next(unit for unit in unit_of(directory) if unit.label)


def test_units_find_their_own_things(classes_dir):
    """Each unit of the last layer fires for a colour and a shape, and so do the classes say."""
    index = patchmine.open_index(classes_dir)
    truth = models.load("shapes").class_names
    classes = {record.class_name for record in index.store.records()}
    named = [unit for unit in index.units(LABELED) if truth[unit.unit.channel] in classes]
    assert len(named) == len(classes) > 10
    assert all(unit.label == truth[unit.unit.channel] for unit in named)
    assert all(unit.name == f"{unit.label.replace(' ', '_')}_{unit.unit.channel}" for unit in named)
    assert all(index.unit(unit.name, LABELED).unit == unit.unit for unit in named)
    assert all(0.95 < unit.auroc <= 1 for unit in named)
    assert index.manifest["labels"]["from"] == "classes"


def test_units_lists_labels_and_filters_by_them(cli, classes_dir):
    unit = labeled_unit(classes_dir)
    words = ("units", "-i", classes_dir, "--layer", LABELED)
    for key in ("hits", "lift", "r", "auroc"):
        document = json.loads(cli(*words, "--json", "--sort", key).stdout)
        numbers = [u[key] for u in document["units"] if u[key] is not None]
        assert numbers == sorted(numbers, reverse=True)
        assert [u[key] for u in document["units"]][: len(numbers)] == numbers
        assert all((u[key] is None) == (u["label"] is None) for u in document["units"])
    assert document["labels"]["from"] == "classes"
    for pattern in (unit.label, unit.label.replace(" ", "_"), unit.label[:3] + "*"):
        found = json.loads(cli(*words, "--json", "--label", pattern).stdout)["units"]
        assert unit.name in {u["name"] for u in found}
    assert "no unit has the label 'nonsense'" in failed(cli(*words, "--label", "nonsense"))
    table = cli(*words, "--facets").stdout.splitlines()
    assert table[0].split() == ["unit", "name", "label", "evidence", "auroc", *STATISTICS, "facets"]
    assert table[-1] == "labels: by the classes of the photographs"
    facets = json.loads(cli(*words, "--json", "--sort", "facets").stdout)["units"]
    assert all(u["facets"] >= 1 for u in facets)
    assert cli(*words, "--csv", "--facets").stdout.startswith("layer,channel,name,label,hits,of,lift,r,auroc,max,")
    top = json.loads(cli("top", "-i", classes_dir, "--unit", unit.name, "--layer", LABELED, "--json").stdout)
    assert top["unit"]["label"] == unit.label


def test_the_hits_beside_a_name_are_those_counted_on_the_sheet(cli, classes_dir):
    """The window of 160 photographs is 20. Ties make an expected number, so only units without them are counted."""
    index = patchmine.open_index(classes_dir)
    share = Counter(record.class_name for record in index.store.records())
    counted = 0
    for unit in index.units():
        top = unit.top(21)
        found = unit.support
        if top[19].value == top[20].value:
            continue
        classes = Counter(patch.class_name for patch in top[:20])
        assert (found.common_hits, found.of) == (classes.most_common(1)[0][1], 20)
        assert classes[found.common] == found.common_hits
        if unit.label:
            counted += 1
            lift = classes[unit.label] / 20 / (share[unit.label] / 160)
            assert found.hits == classes[unit.label]
            assert found.lift == pytest.approx(lift)
            assert unit.evidence == f"{unit.label} {classes[unit.label]} of top 20 ({lift:.1f}x chance)"
    assert counted > 10
    unit = labeled_unit(classes_dir)
    words = ("-i", classes_dir, "--unit", unit.name, "--layer", LABELED, "-k", 1)
    title = cli("top", *words).stdout.splitlines()[0]
    assert title == f"{unit.name} · {unit.evidence} · {unit.unit} in {classes_dir}: top"
    row = next(row for row in cli("units", "-i", classes_dir).stdout.splitlines() if row.startswith(f"{unit.unit} "))
    assert unit.evidence.removeprefix(f"{unit.label} ") in row


def test_ties_are_told():
    assert str(Support("fish", 0.9, 12.4, 25, 11.96, 0.3)) == "fish 12 of top 25 (12x chance, ties)"
    assert str(Support("fish", 0.9, 12, 25, 5.84, 0.3)) == "fish 12 of top 25 (5.8x chance)"
    assert str(Support("fish", 0.9)) == "fish (AUROC 0.90)"
    assert str(Support()) == ""
    assert str(Support(of=25, common="fan", common_hits=1)) == "no label; no two of the top 25 share a class"
    assert (
        str(Support(of=25, common="fan", common_hits=4.5)) == "no label; commonest class in the top 25: fan (4, ties)"
    )


def test_info_says_how_many_units_are_named_and_what_would_name_more(cli, classes_dir, named):
    index = patchmine.open_index(classes_dir)
    names = json.loads(cli("info", "-i", classes_dir, "--json").stdout)["names"]
    labels = [unit.label for unit in index.units(LABELED)]
    of_layer = names["layers"][-1]
    assert of_layer == {"layer": LABELED, "units": len(labels), "named": sum(label is not None for label in labels)}
    assert index.manifest["labels"]["named"] == {layer["layer"]: layer["named"] for layer in names["layers"]}
    assert index.manifest["labels"]["rule"] == "top-25"
    line = next(line for line in cli("info", "-i", classes_dir).stdout.splitlines() if line.startswith("names "))
    share = 100 * of_layer["named"] / len(labels)
    assert f"{share:.0f}% of {LABELED}; {names['tried']} labels tried (7 photographs each needed); more" in line
    (named.parent / "one.csv").write_text("\n".join(f"{record.path},one" for record in index.store.records()))
    told = cli("name", "-i", named, "--auto", "--labels", "one.csv").stdout
    assert "0 labels tried" in told
    assert "photographs of a second class are needed" in told
    assert json.loads(cli("info", "-i", named, "--json").stdout)["names"]["tried"] == 0


def test_labels_by_the_first_rule_stay_readable_until_they_are_made_anew(cli, tmp_path):
    directory = shutil.copytree(Path(__file__).parent / "kept/format1.patchmine", tmp_path / "old.patchmine")
    with h5py.File(directory / "activations.h5", "r+", libver="v110") as file:
        del file["labels/name"], file["labels/key"]
        file["labels/name"], file["labels/key"] = [["red disc"]] * 2
        file["layers/thing/label"][0], file["layers/thing/auroc"][0] = 0, 0.75
    unit = patchmine.open_index(directory).unit("thing:0")
    assert (unit.label, unit.auroc, unit.evidence) == ("red disc", 0.75, "red disc (AUROC 0.75)")
    assert [unit.summary()[name] for name in ("hits", "of", "lift", "r")] == [None] * 4
    assert "label anew by today's with: patchmine name --auto" in cli("info", "-i", directory).stdout
    assert json.loads(cli("info", "-i", directory, "--json").stdout)["names"] is None
    cli("name", "-i", directory, "--auto")
    assert patchmine.open_index(directory).labels.about["rule"] == "top-25"
    job = patchmine.open_index(directory).manifest["job_digest"]
    channels = patchmine.open_index(directory).layers
    layers = {name: {"label": ["x"] * units, "auroc": [0.5] * units} for name, units in channels.items()}
    auto = {"job": job, "from": "classes", "alpha": 0.05, "units": 1, "layers": layers}
    (directory / "names.json").write_text(json.dumps({"format": 1, "given": {}, "auto": auto}))
    assert str(patchmine.open_index(directory).unit("thing:0").support) == "x (AUROC 0.50)"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", 999),
        ("label", -2),
        ("auroc", 2),
        ("auroc", np.nan),
        ("hits", 21),
        ("hits", np.nan),
        ("of", -1),
        ("lift", np.inf),
        ("r", 2),
        ("common", 999),
        ("common_hits", -1),
    ],
)
def test_labels_of_a_stranger_are_checked(named, column, value):
    unit = labeled_unit(named).unit
    with h5py.File(named / "activations.h5", "r+", libver="v110") as file:
        file[f"layers/{unit.layer}/{column}"][unit.channel] = value
    with pytest.raises(StoreError, match=f"{LABELED}/({column}|label|auroc)"):
        str(patchmine.open_index(named).unit(unit).support)


def test_dead_and_saturated_units_are_marked(named):
    with h5py.File(named / "activations.h5", "r+", libver="v110") as file:
        file["layers/colour/stats/maximum"][0] = 0
        file["layers/colour/stats/tied"][1] = 26
    marks = [unit.summary()["marks"] for unit in patchmine.open_index(named).units("colour")]
    assert marks[:3] == [["dead"], ["saturated"], []]


def test_a_name_is_given_listed_used_and_taken_away(cli, named):
    assert "koi" in cli("name", "-i", named, "colour:1", "koi").stdout
    assert json.loads(cli("name", "-i", named, "--json").stdout)["given"] == {"colour:1": "koi"}
    shown = json.loads(cli("top", "-i", named, "--unit", "koi", "--json").stdout)["unit"]
    assert (shown["layer"], shown["channel"], shown["name"]) == ("colour", 1, "koi")
    before = json.loads(cli("top", "-i", named, "--unit", "colour_1", "--json").stdout)["unit"]
    assert before == shown
    assert "colour:1 already has the name 'koi'" in failed(cli("name", "-i", named, "colour:2", "koi"))
    assert "did you mean koi" in failed(cli("top", "-i", named, "--unit", "koy"))
    cli("name", "-i", named, "contrast:0", "koi")
    assert "colour:1, contrast:0" in failed(cli("top", "-i", named, "--unit", "koi")).replace(
        "contrast:0, colour:1", "colour:1, contrast:0"
    )
    cli("name", "-i", named, "colour:koi", "--remove")
    assert "has no given name" in failed(cli("name", "-i", named, "colour:1", "--remove"))
    assert json.loads(cli("name", "-i", named, "--json").stdout)["given"] == {"contrast:0": "koi"}


@pytest.mark.parametrize("name", ["", " koi", "a:b", "a/b", "-k", "7", "koi_3", "thing_1", "\x1b[2J", "x" * 101])
def test_a_name_that_means_something_else_is_refused(cli, named, name):
    done = cli("name", "-i", named, "--", "colour:1", name)
    assert repr(name)[1:4] in failed(done) or "is not a valid name" in failed(done)
    assert not (named / "names.json").exists()


@pytest.mark.parametrize(
    "words",
    [["colour:1"], ["--auto", "colour:1", "x"], ["--remove"], ["--labels", "x.csv"], ["colour:1", "x", "--auto"]],
)
def test_name_says_what_it_takes(cli, named, words):
    failed(cli("name", "-i", named, *words))


def test_names_survive_a_rebuild_and_wait_for_their_units(cli, tmp_path):
    cli("index", "shapes:8", "--model", "shapes", "-o", "a.patchmine")
    cli("name", "-i", "a.patchmine", "colour:1", "koi")
    assert cli("index", "shapes:8", "--model", "shapes", "-o", "a.patchmine", "--fresh").returncode == 0
    assert json.loads(cli("name", "-i", "a.patchmine", "--json").stdout)["given"] == {"colour:1": "koi"}
    cli("index", "shapes:8", "--model", "shapes", "-o", "a.patchmine", "--layers", "thing", "--fresh")
    listed = cli("name", "-i", "a.patchmine")
    assert "koi" not in listed.stdout
    assert "belong to units that are not in this index, such as colour:1" in listed.stderr


def test_labels_computed_anew_are_those_of_the_index(cli, named):
    index = patchmine.open_index(named)
    stored = {unit.unit: (unit.label, unit.auroc) for unit in index.units()}
    digest = (named / "activations.h5").read_bytes()
    document = json.loads(cli("name", "-i", named, "--auto", "--json").stdout)
    assert document["labels"]["from"] == "classes"
    again = patchmine.open_index(named)
    assert again.names_file.auto is not None
    assert {unit.unit: (unit.label, unit.auroc) for unit in again.units()} == stored
    assert (named / "activations.h5").read_bytes() == digest
    lines = [f"{r.path},{'even' if r.image % 2 else 'odd'}" for r in index.store.records()]
    (named.parent / "other.csv").write_text("\n".join(lines))
    told = cli("name", "-i", named, "--auto", "--labels", "other.csv").stdout
    assert "units have a label" in told
    assert "labels: by the classes in other.csv" in told
    assert "labels: by the classes in other.csv" in cli("units", "-i", named).stdout
    assert {unit.label for unit in patchmine.open_index(named).units()} <= {None, "even", "odd"}
    document = json.loads((named / "names.json").read_text())
    document["auto"]["job"] = "0" * 32
    (named / "names.json").write_text(json.dumps(document))
    assert {unit.unit: (unit.label, unit.auroc) for unit in patchmine.open_index(named).units()} == stored


def test_an_index_of_an_older_patchmine_has_no_labels(cli, named):
    with h5py.File(named / "activations.h5", "r+", libver="v110") as file:
        del file["labels"]
        for layer in file["layers"].values():
            del layer["label"], layer["auroc"]
    manifest = json.loads((named / "manifest.json").read_text())
    del manifest["labels"]
    (named / "manifest.json").write_text(json.dumps(manifest))
    index = patchmine.open_index(named)
    assert {unit.label for unit in index.units()} == {None}
    assert "labels     none" in cli("info", "-i", named).stdout
    cli("name", "-i", named, "--auto")
    assert labeled_unit(named).label


def strange(column, values):
    """Columns as in a names.json of one unit, one of them with a value that cannot be."""
    sound = {"label": ["a"], "auroc": [1], "hits": [20], "of": [25], "lift": [2], "r": [0.5]}
    layer = sound | {"common": ["a"], "common_hits": [20], column: values}
    return {name: {key: value * units for key, value in layer.items()} for name, units in CHANNELS.items()}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "given": {}, "auto": null}',
        '{"format": 1, "given": [], "auto": null}',
        '{"format": 1, "given": {"colour": "x"}, "auto": null}',
        '{"format": 1, "given": {"colour:1": "a:b"}, "auto": null}',
        '{"format": 1, "given": {"colour:1": 7}, "auto": null}',
        '{"format": 1, "given": {"colour:1": "\\u001b[2J"}, "auto": null}',
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "x", "layers": {}}}',
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "layers": {"colour": {}}}}',
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "layers": {"colour": '
        '{"label": ["a"], "auroc": [7]}}}}',
        *(
            '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "layers": LAYERS}}'.replace(
                "LAYERS", json.dumps(layers)
            )
            for layers in (strange("hits", [26]), strange("of", [-1]), strange("r", ["x"]), strange("lift", [True]))
        ),
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "tried": -1, "layers": {}}}',
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "rule": 5, "layers": {}}}',
        '{"format": 1, "given": {}, "auto": {"job": "JOB", "from": "classes", "named": 5, "layers": {}}}',
        "[" * 100_000,
    ],
)
def test_names_of_a_stranger_are_checked(named, text):
    job = patchmine.open_index(named).manifest["job_digest"]
    (named / "names.json").write_text(text.replace("JOB", job))
    with pytest.raises(StoreError, match=r"names\.json is damaged.*repair or delete it"):
        [unit.auroc for unit in patchmine.open_index(named).units() if unit.name]


def test_without_a_table_or_a_class_there_is_no_label(cli, tmp_path):
    cli("index", "shapes:8", "--model", "shapes", "-o", "n.patchmine", "--no-table")
    index = patchmine.open_index(tmp_path / "n.patchmine")
    assert {unit.label for unit in index.units()} == {None}
    assert index.manifest["labels"] == {"from": "none"}
    assert "--no-table" in failed(cli("name", "-i", "n.patchmine", "--auto"))


@pytest.fixture(scope="module")
def unclassified(tmp_path_factory):
    """Drawn pictures in one flat folder: nothing says what they are."""
    from patchmine.sources import open_source

    folder = tmp_path_factory.mktemp("flat")
    source = open_source("shapes:60")
    for entry in source.entries():
        (folder / entry.path).write_bytes(source.read(entry.path))
    return folder


@pytest.fixture(scope="module")
def predicted(unclassified, tmp_path_factory):
    """The index of these."""
    directory = tmp_path_factory.mktemp("predicted") / "p.patchmine"
    patchmine.build_index(unclassified, directory, model="shapes", shard_size=16)
    return directory


def datasets(directory):
    return patchmine.open_index(directory).manifest["checksums"]["datasets"]


PREDICTED = "by the network's own predictions"


def test_where_nothing_has_a_class_the_network_says_what_it_sees(cli, unclassified, predicted):
    network = models.load("shapes")
    assert PREDICTED in cli("info", "-i", predicted).stdout
    assert PREDICTED in cli("units", "-i", predicted).stdout
    unit = str(labeled_unit(predicted).unit)
    words = ("-i", predicted, "-k", 24)
    asked = [("top", "--unit", unit), ("similar", "--unit", unit), ("fires", "000001.png", "--layer", LABELED)]
    for question in asked:
        assert PREDICTED in cli(*question, *words).stdout
        assert json.loads(cli(*question, *words, "--json").stdout)["labels"]["from"] == "predictions"
    predictions = [record.prediction for record in patchmine.open_index(predicted).store.records()]
    things, _ = patchmine.open_index(predicted).store.table("thing")
    assert predictions == [network.class_names[best] for best in things.argmax(axis=1)]
    half = [cli("index", unclassified, "--model", "shapes", "-o", "q.patchmine", "--shard-size", 16, "--limit", 30)]
    half.append(cli("index", unclassified, "--model", "shapes", "-o", "q.patchmine", "--shard-size", 16, "--extend"))
    assert [done.returncode for done in half] == [0, 0]
    assert "images/prediction" in datasets(predicted)
    assert datasets("q.patchmine") == datasets(predicted)


def test_merged_indexes_without_classes_keep_what_the_network_said(unclassified, predicted, tmp_path):
    parts = [tmp_path / "one", tmp_path / "two"]
    for number, file in enumerate(sorted(unclassified.iterdir())):
        parts[number % 2].mkdir(exist_ok=True)
        shutil.copy(file, parts[number % 2])
    for part in parts:
        patchmine.build_index(part, part.with_suffix(".patchmine"), model="shapes", shard_size=16)
    patchmine.merge_indexes([part.with_suffix(".patchmine") for part in parts], tmp_path / "both.patchmine")
    both, whole = patchmine.open_index(tmp_path / "both.patchmine"), patchmine.open_index(predicted)
    assert both.labels.about == whole.labels.about
    assert both.labels.about["from"] == "predictions"
    assert [record.prediction for record in both.store.records()] == [r.prediction for r in whole.store.records()]
    assert [unit.label for unit in both.units()] == [unit.label for unit in whole.units()]
    assert any(unit.label for unit in both.units())


def words_on(page):
    return " ".join(text.text for text in page.texts)


def test_sheets_say_where_names_come_from(classes_dir, predicted, named):
    for directory, origin in ((classes_dir, "by the classes of the photographs"), (predicted, PREDICTED)):
        unit = labeled_unit(directory)
        index, label = unit.index, f"{unit.evidence}, {origin}"
        assert unit.evidence.startswith(f"{unit.label} {round(unit.support.hits)} of top {unit.support.of} (")
        column, _ = index.store.column(unit.unit.layer, unit.unit.channel)
        assert label in words_on(grid_page(unit, unit.top(2)))
        assert label in words_on(spectrum_page(unit, unit.top(2, "spectrum"), column))
        assert label in words_on(similar_page(index.similar(unit.unit, k=2)))
        strips = words_on(strips_page([(unit, unit.top(2))], 2))
        assert f"Labels: {origin}" in strips
        assert f"{unit.name} · {unit.evidence}" in strips
        fires = index.fires(index.store.image(0).path, layer=LABELED, k=24)
        assert f"Labels: {origin}" in words_on(fires_page(fires, [fired.unit.top(2) for fired in fires.units]))
    rename.give(patchmine.open_index(named), Unit("colour", 1), "koi")
    unit = patchmine.open_index(named).unit("koi")
    assert "Named by a person" in words_on(grid_page(unit, unit.top(1)))
    assert "Named by a person: koi." in words_on(strips_page([(unit, unit.top(1))], 1))
    plain = next(unit for unit in unit.index.units() if not unit.label)
    assert f"{plain.name} no label; commonest class in the top 20: " in words_on(grid_page(plain, plain.top(1)))
    plain = next(unit for unit in unit_of(predicted) if not unit.label)
    assert "no label; commonest predicted class in the top 7: " in words_on(grid_page(plain, plain.top(1)))


def test_the_network_is_not_asked_where_a_class_is_known():
    network = models.load("shapes")
    assert predictor(network, [Entry("a.png", None)]) is not None
    assert predictor(network, [Entry("a.png", None), Entry("b.png", "x")]) is None


def complete(line, folder, **environment):
    words = line.split(" ")
    program = "import sys; sys.argv = ['patchmine']; from patchmine.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "_PATCHMINE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def test_the_shell_completes_units_layers_and_names(named, tmp_path):
    unit = labeled_unit(named)
    assert unit.name in complete(f"patchmine top --unit {unit.name[:3]}", tmp_path)
    assert complete("patchmine top --unit colour:1", tmp_path)[0] == "colour:1"
    assert complete("patchmine units --layer th", tmp_path) == [LABELED]
    assert unit.name in complete(f"patchmine name {unit.name[:3]}", tmp_path)
    only = complete("patchmine top --layer colour --unit ", tmp_path)
    assert len(only) == patchmine.open_index(named).layers["colour"]
    assert complete("patchmine top --unit fi", tmp_path / "..") == []
    assert complete("patchmine top --unit fi", tmp_path, PATCHMINE_INDEX="nothing") == []
