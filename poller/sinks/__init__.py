"""Sinks: one file or folder is one way out."""
