"""The command of all figures knows every bench, its table is true, and the page of figures is as its file says."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from docs.generate import figures as page
from tests.bench import __main__ as command
from tests.bench import download, figures
from tests.bench.figures import Figure, beside
from tests.bench.rig import Spent

BENCH = Path(command.__file__).parent
HELPERS = {
    "__init__",
    "__main__",
    "bare",
    "figures",
    "mq_bridge_loop",
    "rig",
    "shared_bare",
    "shared_bare_way",
    "shared_daemons",
    "shared_hook",
    "shared_member",
    "shared_rounds",
    "shared_server",
    "shared_takeover",
    "sink_loops",
    "sink_places",
    "starts",
}


def test_every_bench_is_in_the_table() -> None:
    assert set(command.QUICK) == {file.stem for file in BENCH.glob("*.py")} - HELPERS


@pytest.mark.parametrize("name", sorted(command.QUICK))
@pytest.mark.parametrize("quick", [True, False])
def test_every_bench_of_the_table_knows_the_arguments_that_it_gets(name: str, quick: bool) -> None:
    rounds = [] if name in command.WITHOUT_ROUNDS else ["--rounds", "7"]
    arguments = (command.QUICK[name].split() if quick else []) + rounds
    with pytest.raises(SystemExit) as ended:  # `--help` ends the reading after the other arguments were known
        import_module(f"tests.bench.{name}").main([*arguments, "--help"])
    assert ended.value.code == 0


def _rows() -> list[Figure]:
    return [
        beside("way", "slow", "µs", [30.0, 32.0, 31.0], [20.0, 20.0, 20.0], at_most=1.4),
        beside("way", "quick", "µs", [21.0, 22.0], [20.0, 20.0], at_most=1.4),
        beside("sinks", "few events a second", "1/s", [40.0], [100.0], at_least=0.5),
        beside("beat", "late", "s", [0.7], [4.0], at_most=0.6, absolute=True),
        Figure(
            bench="idle", name="no promise, and a name that is far too long for one line", unit="%", ours=0.0
        ),
    ]


def test_the_table_says_which_promises_were_missed_and_fits_80_columns() -> None:
    lines = figures.table(_rows()).splitlines()
    (slow,) = [line for line in lines if line.startswith("slow")]
    assert slow.split() == ["slow", "µs", "31", "20", "1.55", "1.50-1.60", "<=1.4", "missed"]
    (quick,) = [line for line in lines if line.startswith("quick")]
    assert quick.endswith("<=1.4 kept")
    assert [line.rsplit(maxsplit=1)[-1] for line in lines if ">=0.5" in line or "<=0.6" in line] == [
        "missed"
    ] * 2
    assert max(map(len, lines)) <= 80
    assert not any(word in lines[-2] for word in ("missed", "kept"))


def test_a_quick_run_judges_no_promise_and_stays_out_of_the_recorded_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "quick.json"
    assert command.main(["--quick", "--only", "counting", "--json", str(file)]) == 0
    promised = [one for one in figures.read(command.RECORDED) if one.bench == "counting" and one.promise]
    assert promised, "a bench with a promise"
    assert {one.name for one in promised} <= {one.name for one in figures.read(file)}
    assert not [one for one in figures.read(file) if one.promise]
    held = command.RECORDED.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command.main(["--quick", "--only", "counting", "--json", str(command.RECORDED)])
    assert ended.value.code == 2
    assert "are not recorded" in capsys.readouterr().err
    assert command.RECORDED.read_bytes() == held


def test_a_peer_that_is_not_installed_is_named_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    here = download.ways(tmp_path)
    assert here
    assert not set(here) & set(download.PEERS)
    spent = Spent(user=1.0, system=1.0, wall=2.0, code=0)
    load = download.Load(server="", pictures=100, streams=1)
    rows = download._figures({name: [spent] for name in here}, load, "disk")
    for peer in download.PEERS:
        named = [row for row in rows if row.name.endswith(f"; {peer}: not installed")]
        assert [row.ours for row in named] == [50.0] * len(here)
        assert {row.reached for row in named} == {None}


def test_a_run_replaces_the_figures_of_its_own_benches_only(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"tables": {"other": {"head": ["a"], "rows": [["b"]]}}}))
    figures.write(file, _rows())
    again = Figure(bench="way", name="new", unit="s", ours=0.0, at_most=1.0)
    figures.write(file, [again])
    held = figures.read(file)
    assert [one.name for one in held if one.bench == "way"] == ["new"]
    assert held[-1] == again
    assert {one.bench for one in held} == {"way", "sinks", "beat", "idle"}
    assert json.loads(file.read_text())["tables"] == {"other": {"head": ["a"], "rows": [["b"]]}}


def test_the_page_marks_a_missed_promise_and_keeps_the_prose() -> None:
    text = "Before.\n<!-- figures: measured -->\nold\n<!-- end of figures -->\nAfter.\n"
    data = {
        "tables": {},
        "measured": [{"bench": "way", "name": "n", "unit": "s", "ours": 2.0, "at_most": 1.0}],
    }
    made = page.filled(text, data)
    assert "| <=1 **missed** |" in made
    assert "old" not in made
    assert made.startswith("Before.\n")
    assert made.endswith("After.\n")


def test_a_table_without_a_place_is_named() -> None:
    with pytest.raises(LookupError, match="lonely"):
        page.filled("", {"tables": {"lonely": {"head": ["a"], "rows": []}}, "measured": []})


def test_the_page_of_figures_is_as_its_file_says() -> None:
    assert (page.DOCS / "figures.md").read_text() == page.figures(), "run python -m docs.generate"


def test_the_file_of_figures_holds_no_path_and_no_host() -> None:
    text = (page.DOCS / "figures.json").read_text()
    assert not [word for word in ("/home/", "/work", "/root", "/tmp/", "://") if word in text]
