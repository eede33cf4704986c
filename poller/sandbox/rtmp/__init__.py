"""Publish-only RTMP: bytes from any pusher in, media messages out."""
