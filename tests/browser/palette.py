"""Makes a screenshot small enough for the documents: the same picture with 256 colours."""

from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph
from av.video.frame import VideoFrame


def reduce(path: Path) -> None:
    """Write a PNG anew with a palette of its own."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frame = next(file.decode(stream))
        graph = Graph()
        source, fork = graph.add_buffer(template=stream, time_base=Fraction(1, 25)), graph.add("split")
        chosen, used = graph.add("palettegen"), graph.add("paletteuse", "dither=bayer:bayer_scale=4")
        end = graph.add("buffersink")
        source.link_to(fork)
        fork.link_to(used, 0, 0)
        fork.link_to(chosen, 1, 0)
        chosen.link_to(used, 0, 1)
        used.link_to(end)
        graph.configure()
        graph.push(frame)
        graph.push(None)
        reduced = graph.pull()
    assert isinstance(reduced, VideoFrame)
    path.write_bytes(_png(reduced))


def _png(frame: VideoFrame) -> bytes:
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, frame.format.name
    codec.time_base, codec.options = Fraction(1, 25), {"compression_level": "9", "pred": "none"}
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
