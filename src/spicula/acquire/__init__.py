"""Fetching archives: all that comes is checked, nothing whole is fetched twice, and a kill costs next to nothing.

A request comes down to items (a series, a file). Each is fetched into a folder of its own in `.spicula/partial`,
checked, moved to its place by one rename, and then recorded in `.spicula/items`. What has a record there is whole.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from spicula import files
from spicula.acquire.account import Account
from spicula.acquire.records import OWN
from spicula.acquire.types import Item, Request
from spicula.errors import UsageError
from spicula.progress import say, show_bytes

if TYPE_CHECKING:
    from spicula.acquire.mirror import Mirror
    from spicula.acquire.sources import Plan

__all__ = ["Account", "Request", "download"]


def download(request: Request) -> Account:
    """Fetch what a request asks for into its folder, as far as it is not whole there already.

    Returns:
        How each item ended. It is written into the folder too, as `download.csv`, and what the archive says of every
        series that is there as `metadata.csv`.

    Raises:
        UsageError: there is no such dataset, patient, ..., or an option makes no sense.
        SpiculaError: the archive cannot be reached, the folder cannot be written to or has not enough space, or another
            download works in it.
    """
    from spicula.acquire import metadata, records, sources
    from spicula.acquire.mirror import Mirror
    from spicula.acquire.run import run

    if request.fill_mirror and not request.mirror:
        raise UsageError("--fill-mirror needs --mirror URL: which one to fill")
    plan = sources.resolve(request)
    with files.locked(
        request.to / OWN / "lock", f"another download works in {request.to}: wait for it, or choose another --to"
    ):
        records.sweep(request.to)
        mirror = Mirror(request.mirror) if request.mirror else None
        items = _items(request, plan, mirror)
        note = ". ".join(part for part in (f"terms: {plan.terms}" if plan.terms else "", plan.note) if part)
        say(f"{request.what}: {len(items):,} items, {_size(items)}, into {request.to}{f'; {note}' if note else ''}")
        rows = run(items, request.to, jobs=request.jobs, mirror=mirror, fill_mirror=request.fill_mirror)
        account = Account(request.to, rows, note)
        account.write()
        described = [item for item in items if item.facts]
        whole = [(item.facts, found) for item in described if (found := records.whole(request.to, item.key))]
        if described:
            metadata.update(request.to, whole)
    return account


def _items(request: Request, plan: "Plan", mirror: "Mirror | None") -> list[Item]:
    """Return what a plan comes down to, each item once."""
    found: list[Item] = []
    if plan.kind == "tcia":
        from spicula.acquire import nbia_listing

        found = nbia_listing.items(request, plan.collection, plan.manifest, mirror)
    elif plan.kind == "idc" and plan.collection:
        from spicula.acquire import idc

        found = idc.items(request, plan.collection)
    if plan.files:
        from spicula.acquire import web

        # Beside a collection, --server and --credentials are for the collection's own service.
        own = request if plan.kind == "web" else replace(request, server=None, credentials=None)
        found = [*web.items(own, plan.files, mirror), *found]
    return list({item.key: item for item in found}.values())


def _size(items: Sequence[Item]) -> str:
    unknown = sum(item.bytes is None for item in items)
    known = f"{show_bytes(sum(item.bytes or 0 for item in items))}"
    return (
        f"{known} and {unknown} of unknown size"
        if 0 < unknown < len(items)
        else "of unknown size"
        if unknown
        else known
    )
