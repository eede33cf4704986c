"""Pictures through a real daemon into a real store, by both signatures, while the daemon and the store are killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import through
from .object_stores import running

LOOKED_AT = 500


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["cos_by_s3", "cos"])
def test_pictures_pass_the_daemon_and_the_store_while_both_are_killed(
    kind: str, tmp_path: Path, soak: bool
) -> None:
    events, kills = through.FULL if soak else through.ORDINARY
    with running(kind, tmp_path / "store") as store:

        def stored() -> Iterator[tuple[str, str]]:
            for key in store.list_keys():
                stream, _, id = key.partition("/")
                yield stream, id

        carried = through.carry(
            tmp_path / "way",
            store,
            store.settings(template="{stream}/{id}"),
            stored,
            events=events,
            kills=kills,
            pictures=True,
        )
        assert through.check(carried, least=events, keeps_repeats=False, keeps_order=False) == 0
        picture = next((tmp_path / "way" / "platform" / "cos" / store.bucket).glob("*.jpg")).read_bytes()
        for sent in carried.sent[:: max(1, events // LOOKED_AT)]:
            found = store.get(f"{sent.stream}/{sent.id}")
            assert (found.content, found.type) == (picture, "image/jpeg")
            assert (found.metadata["id"], found.metadata["stream"]) == (sent.id, sent.stream)
