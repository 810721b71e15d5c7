"""`similar` and `fires`: equal to brute force over the table and the vectors, whatever has become of patches.faiss."""

import csv
import io
import json
import os
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.defaults import Wanted
from patchmine.errors import RequestError, SourceError, StoreError, UnitError
from patchmine.models.shapes import MEANINGS
from patchmine.questions import similar
from patchmine.questions.fires import percentiles
from patchmine.sources import open_source
from patchmine.store import neighbors, patches_faiss
from patchmine.store import reading as store
from patchmine.units import Box
from tests.support.commands import failed

LAYER, UNIT = "thing", "thing:3"
RESUMED = ("--model", "shapes", "--layers", "colour", "--layers", LAYER, "--keep", "10")


@pytest.fixture
def own(shapes_index_dir, tmp_path):
    """An index to change."""
    return shutil.copytree(shapes_index_dir, tmp_path / "own.patchmine")


@pytest.fixture(scope="module")
def real(photographs, tmp_path_factory):
    """An index of files; a third of the photographs is kept in none of the units' few best."""
    directory = tmp_path_factory.mktemp("real") / "x.patchmine"
    patchmine.build_index(photographs, directory, Wanted(model="shapes", keep=8))
    return directory


@pytest.fixture
def picture(tmp_path):
    """A drawn picture that is in no index, as a file, and what is in it."""
    drawn = open_source("shapes:3@7")
    file = tmp_path / "drawn.png"
    file.write_bytes(drawn.read("000002.png"))
    return file, drawn.truth(2)


def stored(index, layer=LAYER):
    """Vectors in float64 of length 1, with their images and places."""
    kept, images, places = index.store.vectors(layer)
    unit = kept[:].astype(np.float64)
    return unit / np.linalg.norm(unit, axis=1, keepdims=True), images, places


def brute(index, query, k, several, layer=LAYER):
    """(image, place, cosine) of the nearest, computed over all of them."""
    unit, images, places = stored(index, layer)
    cosine = unit @ (query / np.linalg.norm(query))
    found, seen = [], set()
    for row in np.lexsort((np.arange(len(cosine)), -cosine)):
        if several or images[row] not in seen:
            seen.add(images[row])
            found.append((int(images[row]), int(places[row]), cosine[row]))
    return found[:k]


def vector_of_best(index, unit):
    best = unit.top(1)[0]
    width = index.field(unit.unit.layer).grid[1]
    kept, images, places = stored(index, unit.unit.layer)
    return kept[(images == best.image_id) & (places == best.position.y * width + best.position.x)][0]


def answer(found, index):
    width = index.field(found.layer).grid[1]
    return [(p.image_id, p.position.y * width + p.position.x) for p in found.patches]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", [UNIT, "template:5", "colour:5"])
def test_nearest_patches_are_those_of_a_search_by_hand(shapes_index, name, several):
    unit = shapes_index.unit(name)
    query = vector_of_best(shapes_index, unit)
    for k in (1, 6, 10_000):
        found = shapes_index.similar(name, k=k, several=several)
        expected = brute(shapes_index, query, k, several, unit.unit.layer)
        # Places of one drawn picture may be alike to the last bit; their cosines are what is ranked.
        assert np.allclose(found.similarities, [cosine for _, _, cosine in expected], atol=2e-6)
        assert found.similarities == sorted(found.similarities, reverse=True)
        assert len(found.patches) == len(expected)
        if not several:
            assert len({patch.image_id for patch in found.patches}) == len(found.patches)
    assert found.similarities[0] == pytest.approx(1, abs=1e-6)
    assert len(found.patches) > 10


def test_each_patch_is_the_one_of_a_unit_that_ranks_it_highest(shapes_index):
    for patch in shapes_index.similar(UNIT, k=8).patches:
        own_rank = {p.image_id: (p.rank, p) for p in shapes_index.unit(str(patch.unit)).top(10)}[patch.image_id]
        assert own_rank[1].value == patch.value
        assert own_rank[1].position == patch.position
        assert own_rank[1].box == patch.box
        for other in shapes_index.units(LAYER):
            for p in other.top(10):
                if (p.image_id, p.position) == (patch.image_id, patch.position):
                    assert (own_rank[0], patch.unit.channel) <= (p.rank, other.unit.channel)


