import pytest

from patchmine.errors import UnitError
from patchmine.labels.names import Names
from patchmine.units import Unit

CHANNELS = {"blocks.5": 192, "blocks.6": 320, "conv_1": 8}
NAMES = Names(CHANNELS, {Unit("blocks.6", 33): "fish", Unit("blocks.5", 33): "dog"}, {Unit("conv_1", 3): "edge"})


@pytest.mark.parametrize(
    ("word", "unit"),
    [
        ("blocks.6:33", Unit("blocks.6", 33)),
        ("blocks.6_33", Unit("blocks.6", 33)),
        ("conv_1_3", Unit("conv_1", 3)),
        ("fish_33", Unit("blocks.6", 33)),
        ("blocks.6:fish_33", Unit("blocks.6", 33)),
        ("edge", Unit("conv_1", 3)),
        ("unit_300", Unit("blocks.6", 300)),
    ],
)
def test_every_spelling_is_understood(word, unit):
    assert NAMES.resolve(word) == unit


def test_a_name_leads_back_to_its_unit():
    for unit in (Unit("blocks.6", 33), Unit("conv_1", 3), Unit("conv_1", 0)):
        assert NAMES.resolve(NAMES.name(unit), unit.layer) == unit


def test_an_ambiguous_name_lists_the_units_and_layer_settles_it():
    with pytest.raises(UnitError, match=r"blocks\.5:7, blocks\.6:7, conv_1:7: write one of these, or add --layer"):
        NAMES.resolve("unit_7")
    assert NAMES.resolve("unit_7", "blocks.5") == Unit("blocks.5", 7)


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("fihs_33", "fish_33"),
        ("blocks.7:33", "blocks.6"),
        ("blocks.6:320", "channels 0 to 319"),
        ("nonsense", "known"),
        ("blocks.6:", "no unit"),
        ("", "unknown unit"),
        (":5", "unknown layer"),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(word, answer):
    with pytest.raises(UnitError, match=answer):
        NAMES.resolve(word)
