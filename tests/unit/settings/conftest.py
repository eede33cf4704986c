"""Puts the test adapters where `importlib.metadata` finds them."""

import sys
from collections.abc import Iterator

import pytest

from .adapters import install


@pytest.fixture(scope="module", autouse=True)
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Adapters under the project's own types, where it is not installed itself."""
    folder = tmp_path_factory.mktemp("adapters")
    install(folder)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("settings_test_adapters", None)
