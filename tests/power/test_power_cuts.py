"""Power cuts lose nothing that was acknowledged; and the same rig sees what each deliberate bug loses."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.power.rig import FULL_SPEED, LULL, Found, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]

CUTS = 4
CUTS_SOAKING = 500
CUTS_TO_SEE = 15
LEAST_ACKNOWLEDGED = 1000
CLEAN = {
    "pages_lost": 0,
    "events_lost": 0,
    "pictures_lost": 0,
    "pictures_bad": 0,
    "pictures_empty": 0,
    "forgotten": 0,
    "unknown_again": 0,
}


@pytest.mark.parametrize(("sync", "disk"), [("file", "ext4"), ("filesystem", "ext4"), ("filesystem", "xfs")])
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    tmp_path: Path, soak: bool, sync: str, disk: str
) -> None:
    """Every kept page, appended event and delivered picture is there; no picture is empty or cut."""
    if disk == "xfs" and shutil.which("mkfs.xfs") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("power cuts on xfs cannot be tested: needs mkfs.xfs")
        pytest.skip("POWER CUTS ON XFS NOT TESTED: needs mkfs.xfs")
    cuts = CUTS_SOAKING if soak else CUTS
    found = run(tmp_path, cuts=cuts, sync=sync, disk=disk)
    assert {loss: getattr(found, loss) for loss in CLEAN} == CLEAN, found.examples
    assert found.cuts == cuts
    assert found.at_work >= cuts / 2, "void: too many cuts came before the work had begun"
    assert found.appended >= LEAST_ACKNOWLEDGED, "void: too little was acknowledged"
    assert found.delivered >= LEAST_ACKNOWLEDGED / 10, "void: too little was delivered"


def sees(folder: Path, spoil: str, seen: Callable[[Found], bool], *, sync: str = "file") -> Found:
    """Cut until the deliberate bug was seen."""
    found = run(folder, cuts=CUTS_TO_SEE, moods=(FULL_SPEED, LULL), sync=sync, spoil=spoil, until=seen)
    assert seen(found), f"{spoil}: not seen in {found.cuts} cuts"
    return found


def test_the_rig_sees_events_lost_with_synchronous_normal(tmp_path: Path) -> None:
    """Appended, released by the journal, gone."""
    sees(tmp_path, "synchronous=NORMAL", lambda found: found.pages_lost > 0 and found.events_lost > 0)


def test_the_rig_sees_pages_lost_without_fdatasync(tmp_path: Path) -> None:
    """Kept, not yet appended, gone."""
    found = sees(tmp_path, "pages not synced", lambda found: found.pages_lost > 0)
    assert found.events_lost == 0, "the spool has syncs of its own"


def test_the_rig_sees_empty_pictures_without_fsync(tmp_path: Path) -> None:
    """Delivered under its final name, empty."""
    sees(tmp_path, "pictures not synced", lambda found: found.pictures_empty > 0 and found.pictures_lost > 0)


def test_the_rig_sees_pictures_lost_without_an_fsync_of_their_folders(tmp_path: Path) -> None:
    """Delivered, its name gone; what is there is whole."""
    found = sees(tmp_path, "folders not synced", lambda found: found.pictures_lost > 0)
    assert found.pictures_bad == 0


def test_the_rig_sees_pictures_lost_without_syncfs(tmp_path: Path) -> None:
    """Delivered, its name gone or its file empty."""
    sees(tmp_path, "file system not synced", lambda found: found.pictures_lost > 0, sync="filesystem")


@pytest.mark.soak
def test_the_rig_sees_pictures_that_are_not_whole_without_syncfs_before_the_renames(tmp_path: Path) -> None:
    """Not delivered, and under their final names all the same. That takes many cuts: the time for it is short."""
    found = run(
        tmp_path,
        cuts=CUTS_SOAKING,
        moods=(FULL_SPEED,),
        sync="filesystem",
        spoil="file system not synced before the renames",
        until=lambda found: found.pictures_bad > 0,
    )
    assert found.pictures_bad > 0
