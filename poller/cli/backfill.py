"""`poller backfill`: pictures that never came are looked for in the bucket."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.client import request, show_each
from poller.cli.common import Config
from poller.core.moments import FORMS, parse_moment
from poller.daemon.signals import Stop

if TYPE_CHECKING:
    from poller.control import Row
    from poller.core.selection import Selection
    from poller.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def backfill(
    context: typer.Context,
    config: Config,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"Pictures taken since then: {FORMS}.", show_default="1h"),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Pictures taken until then.", show_default="now")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(metavar="ID", help="Only pictures of this stream.", show_default=False)
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this account.", show_default="all with keys")
    ] = None,
    json: Json = False,
) -> None:
    """Look in the bucket for pictures that never came, and put them in.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 78 bad configuration.
    """
    from poller.core.selection import Selection

    chosen = Selection(
        account=account,
        stream=stream,
        taken_since=_time(since, "--since"),
        taken_until=_time(until, "--until"),
    )
    ask_backfill(context.obj, config, chosen, json)


def _time(text: str | None, option: str) -> datetime | None:
    try:
        return None if text is None else parse_moment(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


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
