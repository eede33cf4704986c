"""What is right by itself and wrong beside the rest of the file. Pure, but for a look at what lies at paths."""

import difflib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from poller.runtime import plugins
from poller.runtime.outbound import AddressGuard, literal_address
from poller.settings.fields import Listen
from poller.settings.sections import Settings, SinkSettings
from poller.settings.yaml import Path as Trail

Contradiction = tuple[Trail, str]
"""The path of a setting, and the text of what is wrong with it."""

ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound to
INSTALL_OTEL: Final = "pip install 'live-screenshot-poller[otel]'"
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Every contradiction, in no particular order."""
    yield from _starving_sinks(settings)
    yield from _lanes_for_nobody(settings)
    yield from _colliding_ports(settings)
    yield from _paths(settings)
    yield from _nowhere_to_look(settings)
    yield from _pictures_without_urls(settings)
    yield from _pictures_not_shown(settings)
    yield from _buckets_not_listed(settings)
    yield from _sinks_own(settings)
    yield from _unfinished_plugins(settings)
    if settings.tracing is not None and not plugins.otel_is_installed():
        yield (
            ("tracing",),
            f"needs packages that are not installed: {INSTALL_OTEL}; until then nothing is traced",
        )


# ---------------------------------------------------------------- kinds of event


def _starving_sinks(settings: Settings) -> Iterator[Contradiction]:
    """Kinds in `only` that no source gives. Such a sink would wait for ever."""
    given = [source.kinds for source in settings.sources.values()]
    if any(kinds is None for kinds in given):  # a plug-in, which may give anything
        return
    here = frozenset[str]().union(*(kinds for kinds in given if kinds is not None))
    # the audit gives these
    besides = {"gap"} if any(account.audit.enabled for account in settings.accounts.values()) else set()
    for name, sink in settings.sinks.items():
        for index, kind in _wanted_kinds(sink):
            if kind not in here and kind not in besides:
                yield ("sinks", name, "only", "kinds", index), _no_such_kind(kind, here, besides)


def _wanted_kinds(sink: SinkSettings) -> Iterator[tuple[int, str]]:
    if sink.only is not None and sink.only.kinds is not None:
        yield from enumerate(sink.only.kinds)


def _no_such_kind(kind: str, here: frozenset[str], besides: set[str]) -> str:
    near = difflib.get_close_matches(kind, sorted(here | besides), n=1)
    meant = f", did you mean {near[0]}?" if near else f": they give {', '.join(sorted(here))}"
    return f"no source here gives events of the kind {kind}{meant}"


# ---------------------------------------------------------------- lanes


def _lanes_for_nobody(settings: Settings) -> Iterator[Contradiction]:
    """Several lanes of a sink where one lane would do the same."""
    for name, sink in settings.sinks.items():
        if sink.lanes == 1:
            continue
        if not sink.ordered:
            yield (
                ("sinks", name, "lanes"),
                "divides a sink with order: stream, and this one has no order: remove it",
            )
        elif not settings.spool.shared:
            yield (
                ("sinks", name, "lanes"),
                f"divides a sink among daemons that share a spool, and one of type {settings.spool.type} is not "
                "shared: remove it",
            )


# ---------------------------------------------------------------- ports


def _colliding_ports(settings: Settings) -> Iterator[Contradiction]:
    taken: list[tuple[Listen, str]] = []
    for path, listen in _listeners(settings):
        where = ".".join(map(str, path))
        for other, owner in taken:
            if _collide(listen, other):
                yield path, f"{owner} listens on port {other.port} too: give each a port of its own"
        taken.append((listen, where))


def _listeners(settings: Settings) -> Iterator[tuple[Trail, Listen]]:
    if settings.admin is not None:
        yield ("admin", "listen"), settings.admin.listen
    if settings.web is not None:
        yield ("web", "listen"), settings.web.listen
    for name, source in settings.sources.items():
        for field in type(source).model_fields:
            if isinstance(listen := getattr(source, field), Listen):
                yield ("sources", name, field), listen


def _collide(one: Listen, other: Listen) -> bool:
    hosts = {one.host, other.host}
    same = len(hosts) == 1 or bool(hosts & ANY_ADDRESS) or ("localhost" in hosts and hosts <= LOOPBACK_NAMES)
    return one.port == other.port != 0 and same


# ---------------------------------------------------------------- paths

_SPOOLS_OWN: Final = ("", "-wal", "-shm", "-journal", ".lock", ".head", ".clock", ".damaged", ".sock")


def _paths(settings: Settings) -> Iterator[Contradiction]:
    spool, journal = getattr(settings.spool, "path", None), settings.journal.path
    files = [(("spool", "path"), spool), (("journal", "path"), journal)]
    for trail, path in files:
        if isinstance(path, Path) and (wrong := _no_place(path, for_folder=False)):
            yield trail, wrong
    if isinstance(spool, Path) and journal in [spool.with_name(spool.name + end) for end in _SPOOLS_OWN]:
        yield ("journal", "path"), "is the spool's own file: give the journal another"
    for name, sink in settings.sinks.items():
        directory = getattr(sink, "directory", None)
        if isinstance(directory, Path) and (wrong := _no_place(directory, for_folder=True)):
            yield ("sinks", name, "directory"), wrong


def _no_place(path: Path, *, for_folder: bool) -> str:
    """The reason why a path cannot hold a file or folder; empty if it can, or if this process may not look."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"{_first_file(path)} is a file: nothing can be below it"
    except OSError as error:
        reasons = {
            errno.ELOOP: "is a link that leads to itself",
            errno.ENAMETOOLONG: "is too long for a path",
        }
        return reasons.get(error.errno or 0, "")
    if for_folder:
        return "" if stat.S_ISDIR(mode) else "is a file: name a folder"
    if stat.S_ISDIR(mode):
        return "is a folder: name a file in it"
    return "" if stat.S_ISREG(mode) else "is a pipe, a socket or a device: name an ordinary file"


