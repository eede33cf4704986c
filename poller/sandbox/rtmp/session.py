"""The conversation with one pusher, behind the handshake: bytes in; replies and a push out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from poller.sandbox.rtmp import commands
from poller.sandbox.rtmp.amf import Value
from poller.sandbox.rtmp.chunks import ChunkReader
from poller.sandbox.rtmp.commands import Command
from poller.sandbox.rtmp.contents import parts, script
from poller.sandbox.rtmp.messages import (
    AGGREGATE,
    AMF3_COMMAND,
    AMF3_DATA,
    AUDIO,
    COMMAND,
    DATA,
    USER_CONTROL,
    VIDEO,
    WINDOW,
    Malformed,
    Message,
)  # fmt: skip
from poller.sandbox.rtmp.publish_handler import PublishHandler, PublishRefused, Push

MAX_COMMAND = 64 * 1024
"""Bytes a message may have until a push was let in, and a command always."""
MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes a message may have afterwards."""
MAX_IDLE = 1000
"""Messages that may come while nothing is published."""


class Session:
    """One connection from the handshake on; several pushes may follow one another on it.

    send:  takes a reply
    leave: takes a last reply; nothing is fed any more, the push is over once the connection is
    drop:  takes why the connection is to end at once; the push is ended later, by `end`
    quiet: for how many seconds nothing came
    """

    def __init__(
        self,
        handler: PublishHandler,
        peer: str,
        *,
        send: Callable[[bytes], None],
        leave: Callable[[bytes], None],
        drop: Callable[[str], None],
        quiet: Callable[[], float],
    ) -> None:
        self.over = False
        """Whether everything that still comes is ignored."""
        self.window = commands.WINDOW_SIZE
        """Bytes after which the pusher wants an acknowledgement."""
        self._handler = handler
        self._peer = peer
        self._send = send
        self._leave = leave
        self._drop = drop
        self._quiet = quiet
        self._reader = ChunkReader(MAX_COMMAND)
        self._subject: Mapping[str, Value] | None = None
        self._streams = 0
        self._push: Push | None = None
        self._stream = 0
        """The message stream that is published on."""
        self._turn = 0
        """Counts beginnings and ends of pushes."""
        self._idle = 0

    @property
    def live(self) -> bool:
        """Whether a push is live on this connection."""
        return self._push is not None

    @property
    def held(self) -> int:
        """The number of bytes of unfinished messages."""
        return self._reader.held

    def feed(self, data: bytes) -> int:
        """Takes bytes; returns the number of messages that they completed. Raises Malformed."""
        count = 0
        for message in self._reader.feed(data):
            if self.over:
                break
            count += 1
            self._take(message)
        return count

    def end(self, why: str) -> None:
        """Ends the push, if there is one."""
        push, self._push = self._push, None
        self._turn += 1
        if push is not None:
            push.end(why)

    def _take(self, message: Message) -> None:
        if message.kind in (AUDIO, VIDEO):
            self._tag(message)
        elif message.kind in (COMMAND, AMF3_COMMAND):
            self._call(message)
        elif message.kind in (DATA, AMF3_DATA):
            self._tag(message._replace(kind=DATA, body=script(message)))
        elif message.kind == AGGREGATE:
            for part in parts(message):
                self._take(part)
        elif message.kind == WINDOW:
            self.window = int.from_bytes(message.body[:4], "big") or self.window
        elif message.kind == USER_CONTROL:
            self._send(commands.pong(message.body))
        if self._push is None:
            self._idle += 1
            if self._idle > MAX_IDLE:
                raise Malformed(f"more than {MAX_IDLE} messages without a push")

    def _tag(self, message: Message) -> None:
        if self._push is not None and message.stream == self._stream and message.body:
            self._push.tag(message.kind, message.timestamp, message.body)

    def _call(self, message: Message) -> None:
        body = message.body
        if len(body) > MAX_COMMAND:
            raise Malformed(f"a command of {len(body)} bytes")
        if message.kind == AMF3_COMMAND:
            body = body.removeprefix(b"\0")  # the rest of it is AMF0
        call = commands.parse_command(body)
        if self._subject is None and call.name != "connect":
            raise Malformed("a call before connect")
        match call.name:
            case "connect":
                self._subject = call.subject
                self._send(commands.connect_result(call.transaction))
            case "createStream":
                self._streams += 1
                self._send(commands.result(call.transaction, self._streams))
            case "publish":
                self._publish(call, message.stream)
            case "FCUnpublish" | "closeStream" | "deleteStream":
                self._unpublish(call, message.stream)
            case _:
                self._answer(call, message.stream)

    def _publish(self, call: Command, stream: int) -> None:
        if self._push is not None:
            self._send(_bad_name(stream, "this connection publishes already"))
            return
        if self._subject is None or not 0 < stream <= self._streams:
            self._refuse(
                commands.status(stream, "error", "NetStream.Failed", "connect and createStream come first")
            )
            return
        self._turn += 1
        request = commands.publish_request(self._subject or {}, call.text(0), self._peer, self._quiet)
        try:
            push = self._handler.publish(request, functools.partial(self._kick, self._turn))
        except PublishRefused as error:
            self._refuse(_bad_name(stream, str(error)))
            return
        self._push, self._stream, self._idle = push, stream, 0
        self._reader.limit = MAX_MESSAGE
        self._send(commands.publish_start(stream))

    def _unpublish(self, call: Command, stream: int) -> None:
        """Handles the three calls that end a push. deleteStream and closeStream name the stream."""
        named = {"FCUnpublish": self._stream, "closeStream": stream, "deleteStream": call.number(0)}[
            call.name
        ]
        self._send(commands.result(call.transaction))
        if self._push is not None and named == self._stream:
            self.end("unpublished")
            self._send(commands.status(named, "status", "NetStream.Unpublish.Success", "Unpublished."))

    def _answer(self, call: Command, stream: int) -> None:
        """Answers calls that neither begin nor end a push."""
        match call.name:
            case "releaseStream" | "FCPublish" | "_checkbw" | "checkBandwidth":
                self._send(commands.result(call.transaction))
            case "play" | "play2" | "pause" | "seek" | "receiveAudio" | "receiveVideo":
                text = "this server takes pushes and plays nothing"
                refusal = commands.status(stream, "error", "NetStream.Failed", text)
                self._refuse(commands.error_result(call.transaction, text) + refusal)
            case "_result" | "_error" | "onStatus":
                pass
            case _:
                # Encoders make calls of their own; a push must not end for one that is unknown here.
                self._send(commands.error_result(call.transaction, "no such call"))

    def _refuse(self, reply: bytes) -> None:
        self.over = True
        self._leave(reply)

    def _kick(self, turn: int) -> None:
        """Ends the push of that turn for the handler. A push that has ended already is left alone."""
        if turn == self._turn:
            self.over = True
            self._drop("kicked")


def _bad_name(stream: int, text: str) -> bytes:
    return commands.status(stream, "error", "NetStream.Publish.BadName", text)