def test_units_go_together_as_their_columns_correlate(shapes_index):
    found = shapes_index.similar(UNIT, k=10_000).units
    names = [(layer, channel) for layer, count in shapes_index.layers.items() for channel in range(count)]
    columns = np.concatenate([shapes_index.store.table(layer)[0] for layer in shapes_index.layers], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(columns.T.astype(np.float64))
    mine = matrix[names.index((LAYER, 3))]
    expected = {
        name: value for name, value in zip(names, mine, strict=True) if np.isfinite(value) and name != (LAYER, 3)
    }
    assert {(u.unit.layer, u.unit.channel): s for u, s in found} == pytest.approx(expected, abs=1e-6)
    similarities = [similarity for _, similarity in found]
    assert similarities == sorted(similarities, reverse=True)
    assert [str(u.unit) for u, _ in shapes_index.similar(UNIT, k=3).units] == [str(u.unit) for u, _ in found[:3]]


def test_what_is_not_finite_and_what_never_varies_takes_no_part(own):
    with h5py.File(own / store.ACTIVATIONS, "r+") as file:
        file[f"layers/{LAYER}/value"][5, 3] = np.nan
        file[f"layers/{LAYER}/value"][7, 4] = np.inf
        file[f"layers/{LAYER}/value"][:, 6] = 0.3
    index = patchmine.open_index(own)
    table = index.store.table(LAYER)[0].astype(np.float64)
    found = {u.unit.channel: s for u, s in similar.correlated(index.unit(UNIT), 10_000) if u.unit.layer == LAYER}
    assert 6 not in found
    assert 3 not in found
    rows = np.isfinite(table[:, 3]) & np.isfinite(table[:, 4])
    assert rows.sum() == len(table) - 2
    assert found[4] == pytest.approx(np.corrcoef(table[rows, 3], table[rows, 4])[0, 1], abs=1e-9)


def test_without_a_table_patches_are_found_and_units_are_not(tmp_path):
    patchmine.build_index("shapes:20", tmp_path / "n.patchmine", Wanted(model="shapes", keep=5, table=False))
    index, notes = patchmine.open_index(tmp_path / "n.patchmine"), []
    found = index.similar(UNIT, k=4, note=notes.append)
    assert (len(found.patches), found.units) == (4, [])
    assert "units cannot be compared" in notes[0]
    with pytest.raises(StoreError, match="--no-table"):
        index.fires("nothing.png")


# patches.faiss


@pytest.fixture(scope="module")
def lists(shapes_index_dir, tmp_path_factory):
    """A patches.faiss with inverted lists."""
    folder = tmp_path_factory.mktemp("lists")
    patches_faiss.build(store.Store(shapes_index_dir), folder, exact=0)
    return folder / store.PATCHES


@pytest.fixture
def listed(own, lists):
    """An index with that file."""
    shutil.copy(lists, own / store.PATCHES)
    return own


def test_the_same_vectors_give_the_same_bytes(listed, own, tmp_path):
    for exact in (0, patches_faiss.EXACT):
        there = tmp_path / str(exact)
        there.mkdir()
        patches_faiss.build(store.Store(own), there, exact)
        again = (there / store.PATCHES).read_bytes()
        patches_faiss.build(store.Store(own), there, exact)
        assert (there / store.PATCHES).read_bytes() == again
    assert (listed / store.PATCHES).read_bytes() == (tmp_path / "0" / store.PATCHES).read_bytes() != again


def test_an_approximate_index_finds_most_and_says_how_much(listed):
    notes = []
    index = patchmine.open_index(listed)
    nearby = neighbors.Neighbors(index.store, notes.append)
    assert not notes
    plan = nearby.plan(LAYER)
    assert plan.factory == f"IVF{plan.lists},PQ{plan.parts}"
    assert plan.parts == -(-plan.channels // 4)
    assert 1 <= plan.probes < plan.lists
    assert plan.depth >= patches_faiss.AT
    assert plan.recall >= patches_faiss.RECALL
    unit, _, _ = stored(index)
    right = np.argsort(-(unit @ unit.T), axis=1, kind="stable")
    shares = []
    for row, query in enumerate(unit.astype(np.float32)):
        rows, cosines = nearby.nearest(LAYER, query, patches_faiss.AT)
        assert len(np.unique(rows)) == len(rows) == patches_faiss.AT
        assert np.allclose(cosines, unit[rows] @ unit[row], atol=2e-6)
        # As good as the tenth: drawn pictures hold places that are alike.
        tenth = unit[row] @ unit[right[row, patches_faiss.AT - 1]]
        shares.append((unit[rows] @ unit[row] >= tenth - 1e-5).mean())
    assert np.mean(shares) >= 0.95
    # However few lists are looked into, as many rows are found as are wanted: all of them, if need be.
    assert sorted(nearby.nearest(LAYER, unit[0].astype(np.float32), 10**6)[0]) == list(range(len(unit)))


def test_index_and_info_print_the_recall_of_a_layer_with_many_vectors(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(patches_faiss, "EXACT", 100)
    out = tmp_path / "many.patchmine"
    report = patchmine.build_index("shapes:20", out, Wanted(model="shapes", layers=("colour", LAYER), keep=10))
    plans = neighbors.Neighbors(store.Store(out), pytest.fail)
    assert [layer["layer"] for layer in report.as_dict()["layers"] if "search" in layer]
    manifest = json.loads(cli("info", "-i", out, "--json").stdout)
    shown = [cli("info", "-i", out).stdout, cli("index", "shapes:20", "-o", out, *RESUMED).stdout]
    for layer in manifest["layers"]:
        plan = plans.plan(layer["layer"])
        assert ("search" in layer) == (plan.vectors > 100)
        if plan.lists:
            assert layer["search"].items() <= vars(plan).items()
            line = f"similar in {layer['layer']}: finds {plan.recall:.1%} of the ten nearest of {plan.vectors} patches"
            assert all(line in text.splitlines() for text in shown)


def header_of(path):
    data = path.read_bytes()
    line, _, rest = data.partition(b"\n")
    return json.loads(line), rest


def with_header(path, change):
    header, rest = header_of(path)
    change(header)
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest)


def place_of_starts(plan):
    """Where the starts of the first layer begin: behind its centers and centroids."""
    return 4 * plan["lists"] * plan["channels"] + 4 * 256 * 4 * plan["parts"]


def twice_a_row(path):
    """The lists of the first layer hold one vector twice and another one not at all."""
    header, rest = header_of(path)
    first = next(iter(header["layers"].values()))
    at = place_of_starts(first) + 8 * (first["lists"] + 1)
    rest = rest[:at] + rest[at + 4 : at + 8] + rest[at + 4 :]
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest)


def nan_in_a_center(path):
    header, rest = header_of(path)
    path.write_bytes(json.dumps(header).encode() + b"\n" + b"\xff" * 4 + rest[4:])


def a_start_beyond(path):
    header, rest = header_of(path)
    first = next(iter(header["layers"].values()))
    at = place_of_starts(first) + 8
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest[:at] + b"\xff" * 8 + rest[at + 8 :])


