"""Live-stream screenshots out of Tencent Cloud Live and into other people's pipelines."""

__version__ = "0.1.0"