def _first_file(path: Path) -> Path:
    return next(above for above in reversed(path.parents) if not above.is_dir())


# ---------------------------------------------------------------- settings of the account that a source needs


def _nowhere_to_look(settings: Settings) -> Iterator[Contradiction]:
    for name, source in settings.sources.items():
        account = settings.accounts.get(source.account)
        for need in source.needs:
            if account is not None and getattr(account, need) is None:
                yield (
                    ("sources", name, "account"),
                    f"{source.type} builds URLs by {need}, and accounts.{source.account} has none: add it there",
                )


def _pictures_without_urls(settings: Settings) -> Iterator[Contradiction]:
    """Sinks that fetch pictures by URL, where pictures come as bare names and their account has no `cos`."""
    bare = {source.account for source in settings.sources.values() if source.names_pictures}
    for name, sink in settings.sinks.items():
        wanted = {kind for _, kind in _wanted_kinds(sink)}
        if not sink.fetches_pictures or (wanted and "screenshot" not in wanted):
            continue
        for account in sorted(bare & settings.accounts.keys()):
            if settings.accounts[account].cos is None:
                yield (
                    ("sinks", name, "type"),
                    f"{sink.type} fetches pictures by their URLs, and none can be built for accounts.{account}: "
                    "add cos there (bucket and app_id, or base_url)",
                )


def _pictures_not_shown(settings: Settings) -> Iterator[Contradiction]:
    """Picture hosts at addresses that the pages may not fetch from."""
    if settings.web is None:
        return
    guard = AddressGuard(settings.web.allow_cidr)
    for name, account in settings.accounts.items():
        base = account.cos.base_url if account.cos is not None else None
        address = literal_address(urlsplit(base).hostname or "") if base is not None else None
        if address is not None and not guard.allows(address):
            yield (
                ("accounts", name, "cos", "base_url"),
                f"{address} is not a public address: name it in web.allow_cidr, so that the pages show its pictures",
            )


# ---------------------------------------------------------------- keys of a bucket

_FOR_LISTS: Final = ("region", "endpoint", "secret_id", "secret_key", "secret_key_file")


def _buckets_not_listed(settings: Settings) -> Iterator[Contradiction]:
    """Settings that are for listing a bucket, where another one is missing."""
    for name, account in settings.accounts.items():
        cos = account.cos
        missing = ("secret_id", "secret_key", "region") if cos is None else cos.missing_to_list
        if not missing:
            continue
        needs = f"accounts.{name}.cos has no {' and no '.join(missing)}: add it there"
        for setting in _FOR_LISTS:
            if cos is not None and getattr(cos, setting) is not None:
                yield ("accounts", name, "cos", setting), f"is for listing the bucket, and {needs}"
                break
        if account.audit.backfill == "auto":
            yield ("accounts", name, "audit", "backfill"), f"auto lists the bucket, and {needs}"


# ---------------------------------------------------------------- contradictions that a sink reports itself


def _sinks_own(settings: Settings) -> Iterator[Contradiction]:
    for name, sink in settings.sinks.items():
        wanted = {kind for _, kind in _wanted_kinds(sink)}
        accounts = {
            source.account: settings.accounts[source.account]
            for source in settings.sources.values()
            if source.account in settings.accounts
            and (not wanted or source.kinds is None or wanted & source.kinds)
        }
        for setting, text in sink.contradictions(accounts):
            yield ("sinks", name, setting), text


# ---------------------------------------------------------------- plug-ins


def _unfinished_plugins(settings: Settings) -> Iterator[Contradiction]:
    used: list[tuple[plugins.Group, Trail, str]] = [
        *((plugins.SOURCES, ("sources", name), source.type) for name, source in settings.sources.items()),
        (plugins.SPOOLS, ("spool",), settings.spool.type),
        *((plugins.SINKS, ("sinks", name), sink.type) for name, sink in settings.sinks.items()),
    ]
    for group, trail, kind in used:
        if missing := plugins.missing_methods(group, kind):
            yield (*trail, "type"), f"the {kind} plug-in's class has no method {', '.join(missing)}"
