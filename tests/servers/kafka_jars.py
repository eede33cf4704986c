"""The jars of Apache Kafka, which Maven fetches once for all test runs.

The folder appears in the cache by a rename, whole. A lock lets one run at a time fetch; what a killed one has left is
removed by the next one. Maven's own repository keeps what had come already.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from .guard import folder_kept
from .processes import cannot_start, run

VERSION: Final = "4.3.1"
CACHE: Final = Path.home() / ".cache" / "poller-tests" / f"kafka-{VERSION}"
FETCH_WITHIN: Final = 240.0
_UNFINISHED: Final = "fetch-"
_POM: Final = """<project><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"""


class NoJarsError(Exception):
    """Why this machine has no Apache Kafka."""


def find_jars(cache: Path = CACHE, *, within: float = FETCH_WITHIN) -> Path:
    """The folder with the jars, fetched if need be.

    Raises NoJarsError where they cannot be had. In CI a program that could have been installed fails the test.
    """
    _program("java")
    if not cache.exists():
        maven = _program("mvn")
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with (cache.parent / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not cache.exists():
                    _fetch(maven, cache, within)
        except (OSError, RuntimeError) as error:  # a time-out too
            raise NoJarsError(f"Maven cannot fetch the jars: {str(error)[-300:]}") from error
    return cache


def _program(name: str) -> str:
    if (found := shutil.which(name)) is None:
        why = f"there is no {name}: .ci/packages"
        if os.environ.get("CI") == "true":
            cannot_start(why)
        raise NoJarsError(why)
    return found


def _fetch(maven: str, cache: Path, within: float) -> None:
    for left in cache.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with folder_kept(Path(tempfile.mkdtemp(dir=cache.parent, prefix=_UNFINISHED))) as folder:
        (folder / "pom.xml").write_text(_POM.format(version=VERSION))
        # -U: a fetch that failed is tried again, although the repository remembers the failure.
        argv = [
            maven,
            "-q",
            "-B",
            "-U",
            "dependency:copy-dependencies",
            f"-DoutputDirectory={folder}/jars",
        ]
        run(argv, cwd=folder, within=within)
        (folder / "jars").rename(cache)
