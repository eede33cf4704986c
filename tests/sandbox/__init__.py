"""Tests of the platform in a box."""