def other_codes(path):
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + data[-2000:][::-1])


def a_fifo(path):
    path.unlink()
    os.mkfifo(path)


SPOILED = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "of the older kind": lambda path: with_header(path, lambda h: h["layers"].update({LAYER: [0, 100]})),
    "of another job": lambda path: with_header(path, lambda h: h.update(job="0" * 32)),
    "of other vectors": lambda path: with_header(path, lambda h: h["layers"][LAYER].update(digest="0" * 32)),
    "claims more": lambda path: with_header(path, lambda h: h["layers"][LAYER].update(vectors=10**9)),
    "claims lists": lambda path: with_header(path, lambda h: h["layers"][LAYER].update(lists=10**6)),
    "claims a recall": lambda path: with_header(path, lambda h: h["layers"][LAYER].update(recall=2)),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a vector twice": twice_a_row,
    "nonsense in a center": nan_in_a_center,
    "a list beyond the end": a_start_beyond,
    "other vectors": other_codes,
    "a fifo": a_fifo,
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_missing_or_spoiled_file_is_built_again_and_the_answer_is_right(listed, how):
    index = patchmine.open_index(listed)
    expected = brute(index, vector_of_best(index, index.unit(UNIT)), 6, False)
    SPOILED[how](listed / store.PATCHES)
    notes = []
    found = index.similar(UNIT, k=6, note=notes.append)
    assert np.allclose(found.similarities, [cosine for _, _, cosine in expected], atol=2e-6)
    assert len(notes) == 1
    assert "patches.faiss is missing" in notes[0] or "patches.faiss cannot be used (" in notes[0]
    assert "building it again" in notes[0]
    index.similar(UNIT, k=6, note=notes.append)
    assert len(notes) == 1
    assert [path.name for path in listed.glob(".*")] == []


