"""The pages while the database of a shared spool is away, with a real PostgreSQL."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.scenario.environment import environment, until
from tests.scenario.rig import webhook
from tests.scenario.test_operate import rows, sink
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import settings_of
from tests.servers.sql_sinks import POSTGRESQL

from .rig import Visitor, advance_clock, barriers, drawn, pages, passes

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL


def says_so(page: Page) -> None:
    """The banner is there."""
    banner = page.locator(".notice", has_text="The database is away since")
    expect(banner).to_contain_text("what is shown is from")
    expect(page.locator(".notice", has_text="Not live")).to_have_count(0)


def test_while_the_database_is_away_the_pages_say_since_when_and_blame_no_stream(
    tmp_path: Path, visitor: Visitor, database: Database
) -> None:
    visitor.allow("425|503")  # pictures are not uploaded here, and cannot be looked up meanwhile
    spool = settings_of(database, tmp_path, lease="2s")
    with (
        environment(tmp_path) as place,
        pages(place, tmp_path, spool=spool, sinks={"hook": webhook(place)}) as found,
    ):
        place.turn(503)
        place.enqueue(30, step=600)  # no stream is late while the database is there
        until(lambda: sink(found.daemon)["backlog"] == 30)
        wall, pipeline = visitor.open(f"{found.url}/"), visitor.open(f"{found.url}/pipeline")
        expect(wall.locator(".tile")).not_to_have_count(0)
        kinds = wall.locator(".tile .state").all_inner_texts()
        expect(pipeline.get_by_role("article", name="hook")).to_be_visible()
        stream = visitor.open(f"{found.url}{wall.locator('a.tile').first.get_attribute('href')}")
        state = stream.locator(".stream-head .state")
        expect(state).to_contain_text(re.compile(r"\w"))
        kind = state.inner_text()
        database.kill()
        for one in (wall, pipeline, stream):
            says_so(one)
        for one in (wall, stream):  # a day later, when each stream has ended
            advance_clock(one, 86_400)
            passes(one, 1500)  # streams are judged each second
        drawn(stream)
        anew, wall_anew = visitor.open(f"{found.url}/pipeline"), visitor.open(f"{found.url}/")
        says_so(anew)
        says_so(wall_anew)
        for one in (wall, wall_anew):
            assert one.locator(".tile .state").all_inner_texts() == kinds
        assert state.inner_text() == kind
        for one in (pipeline, anew):
            expect(one.locator(".readiness")).to_contain_text("Not ready")
            expect(one.locator(".readiness")).to_contain_text("docs/operations/alarms/database-away.md")
            expect(one.get_by_role("article", name="spool").locator(".state")).to_contain_text("Not writable")
            expect(one.get_by_role("article", name="hook")).to_contain_text("30")
        assert barriers(anew) == []
        visitor.picture(anew, "outage-pipeline")
        visitor.picture(wall_anew, "outage-wall")
        database.start()
        until(lambda: not rows(found.daemon, "status")[0]["away"])
        for one in (wall, pipeline, stream):
            expect(one.locator(".notice:visible", has_text="The database is away")).to_have_count(0)
        place.turn(200)
        assert found.stop() == 0
