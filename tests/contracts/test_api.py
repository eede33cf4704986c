"""`poller.api` is the promise to plug-in authors: its names, and that a daemon can import it without pytest."""

import subprocess
import sys

from poller import api

PROMISED = """
Account AccountSettings Attempt Backlog BadConfiguration Batch BatchSettings BeginsAnew Filter Cidr Clock
Damage Dead DeadLetter Done DurableSpoolContract Duration EVERYTHING PushHandler Event Examined FilePath
Follows Gone HasLimits HostName KeepsTime KeptInFile Kind Listen Name NotSent NoticesLoss Only Outcome RawPage
PartlyFailed Pattern PlaceGone PollOutcome PollerError Pruned PushOutcome PushedSource Quarantined Rate
ReadableFile ParsedPage Reject Rejected ResolvedPath Retry START Salvaged Secret SecretFile SecretsFile Section
Sink SinkContract SinkError SinkSettings SinkWorld Size Source SourceSettings Spool SpoolAdmin SpoolContract
SpoolSettings StorageCorrupt StorageError StorageFull StorageLocked StorageShared Stream TlsSettings
ManualClock TryLater Unreadable Url Wants anything batch_id duration_between identity new_event parse_event
size_between some_batch some_change some_event some_reading some_recording with_url wrong
Book ChecksDestination Delivery SinkProgress Stage StoresFiles Tally
Gap LatePicture NoSuchReplay Origin Replay ReplayPlan ReplayState Replays Scan Selection SpoolHistory
"""


def test_the_names_that_are_promised_are_these() -> None:
    assert sorted(api.__all__) == sorted(PROMISED.split())
    assert [name for name in api.__all__ if not hasattr(api, name)] == []


def test_each_name_but_plain_type_aliases_says_what_it_is() -> None:
    classes = [found for name in api.__all__ if isinstance(found := getattr(api, name), type)]
    assert [found.__name__ for found in classes if not (found.__doc__ or "").strip()] == []


def test_a_daemon_without_pytest_can_use_a_plug_in() -> None:
    code = (
        "import sys, poller.api; assert 'pytest' not in sys.modules; "
        "poller.api.SinkContract; assert 'pytest' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(api, "Nothing")
