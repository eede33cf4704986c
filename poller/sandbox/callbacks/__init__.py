"""The notifications that the platform pushes to its customers over HTTP."""
