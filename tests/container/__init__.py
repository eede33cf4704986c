"""The program as a container: its files, and its image built and run."""