def test_where_nothing_can_be_written_all_vectors_are_compared(own, monkeypatch):
    index = patchmine.open_index(own)
    expected = index.similar(UNIT, k=6)
    (own / store.PATCHES).unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(neighbors, "build", full)
    notes = []
    found = index.similar(UNIT, k=6, note=notes.append)
    assert answer(found, index) == answer(expected, index)
    assert found.similarities == expected.similarities
    assert "No space left on device" in notes[1]
    assert "comparing all vectors instead" in notes[1]


def test_a_planted_link_is_not_followed(own, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for kind in ("tmp", "body.tmp"):
        (own / f".{store.PATCHES}.{os.getpid()}.{kind}").symlink_to(victim)
    (own / store.PATCHES).unlink()
    assert len(patchmine.open_index(own).similar(UNIT, k=3).patches) == 3
    assert victim.read_text() == "mine"


def test_a_file_that_lies_invents_no_similarity(own):
    """Codes between those that are looked at are exchanged: what is found has the cosine that it really has."""
    path = own / store.PATCHES
    header, rest = header_of(path)
    sizes = {layer: 2 * plan["vectors"] * plan["channels"] for layer, plan in header["layers"].items()}
    start = sum(list(sizes.values())[: list(sizes).index(LAYER)])
    codes = np.frombuffer(rest[start : start + sizes[LAYER]], np.float16).reshape(
        -1, header["layers"][LAYER]["channels"]
    )
    codes = codes.copy()
    spot = np.unique(np.linspace(0, len(codes) - 1, 16).astype(int))
    others = np.setdiff1d(np.arange(len(codes)), spot)
    codes[others] = codes[np.roll(others, 7)]
    path.write_bytes(
        json.dumps(header).encode() + b"\n" + rest[:start] + codes.tobytes() + rest[start + sizes[LAYER] :]
    )
    index, notes = patchmine.open_index(own), []
    found = index.similar(UNIT, k=20, note=notes.append)
    assert not notes
    unit, images, places = stored(index)
    query = vector_of_best(index, index.unit(UNIT))
    true = {(int(i), int(p)): c for i, p, c in zip(images, places, unit @ query, strict=True)}
    assert found.similarities == pytest.approx([true[at] for at in answer(found, index)], abs=2e-6)
    assert answer(found, index) != [(image, place) for image, place, _ in brute(index, query, 20, False)]


# Photographs


def test_a_photograph_of_the_index_finds_itself_first(real, photographs):
    index = patchmine.open_index(real)
    files = sorted(path for path in photographs.rglob("*") if path.is_file())[::2]
    for layer in (None, "contrast"):
        _, images, _ = index.store.vectors(layer or LAYER)
        kept = {index.store.image(int(image)).path for image in np.unique(images)}
        notes, found = [], 0
        for file in files:
            name = str(file.relative_to(photographs))
            best = index.similar(image=file, layer=layer, k=2, note=notes.append)
            if name in kept:
                assert best.patches[0].image == name
                assert best.similarities[0] > 0.9999
                found += 1
        assert found == len(kept & set(map(str, (file.relative_to(photographs) for file in files)))) > 3
        assert len(notes) == len(files) - found
        assert all("none of its places" in note for note in notes)


def test_a_photograph_may_be_named_by_its_path_in_the_index(real, photographs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    index = patchmine.open_index(real)
    name = index.store.image(0).path
    one, other = index.similar(image=name), index.similar(image=photographs / name)
    assert answer(one, index) == answer(other, index)


def test_a_box_is_the_mean_of_the_positions_in_it(picture, shapes_index):
    from patchmine.questions.look import look

    file, _ = picture
    sight = look(shapes_index, file, ["template"])
    box = Box(60, 40, 130, 111)
    placement, grid = sight.placement, sight.maps["template"].shape[1:]
    group = sight.fields["template"].groups[0]
    inside = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            # The middle of the field before clipping, in source pixels, by hand.
            down = (group.offset[0] + y * group.stride[0] + group.size[0] / 2 + placement.top) * (
                placement.source[1] / placement.resized[1]
            )
            across = (group.offset[1] + x * group.stride[1] + group.size[1] / 2 + placement.left) * (
                placement.source[0] / placement.resized[0]
            )
            if box.left <= across < box.right and box.top <= down < box.bottom:
                inside.append((y, x))
    assert len(inside) > 20
    found = shapes_index.similar(image=file, box=box, layer="template", k=4)
    assert [(p["y"], p["x"]) for p in found.query["positions"]] == inside
    mean = np.mean([sight.maps["template"][:, y, x] for y, x in inside], axis=0).astype(np.float64)
    expected = brute(shapes_index, mean, 4, False, "template")
    assert found.similarities == pytest.approx([cosine for _, _, cosine in expected], abs=1e-5)
    tiny = shapes_index.similar(image=file, box=Box(190, 90, 191, 91), layer="template", k=1)
    assert len(tiny.query["positions"]) == 1


@pytest.mark.parametrize("side", [6, 40, 120])
def test_a_box_is_compared_in_the_layer_that_sees_as_much(picture, shapes_index, side):
    """In pixels of the input, which this picture is resized to; the side is in pixels of the photograph."""
    file, _ = picture
    notes = []
    found = shapes_index.similar(image=file, box=Box(110, 40, 110 + side, 40 + side), k=1, note=notes.append)
    scale = found.sight.placement.resized[0] / found.sight.placement.source[0]
    sizes = {layer: shapes_index.field(layer).effective_size(0.95) for layer in shapes_index.layers}
    assert None not in sizes.values()
    apart = {layer: abs(size - side * scale) for layer, size in sizes.items()}
    assert apart[found.layer] == pytest.approx(min(apart.values()), abs=0.6)
    assert found.query["layer"] == found.layer
    assert notes[0].startswith(f"compared in {found.layer}, ")
    other = shapes_index.similar(image=file, box=Box(60, 40, 130, 111), layer="template", k=1, note=notes.append)
    assert other.layer == "template"
    assert len([note for note in notes if note.startswith("compared in")]) == 1


def test_a_box_around_a_shape_finds_that_shape(picture, shapes_index):
    file, truth = picture
    shape, colour, box = truth[0]
    middle_y, middle_x = (box.top + box.bottom) // 2, (box.left + box.right) // 2
    small = Box(middle_x - 3, middle_y - 3, middle_x + 3, middle_y + 3)
    found = shapes_index.similar(image=file, box=small, layer=LAYER, k=2)
    assert [patch.class_name for patch in found.patches] == [f"{colour} {shape}"] * 2


def test_fires_counts_as_one_would_by_hand(picture, shapes_index):
    file, _ = picture
    found = shapes_index.fires(file, k=10_000)
    assert len(found.units) == sum(shapes_index.layers.values()) == found.of
    for fired in found.units:
        column, _ = shapes_index.store.column(fired.unit.unit.layer, fired.unit.unit.channel)
        value = np.float32(fired.patch.value)
        by_hand = sum(1.0 if other < value else 0.5 if other == value else 0.0 for other in column) / len(column)
        assert fired.percentile == by_hand
        std = column.std(dtype=np.float64)
        if std > 1e-6:
            assert fired.deviation == pytest.approx((value - column.mean(dtype=np.float64)) / std, rel=1e-3, abs=1e-3)
        assert np.max(found.sight.maps[fired.unit.unit.layer][fired.unit.unit.channel]) == value
    order = [(-fired.percentile, -fired.deviation) for fired in found.units]
    assert order == sorted(order)
    assert [fired.patch.rank for fired in found.units] == list(range(1, len(order) + 1))
    few = shapes_index.fires(file, layer=LAYER, k=4)
    assert [str(f.unit.unit) for f in few.units] == [
        str(f.unit.unit) for f in found.units if f.unit.unit.layer == LAYER
    ][:4]


def test_what_fires_is_what_is_in_the_picture(picture, shapes_index):
    file, truth = picture
    shape, colour, box = truth[0]
    things = shapes_index.fires(file, layer=LAYER, k=24).units
    unit = MEANINGS[LAYER].index(f"{colour} {shape}")
    (fired,) = [fired for fired in things if fired.unit.unit.channel == unit]
    assert fired.percentile > 0.9
    assert fired.patch.rank <= 3
    effective = shapes_index.fires(file, layer=LAYER, k=24, crop="erf").units[fired.patch.rank - 1].patch
    x, y = (box.left + box.right) // 2, (box.top + box.bottom) // 2
    assert effective.box.contains(Box(x, y, x + 1, y + 1))
    assert effective.crop().size == (effective.box.width, effective.box.height)


def test_percentiles_of_equal_and_missing_values(own):
    with h5py.File(own / store.ACTIVATIONS, "r+") as file:
        value = file[f"layers/{LAYER}/value"]
        value[:, 0] = np.repeat([1.0, 2.0, 3.0], [12, 24, 12])
        value[:, 1] = np.nan
        value[:, 2] = np.append([np.nan], np.arange(47))
    values = np.array([2, 0, 10.5, np.nan, *np.zeros(20)], np.float32)
    found = percentiles(patchmine.open_index(own), LAYER, values)
    assert found[0] == 0.5
    assert found[2] == 11 / 47
    assert np.isnan(found[[1, 3]]).all()


def test_a_photograph_seen_whole_in_a_size_that_the_index_has_not(photographs, tmp_path):
    out = tmp_path / "w.patchmine"
    patchmine.build_index(photographs, out, Wanted(model="shapes", view="whole", keep=5, layers=("contrast", "shape")))
    file = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (180, 230, 3), np.uint8)).save(file)
    index = patchmine.open_index(out)
    (fired, *_) = index.fires(file, k=1).units
    assert Box(0, 0, 230, 180).contains(fired.patch.box)
    assert len(index.similar(image=file, k=3).patches) == 3


