"""The tables of the page of figures, from docs/figures.json; its prose stays as it is written.

Each table stands between the markers `<!-- figures: NAME -->` and `<!-- end of figures -->`. `measured` are the figures
that `python -m tests.bench --json docs/figures.json` puts there. The other tables are in `tables`, each with its head
and its rows in Markdown.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from docs.generate.markdown import table
from tests.bench.figures import HEAD, Figure, cells

DOCS: Final = Path(__file__).parents[1]
_PLACE: Final = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def figures() -> str:
    """The page with its tables made anew. Raises LookupError if a table has no place, or a place no table."""
    return filled((DOCS / "figures.md").read_text(), json.loads((DOCS / "figures.json").read_text()))


def filled(page: str, data: Mapping[str, Any]) -> str:
    """A page whose marked places hold the tables of these data."""
    tables = {name: table(one["head"], one["rows"]) for name, one in data["tables"].items()}
    tables["measured"] = _measured([Figure(**one) for one in data["measured"]])
    return put(page, tables)


def put(page: str, texts: Mapping[str, str]) -> str:
    """A page whose marked places hold these texts. Raises LookupError if a text has no place, or a place no text."""
    places = [place[2] for place in _PLACE.finditer(page)]
    if sorted(places) != sorted(texts):
        raise LookupError(f"the page has places for {sorted(places)}, and there are {sorted(texts)}")
    return _PLACE.sub(lambda place: f"{place[1]}{texts[place[2]]}\n{place[3]}", page)


def _measured(found: list[Figure]) -> str:
    return table(("bench", *HEAD), ([f"`{one.bench}`", *cells(one, missed="**missed**")] for one in found))
