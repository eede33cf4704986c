"""Recordings, and pictures out of live video."""
