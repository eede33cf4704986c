"""Daemons on machines of their own that share a spool, what happens to them, and how they are judged."""
