"""The configuration, good and bad."""
