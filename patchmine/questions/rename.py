"""Names and labels that an index gets after it was built: what `patchmine name` does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from patchmine.errors import StoreError, UnitError
from patchmine.labels import of_index
from patchmine.reading.opened import Index
from patchmine.units import Unit


def give(index: Index, unit: Unit, name: str | None) -> None:
    """Call a unit that, or take its name away. Raises UnitError for a name that means something else."""
    given = dict(index.names_file.given)
    if name is not None:
        index.names.check(unit, name)
        given[str(unit)] = name
    elif given.pop(str(unit), None) is None:
        raise UnitError(f"{unit} has been given no name; patchmine name lists those that have")
    replace(index.names_file, given=given).write(index.directory)


def label_anew(index: Index, file: Path | None = None) -> dict[str, Any]:
    """Compute the labels of all units from the table and keep them in names.json; activations.h5 stays as it is.

    `file` names the classes of photographs as `index --labels` takes them. Returns what to say of the labels. Raises
    StoreError without a table, SourceError where the file does not fit the photographs.
    """
    if not index.store.has_table:
        raise StoreError(f"{index.name} was built with --no-table, and labels are computed from the table")
    classes = None
    if file is not None:
        from patchmine.labels.label_file import classified
        from patchmine.sources import Entry

        entries = classified([Entry(record.path, None) for record in index.store.records()], file)
        classes = [entry.class_name for entry in entries]
    found = of_index.of_store(index.store, classes)
    about = found.about if file is None else {**found.about, "file": file.name}
    index.names_file.with_labels(index.store, replace(found, about=about)).write(index.directory)
    return about
