"""Rebuilds the URL of an event from its message and the current settings: a wrong setting can be fixed. Pure."""

from collections.abc import Callable, Mapping

import msgspec

from poller.core.model import Event, with_url
from poller.qcloud.events import screenshots
from poller.qcloud.wire.addresses import Addresses, addresses
from poller.qcloud.wire.messages import UnreadableMessage
from poller.qcloud.wire.urls import host_of, locate
from poller.settings import AccountSettings

RECORDING = "recording"


class _Links(msgspec.Struct, gc=False):
    record_file_url: object = None
    video_url: object = None


_links = msgspec.json.Decoder(_Links).decode


def rebuilder(accounts: Mapping[str, AccountSettings]) -> Callable[[Event], Event]:
    """Return `rebuild` for the events of all these accounts; an event of another account stays as it is."""
    known = {name: addresses(settings) for name, settings in accounts.items()}

    def rebuild_event(event: Event) -> Event:
        return rebuild(event, known[event.account]) if event.account in known else event

    return rebuild_event


def rebuild(event: Event, where: Addresses) -> Event:
    """The event with the URL that its message gives with the current settings. Only `url` changes.

    The event is unchanged if no URL can be built, or if the new URL would leave the account's own hosts.
    Never raises.
    """
    try:
        url = _url(event, where)
    except (UnreadableMessage, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return event
    if url is None or (_is_own_host(event.url, where) and not _is_own_host(url, where)):
        return event
    return with_url(event, url)


def _url(event: Event, where: Addresses) -> str | None:
    if event.kind == screenshots.KIND:
        return screenshots.picture_url(event.message, where.picture_base)
    return _recording_url(event, where) if event.kind == RECORDING else None


def _recording_url(event: Event, where: Addresses) -> str | None:
    """The URL that the message names; else that of the vid."""
    links = _links(event.message)
    for link in (links.record_file_url, links.video_url):
        if isinstance(link, str) and (url := locate(link, None).url) is not None:
            return url
    vid = event.fields.get("vid")
    return where.recording_url(vid) if isinstance(vid, str) and vid else None


def _is_own_host(url: str | None, where: Addresses) -> bool:
    return url is not None and host_of(url) in where.picture_hosts
