"""Give an index names and labels after it was built: the work of `patchmine name`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from patchmine.errors import StoreError, UnitError
from patchmine.labels import of_index
from patchmine.reading.opened import OpenIndex
from patchmine.system.atomic import unwritable
from patchmine.units import Unit


def give(index: OpenIndex[Any], unit: Unit, name: str | None) -> None:
    """Give a unit a name, or remove its given name if `name` is None.

    Raises UnitError if the name is invalid or already means something else, or if the unit has no name to remove, and
    StoreError if the index cannot be written.
    """
    _refuse_unwritable(index)
    given = dict(index.names_file.given)
    if name is not None:
        index.names.check(unit, name)
        given[str(unit)] = name
    elif given.pop(str(unit), None) is None:
        raise UnitError(f"{unit} has no given name to remove: run patchmine name to list the units that have one")
    replace(index.names_file, given=given).write(index.directory)


def label_anew(index: OpenIndex[Any], file: Path | None = None) -> dict[str, Any]:
    """Compute the labels of all units from the table and write them to names.json; activations.h5 does not change.

    `file` gives the classes of photographs in any format of `index --labels`. Returns the facts about the labels, as
    in `UnitLabels.about`. Raises StoreError without a table or if the index cannot be written, and SourceError if the
    file does not fit the photographs.
    """
    _refuse_unwritable(index)
    if not index.store.has_table:
        raise StoreError(
            f"{index.name} was built with --no-table, but labels are computed from the table: index without --no-table"
        )
    classes = None
    if file is not None:
        from patchmine.labels.label_file import classified
        from patchmine.sources import Entry

        entries = classified([Entry(record.path, None) for record in index.store.records()], file)
        classes = [entry.class_name for entry in entries]
    found = of_index.of_store(index.store, classes)
    about = found.about if file is None else {**found.about, "file": file.name}
    index.names_file.with_labels(index.store, found._replace(about=about)).write(index.directory)
    return about


def _refuse_unwritable(index: OpenIndex[Any]) -> None:
    """Find out before the work whether names.json can be written."""
    why = unwritable(index.directory)
    if why is not None:
        raise StoreError(f"{index.name} cannot be written ({why}): name units in a copy of it")
