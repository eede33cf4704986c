"""What the failures of a batch amount to."""

from collections.abc import Sequence

import pytest

from poller.core.errors import PartlyFailed, Rejected, SinkError, TryLater
from poller.sinks.brokers import raise_for
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