# The command line


def test_similar_json_is_the_contract(cli, shapes_index_dir):
    words = ("similar", "-i", shapes_index_dir, "--unit", UNIT, "-k", 3)
    document = json.loads(cli(*words, "--json").stdout)
    assert document.keys() >= {"query", "patches", "units"}
    top = json.loads(cli("top", "-i", shapes_index_dir, "--unit", UNIT, "-k", 1, "--json").stdout)
    assert document["patches"][0].keys() == top["patches"][0].keys() | {
        "layer",
        "channel",
        "name",
        "label",
        "similarity",
    }
    assert document["query"]["patch"] == top["patches"][0]
    assert [patch["rank"] for patch in document["patches"]] == [1, 2, 3]
    assert document["units"][0].keys() >= {"layer", "channel", "name", "similarity"}
    rows = list(csv.DictReader(io.StringIO(cli(*words, "--csv").stdout)))
    assert [float(row["similarity"]) for row in rows] == [patch["similarity"] for patch in document["patches"]]
    table = cli(*words).stdout
    assert all(patch["image"] in table for patch in document["patches"])
    assert "units that correlate with" in table


def test_fires_json_is_the_contract(cli, shapes_index_dir, picture):
    words = ("fires", picture[0], "-i", shapes_index_dir, "-k", 3)
    document = json.loads(cli(*words, "--json").stdout)
    assert document.keys() >= {"image", "units"}
    assert len(document["units"]) == 3
    assert document["units"][0].keys() >= {"layer", "channel", "name", "value", "percentile", "position", "box"}
    rows = list(csv.DictReader(io.StringIO(cli(*words, "--csv").stdout)))
    assert [float(row["percentile"]) for row in rows] == [unit["percentile"] for unit in document["units"]]
    assert "percentile" in cli(*words).stdout


