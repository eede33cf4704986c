"""Sinks: each file or folder is one sink."""
