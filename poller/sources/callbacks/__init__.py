"""The source `callbacks`: an HTTP receiver for the notifications that the platform pushes."""

from poller.sources.callbacks.receiver import Callbacks
from poller.sources.callbacks.settings import CallbacksSettings

__all__ = ["Callbacks", "CallbacksSettings"]
