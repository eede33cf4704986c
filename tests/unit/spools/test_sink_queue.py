"""The queue of one sink: which failed events wait together."""

from poller.spools.sink_queue import step_of


def test_waits_of_one_step_differ_by_less_than_a_quarter() -> None:
    waits = [hundredths / 100 for hundredths in range(360_001)]
    steps: dict[int, list[float]] = {}
    for wait in waits:
        steps.setdefault(step_of(wait), []).append(wait)
    assert len(steps) <= 40
    assert all(max(some) < 1.25 * min(some) + 1.0 for some in steps.values())
    assert sorted(steps) == list(steps), "a longer wait is in no earlier step"
