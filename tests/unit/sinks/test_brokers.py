"""What the sinks to brokers share: what the failures of a batch amount to, and why a server is not reached."""

import socket
from collections.abc import Sequence
from ssl import SSLError

import pytest

from poller.core.errors import PartlyFailed, Rejected, SinkError, TryLater
from poller.sinks.brokers import raise_for, unreachable
from poller.testing import some_batch, some_event


def failing(*errors: SinkError | None) -> SinkError | None:
    """What is raised for a batch of which each event has come to this; None for nothing."""
    events = [some_event(number) for number in range(len(errors))]
    pairs = zip(events, errors, strict=True)
    try:
        raise_for(some_batch(*events), {event.id: error for event, error in pairs if error is not None})
    except SinkError as error:
        return error
    return None


def test_a_batch_without_a_failure_is_delivered() -> None:
    assert failing(None, None) is None


def test_a_batch_of_which_a_part_failed_names_that_part() -> None:
    error = failing(TryLater("full"), None)
    assert isinstance(error, PartlyFailed)
    assert [str(one) for one in error.failures.values()] == ["full"]


@pytest.mark.parametrize(
    ("reasons", "told"),
    [(["full"] * 3, "full"), (["full", "gone", "full"], "full; gone")],
)
def test_a_batch_that_fails_for_now_as_a_whole_is_one_failure_with_every_reason(
    reasons: Sequence[str], told: str
) -> None:
    error = failing(*map(TryLater, reasons))
    assert (type(error), str(error)) == (TryLater, told)


def test_an_event_that_is_refused_for_good_is_told_apart_from_those_that_wait() -> None:
    error = failing(Rejected("large"), TryLater("full"))
    assert isinstance(error, PartlyFailed)
    assert [type(one) for one in error.failures.values()] == [Rejected, TryLater]


@pytest.mark.parametrize("error", [Rejected("large"), TryLater("full")])
def test_a_single_event_fails_with_its_own_error(error: SinkError) -> None:
    assert failing(error) is error


def because(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "refused"), "no server answers"),
        (socket.gaierror(-2, "unknown"), "no server answers"),
        (TimeoutError(), "no answer in time"),
        (SSLError(1, "certificate verify failed"), "TLS fails: check the certificates"),
        (
            because(ValueError("of a library, with a password"), SSLError(1, "no")),
            "TLS fails: check the certificates",
        ),
        (because(ValueError("of a library, with a password"), OSError(111, "no")), "no server answers"),
        (ValueError("of a library, with a password"), "connection lost"),
    ],
)
def test_the_reason_for_an_unreachable_server_holds_nothing_of_a_librarys_text(
    error: Exception, told: str
) -> None:
    assert unreachable(error) == told
