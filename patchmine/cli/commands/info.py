"""`patchmine info`."""

from __future__ import annotations

from patchmine.cli import options


def info(index: options.IndexDir = None, json: options.Json = False) -> None:
    """Show the contents of an index and how it was built.

    Example: `patchmine info -i imagenet-val.patchmine`
    """
    from patchmine.cli.output import print_json, print_line
    from patchmine.cli.summary import print_layers, print_passed
    from patchmine.index import open_index
    from patchmine.labels.class_hints import census
    from patchmine.labels.of_index import naming, naming_text, said
    from patchmine.reading.answers import counted
    from patchmine.relevance.kept import described, relevance
    from patchmine.sources import Entry

    opened = open_index(index)
    if json:
        names = naming(opened.labels.about, opened.layers)
        print_json({"index": opened.name, **opened.manifest, "names": names, "relevance": relevance(opened)})
        return
    manifest, job = opened.manifest, opened.manifest["job"]
    entries = [Entry(record.path, record.class_name) for record in opened.store.records()]
    print_line(
        f"{opened.name}: {counted(manifest['images'], 'photograph', 'photographs')} {census(entries)}, "
        f"{counted(sum(opened.layers.values()), 'unit', 'units')}"
    )
    print_line(f"source     {job['source']}")
    print_line(f"model      {job['model']} ({job['executor']}, {job['device']}, {job['precision']})")
    print_line(
        f"kept       top {job['keep']} of each unit" + (" and all activations" if job["table"] else "; no table")
    )
    about = opened.labels.about
    share = f" ({counted(about['units'], 'unit has', 'units have')} one)" if "units" in about else ""
    print_line(f"labels     {said(about)}{share}")
    named = naming_text(about, opened.layers)
    if named is not None:
        print_line(f"names      {named}")
    took = f"in {manifest['seconds']:.0f} s " if "seconds" in manifest else ""
    print_line(f"built      {took}by patchmine {manifest['versions']['patchmine']}")
    print_layers(manifest)
    for line in described(opened):
        print_line(line)
    print_passed(manifest.get("passed_over", {}), manifest.get("left_out", []))
