"""`poller audit --backfill`: pictures that never came are looked for in the bucket."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from poller.cli.client import request, show_each
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.control import Row
    from poller.core.selection import Selection
    from poller.settings import Settings


def ask_backfill(stop: Stop, config: Path, chosen: "Selection", json: bool) -> None:
    """Look for the selected pictures (`taken_since`, `taken_until`, `account`, `stream`) and print what was found.

    Progress goes to stderr, and the result to stdout. With `json`, every row goes to stdout. Exits with 1 where the
    bucket cannot be listed.
    """
    show_each(stop, config, request("backfill", selection=chosen), json, _show)


def _show(row: "Row") -> None:
    line = f"account {row['account']}: {row['listed']} keys listed, {row['pictures']} pictures put in"
    typer.echo(line, err=not row["done"])


async def check_lists(settings: "Settings") -> bool:
    """Print for each account with keys whether its bucket can be listed; true if all can."""
    from poller.qcloud.cos.bucket import Bucket, ListingFailed, has_keys
    from poller.qcloud.wire.account import Account

    good = True
    for name, account in settings.accounts.items():
        if not has_keys(account):
            continue
        found = "the bucket can be listed"
        try:
            async with Bucket(name, account, Account(name, account).ready) as bucket:
                await bucket.page("poller-check-")
        except ListingFailed as error:
            found, good = f"the bucket cannot be listed: {error}", False
        typer.echo(f"account {name}: {found}", err=not found.endswith("can be listed"))
    return good
