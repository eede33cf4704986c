"""Figures, taken by hand: each program puts ours beside a bare one in the same run, and asserts nothing."""
