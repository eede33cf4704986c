"""What code cites can be read: each document that it names is in the repository."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = re.compile(r"[\w./-]*[\w-]\.md\b")
"""A document by its path from the repository's root, from `docs`, or from the file that names it."""
FOLDERS: Final = ("poller", "tests", "docs", "observability", "systemd", "kubernetes", ".ci")
STARTS: Final = (ROOT, ROOT / "changes", ROOT / "docs", ROOT / "docs" / "guide", ROOT / "docs" / "reference")
ENDINGS: Final = {".py", ".toml", ".yaml", ".yml", ".service", ""}
FILES: Final = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.is_file() and file.suffix in ENDINGS and "__pycache__" not in file.parts
)
TOP: Final = [
    ROOT / name
    for name in ("pyproject.toml", "Dockerfile", "compose.yaml", "compose.scale.yaml", "config.example.yaml")
]


def test_each_document_that_a_file_names_is_there() -> None:
    missing = {
        (str(file.relative_to(ROOT)), name)
        for file in (*TOP, *FILES)
        for name in set(NAMED.findall(file.read_text(errors="replace")))
        if not any((start / name).is_file() for start in (*STARTS, file.parent))
    }
    assert not missing


def test_the_wire_has_the_sections_that_code_cites() -> None:
    cited = {
        number
        for file in FILES
        for number in re.findall(r"wire[.]md, section (\d)", file.read_text(errors="replace"))
    }
    there = set(re.findall(r"^## (\d)\.", (ROOT / "docs" / "wire.md").read_text(), flags=re.MULTILINE))
    assert cited
    assert cited <= there
