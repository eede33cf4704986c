"""Opens an address in the browser of a person who sits at this machine."""

import os
from typing import Final

NOT_OPENED: Final = "no browser was opened: this session has no desktop. Open the address yourself"


def open_in_browser(address: str) -> bool:
    """Open a browser; false without a desktop. A browser of the terminal is never opened."""
    import webbrowser

    if not {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys():
        return False
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False
