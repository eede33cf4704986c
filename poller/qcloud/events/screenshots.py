"""Turns a message about a screenshot into an event. A picture gives the same event from every source. Pure."""

from datetime import datetime

import msgspec

from poller.core.model import Event, identity, new_event
from poller.qcloud.events.names import NamedShot, parse_name
from poller.qcloud.wire.messages import (
    Message,
    Scalar,
    UnreadableMessage,
    created_at,
    read_message,
    whole_number,
)
from poller.qcloud.wire.urls import Located, locate

KIND = "screenshot"


def screenshot_event(
    raw: bytes | msgspec.Raw,
    *,
    account: str,
    picture_base: str | None,
    received_at: datetime,
    backfilled: bool = False,
) -> Event:
    """The event of a message (a JSON object in one line); raises `UnreadableMessage` if the message names no picture.

    `backfilled` marks a picture that was found in the bucket.
    """
    message = read_message(raw)
    name = message.pic_url or message.pic_full_url
    if not name:
        raise UnreadableMessage("names no picture")
    place = locate(name, picture_base)
    shot = parse_name(place.path)
    created = None if message.create_time is None else created_at(message.create_time)
    stream = message.stream_id
    return new_event(
        id=identity(KIND, account, _key(place, shot, message.create_time)),
        kind=KIND,
        account=account,
        stream_id=str(stream) if stream not in (None, "") else shot.stream or "",
        occurred_at=created or shot.taken_at,
        received_at=received_at,
        url=_url(message, place, picture_base),
        fields=_fields(place, shot, message, created) | ({"backfilled": True} if backfilled else {}),
        message=raw if isinstance(raw, msgspec.Raw) else msgspec.Raw(raw),
    )


def event_of_key(key: str, *, account: str, picture_base: str | None, received_at: datetime) -> Event | None:
    """The event of a picture that was found in its bucket, with the id that the queue's message gives it.

    None for a key that does not say when the picture was taken: the queue may have given it another id.
    """
    shot = parse_name(locate(key, picture_base).path)
    if not shot.fixed or shot.taken_at is None:
        return None
    return screenshot_event(
        msgspec.json.encode({"stream_id": shot.stream, "pic_url": key}),
        account=account,
        picture_base=picture_base,
        received_at=received_at,
        backfilled=True,
    )


def picture_url(raw: bytes, picture_base: str | None) -> str | None:
    """The URL of a message's picture, built on this base. Raises `UnreadableMessage` if it names no picture."""
    message = read_message(raw)
    name = message.pic_url or message.pic_full_url
    if not name:
        raise UnreadableMessage("names no picture")
    return _url(message, locate(name, picture_base), picture_base)


def _url(message: Message, place: Located, picture_base: str | None) -> str | None:
    """The full URL if there is one, else that of the name."""
    full = message.pic_full_url
    return locate(full, picture_base).url if full and message.pic_url else place.url


def _key(place: Located, shot: NamedShot, create_time: Scalar) -> str:
    """The identity of the event: the path, and more if the name does not determine the moment of the shot."""
    if shot.fixed:
        return place.path
    return f"{place.path}\0{place.query if create_time is None else create_time}"


def _fields(place: Located, shot: NamedShot, message: Message, created: datetime | None) -> dict[str, object]:
    width, height = shot.width, shot.height
    if width is None or height is None:
        width, height = whole_number(message.width), whole_number(message.height)
    fields: dict[str, object] = {
        "file_name": place.path,
        "width": width,
        "height": height,
        "push_started_at": shot.push_started_at,
        "task_started_at": shot.task_started_at,
        "offset": shot.offset,
    }
    if created is not None:
        fields["create_time"] = created
    if message.file_size is not None:
        fields["file_size"] = whole_number(message.file_size)
    return fields
