"""Opens an address in the browser of a person who sits at this machine."""

import os


def open_in_browser(address: str) -> bool:
    """Open a browser; false without a desktop. A browser of the terminal is never opened."""
    import webbrowser

    if not {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys():
        return False
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False
