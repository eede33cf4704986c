"""The page on sizing follows from the figures: other figures give other numbers, and a missing figure is named."""

import json
from dataclasses import asdict, replace

import pytest

from docs.generate import sizing as page
from docs.generate.figures import DOCS
from tests.bench.figures import Figure

FOUND = page.Measured(
    rate=10_000.0,
    daemons=0.5,
    server=0.25,
    log=4.0,
    written=8.0,
    picture=100.0,
    steady=3_000.0,
    append=50_000.0,
    append_cpu=4.0,
    follow=5.0,
    compressed=100.0,
    counted=600.0,
    id=90.0,
    index=25.0,
    many=4_000.0,
    fetch=5.0,
    read=3.0,
    journal=1.0,
)


def _recorded() -> list[Figure]:
    return [Figure(**one) for one in json.loads((DOCS / "figures.json").read_text())["measured"]]


def test_every_part_is_a_recorded_figure() -> None:
    assert all(value > 0 for value in asdict(page.measured(_recorded())).values())


def test_a_missing_figure_is_named() -> None:
    kept = [one for one in _recorded() if "bytes kept of an id" not in one.name]
    with pytest.raises(LookupError, match="bytes kept of an id"):
        page.measured(kept)


def test_daemons_use_what_messages_and_pictures_cost_and_what_each_learns() -> None:
    assert page.cores(FOUND, 100_000, 2, pictures=False) == pytest.approx(0.5)
    assert page.cores(FOUND, 100_000, 2, pictures=True) == pytest.approx(1.5)
    assert page.cores(FOUND, 100_000, 5, pictures=True) == pytest.approx(1.65)


@pytest.mark.parametrize(("picture", "count"), [(0.0, 2), (100.0, 4), (400.0, 8)])
def test_without_one_of_them_the_daemons_are_busy_as_planned_and_no_fewer_would_do(
    picture: float, count: int
) -> None:
    found = replace(FOUND, picture=picture)
    assert page.daemons(found, 100_000, pictures=True) == count
    assert page.cores(found, 100_000, count - 1, pictures=True) / (count - 1) <= page.BUSY
    if count > 2:
        assert page.cores(found, 100_000, count - 2, pictures=True) / (count - 2) > page.BUSY


def test_no_number_of_daemons_is_enough_where_each_learns_of_too_much() -> None:
    with pytest.raises(ValueError, match="too many to follow"):
        page.daemons(FOUND, 2_000_000, pictures=False)


def test_ids_are_those_of_thirty_days() -> None:
    assert page.ids(100_000) == 10_000 * 30 * 86_400
    assert page.counted(FOUND, 100_000) == 10_000 * (86_400 * 600 + 30 * 86_400 * 130)


def test_the_log_grows_by_a_page_of_the_index_for_each_message_at_most() -> None:
    assert page.most_log(FOUND, 100_000) == 10_000 * (8_192 + 400)


def test_what_breaks_first_follows_from_the_figures() -> None:
    assert "index of ids" in page.breaking(FOUND)[0].what
    slow = page.breaking(replace(FOUND, append=500.0))[0]
    assert slow.what.startswith("one session's appends")
    assert slow.streams == pytest.approx(3_500)
    limits = [one.streams for one in page.breaking(FOUND)]
    assert limits == sorted(limits)


def test_settings_are_named_whose_defaults_allow_too_few_streams() -> None:
    lowest, *others = page.settings_too_low(FOUND)
    assert lowest.what.startswith("`max_bytes: 10GiB`")
    assert lowest.streams == pytest.approx(10 * 2**30 / page.counted(FOUND, 1))
    assert [round(one.streams) for one in others] == [20_000, 80_000]


def test_the_page_has_a_place_for_each_text() -> None:
    made = page.texts(FOUND)
    assert set(made) == {"daemons", "database", "settings", "breaks", "first"}
    assert "**4**" in made["daemons"]
    assert "25.9 billion" in made["database"]
