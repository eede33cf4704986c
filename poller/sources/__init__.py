"""The ways in: one file is one way."""
