"""Fetches pictures from the hosts of an account: URLs, connections, and the checks of answers."""