def test_the_missing_file_is_said_on_stderr(cli, own):
    (own / store.PATCHES).unlink()
    done = cli("similar", "-i", own, "--unit", UNIT, "--json")
    assert len(json.loads(done.stdout)["patches"]) == 25
    assert "patches.faiss is missing; building it again" in done.stderr
    assert (own / store.PATCHES).is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["similar"], "give exactly one of --unit U and --image FILE"),
        (["similar", "--unit", UNIT, "--image", "{photo}"], "give exactly one of --unit U and --image FILE"),
        (["similar", "--unit", UNIT, "--box", "1,2,3,4"], "--box selects a part of --image"),
        (["similar", "--unit", "thong:3"], "did you mean thing"),
        (["similar", "--unit", UNIT, "-k", 0], "-k must be at least 1, not 0"),
        (["similar", "--unit", UNIT, "--crop", "erg"], "did you mean erf"),
        (["similar", "--image", "{photo}", "--layer", "thong"], "did you mean thing"),
        (["similar", "--image", "{photo}", "--box", "1,2,3"], "--box 1,2,3 is not a box: write left,top,right,bottom"),
        (["similar", "--image", "{photo}", "--box", "10,10,5000,200"], "give L,T,R,B within 0,0,{size}"),
        (["similar", "--image", "{photo}", "--box", "30,30,30,60"], "with L < R"),
        (["similar", "--image", "{photo}", "--box", "0,0,2,2"], "choose a box within "),
        (["similar", "--image", "drawm.png"], "did you mean drawn.png"),
        (["similar", "--image", "no/such.png"], "folder 'no' not found"),
        (["similar", "--image", "."], "is a folder"),
        (["similar", "--image", "broken.jpg"], "cannot be decoded"),
        (["similar", "--unit", UNIT, "-o", "x.gif"], "end its name in"),
        (["similar", "--unit", UNIT, "--json", "--csv"], "exclude each other"),
        (["fires", "{photo}", "--layer", "thong"], "did you mean thing"),
        (["fires", "drawm.png"], "did you mean drawn.png"),
        (["fires", "broken.jpg"], "cannot be decoded"),
        (["fires", "{photo}", "-k", 0], "-k must be at least 1, not 0"),
        (["fires", "{photo}", "--crop", "erg"], "did you mean erf"),
        (["fires", "{photo}", "--model", "timm:resnet18"], "built with --model shapes"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_says_what_to_type(cli, shapes_index_dir, picture, words, reason):
    file, _ = picture
    (file.parent / "broken.jpg").write_bytes(b"\xff\xd8\xff" + b"no picture" * 9)
    with Image.open(file) as opened:
        size = ",".join(map(str, opened.size))
    words = [word.format(photo=file.name) if isinstance(word, str) else word for word in words]
    assert reason.format(size=size) in failed(cli(words[0], *words[1:], "-i", shapes_index_dir))


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_sheets_are_drawn(cli, shapes_index_dir, picture, suffix):
    for number, words in enumerate(
        (
            ("similar", "--unit", UNIT, "-k", 7),
            ("similar", "--image", picture[0], "-k", 3),
            ("similar", "--image", picture[0], "--box", "60,60,120,110", "-k", 3),
            ("fires", picture[0], "-k", 9),
        )
    ):
        out = f"{number}.{suffix}"
        done = cli(*words, "-i", shapes_index_dir, "-o", out)
        assert done.returncode == 0, done.stderr
        assert (picture[0].parent / out).stat().st_size > 2000


def test_the_sheet_shows_what_the_network_did_not_see_paler(picture, shapes_index):
    from patchmine.sheets.boxed import COLORS, photograph_picture

    sight = shapes_index.fires(picture[0], k=1).sight
    drawn = np.asarray(photograph_picture(sight.data, sight.placement, [Box(70, 60, 140, 130)], (200, 200)).image)
    plain = np.asarray(Image.open(picture[0]).convert("RGB").resize(drawn.shape[1::-1], Image.Resampling.LANCZOS))
    corner = (drawn[1, 1].astype(int) - plain[1, 1]).mean()
    assert corner > 30
    middle = (slice(drawn.shape[0] // 2 - 4, drawn.shape[0] // 2), slice(drawn.shape[1] // 2 - 4, drawn.shape[1] // 2))
    assert np.abs(drawn[middle].astype(int) - plain[middle]).mean() < 8
    frame = tuple(int(COLORS[0][i : i + 2], 16) for i in (1, 3, 5))
    assert (drawn.reshape(-1, 3) == frame).all(1).sum() > 300


def test_the_python_way_refuses_as_the_command_does(shapes_index):
    with pytest.raises(RequestError, match="give exactly one of"):
        shapes_index.similar()
    with pytest.raises(SourceError, match="photograph 'nothing.png' not found"):
        shapes_index.similar(image="nothing.png")
    with pytest.raises(UnitError, match="no layer 'x'"):
        shapes_index.fires("nothing.png", layer="x")
    assert "<figure" in shapes_index.similar(UNIT, k=2)._repr_html_()
