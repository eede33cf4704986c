"""Figures as data, each beside a reference of the same run and with its promise; their table and their file."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.bench import rig

WIDTHS: Final = (26, 4, 8, 8, 5, 11, 12)
"""With a space between the columns, 80 columns."""
HEAD: Final = ("what", "unit", "ours", "beside", "ratio", "rounds", "promise")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A median of rounds, in `unit`; `ratio` is the median of the rounds' ratios to the reference.

    A promise bounds the ratio, or, where there is no reference or `absolute` is set, our own figure.
    """

    bench: str
    name: str
    unit: str
    ours: float
    reference: float | None = None
    ratio: float | None = None
    least: float | None = None
    most: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    absolute: bool = False

    @property
    def judged(self) -> float:
        """What the promise bounds."""
        return self.ours if self.absolute or self.ratio is None else self.ratio

    @property
    def reached(self) -> bool | None:
        """Whether the promise was kept; None without a promise."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.judged <= self.at_most) and (
            self.at_least is None or self.judged >= self.at_least
        )

    @property
    def promise(self) -> str:
        """The bounds; empty without a promise."""
        bounds = (("<=", self.at_most), (">=", self.at_least))
        return " ".join(f"{sign}{bound:g}" for sign, bound in bounds if bound is not None)


def beside(
    bench: str, name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], **promise: Any
) -> Figure:
    """A figure of the rounds of two ways; the ratio is ours to theirs, round by round."""
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    return Figure(
        bench=bench,
        name=name,
        unit=unit,
        ours=rig.median(ours),
        reference=rig.median(theirs),
        ratio=rig.median(ratios),
        least=min(ratios),
        most=max(ratios),
        **promise,
    )


def alone(bench: str, name: str, unit: str, ours: Sequence[float], peer: str) -> Figure:
    """A figure of our rounds, with the name of the peer that it would stand beside, were it installed."""
    return Figure(bench=bench, name=f"{name}; {peer}: not installed", unit=unit, ours=rig.median(ours))


def unjudged(figures: Iterable[Figure]) -> list[Figure]:
    """The same figures without their promises."""
    return [replace(one, at_most=None, at_least=None) for one in figures]


def cells(one: Figure, missed: str = "missed") -> list[str]:
    """What a row of any table shows of a figure."""
    rounds = "" if one.least is None or one.most is None else f"{one.least:.2f}-{one.most:.2f}"
    verdict = {None: "", True: "kept", False: missed}[one.reached]
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
    numbers = [number(one.ours), number(one.reference), ratio, rounds]
    return [one.name, one.unit, *numbers, f"{one.promise} {verdict}".strip()]


def number(value: float | None) -> str:
    """Three digits that count, no fraction from 100 on."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """All figures at 80 columns, a heading for each bench; long names take several lines."""
    lines, bench = [_line(HEAD)], ""
    for one in figures:
        if one.bench != bench:
            bench = one.bench
            lines += ["", bench]
        name, *others = cells(one)
        first, *more = textwrap.wrap(name, WIDTHS[0] - 1)
        lines += [_line([first, *others]), *(f"  {part}" for part in more)]
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    first, unit, *others = (
        text.ljust(width) if column < 2 else text.rjust(width)
        for column, (text, width) in enumerate(zip(texts, WIDTHS, strict=True))
    )
    return " ".join((first, unit, *others)).rstrip()


def read(file: Path) -> list[Figure]:
    """The figures of a file; none if it has none."""
    return (
        [Figure(**one) for one in json.loads(file.read_text()).get("measured", [])] if file.exists() else []
    )


def write(file: Path, figures: Sequence[Figure]) -> None:
    """Put these figures in the place of those of the same benches; whatever else the file holds stays."""
    held = json.loads(file.read_text()) if file.exists() else {}
    fresh = {one.bench for one in figures}
    kept = [one for one in read(file) if one.bench not in fresh]
    held["measured"] = [
        {
            name: _rounded(value)
            for name, value in asdict(one).items()
            if value is not None and value is not False
        }
        for one in (*kept, *figures)
    ]
    file.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n")


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value
