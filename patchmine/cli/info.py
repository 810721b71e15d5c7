"""`patchmine info`."""

from __future__ import annotations

from patchmine.cli import options


def info(index: options.IndexDir = None, json: options.Json = False) -> None:
    """What an index holds and how it was made.

    Example: `patchmine info -i imagenet-val.patchmine`
    """
    from patchmine.cli.output import print_json
    from patchmine.cli.summary import print_layers
    from patchmine.index import open_index

    opened = open_index(index)
    if json:
        print_json({"index": opened.name, **opened.manifest})
        return
    manifest, job = opened.manifest, opened.manifest["job"]
    print(f"{opened.name}: {manifest['images']} photographs, {sum(opened.layers.values())} units")
    print(f"source     {job['source']}")
    print(f"model      {job['model']} ({job['executor']}, {job['device']}, {job['precision']})")
    print(f"kept       top {job['keep']} of each unit" + (" and the whole table" if job["table"] else "; no table"))
    print(f"made in    {manifest['seconds']:.0f} s, by patchmine {manifest['versions']['patchmine']}")
    print_layers(manifest)
