"""What the operator's commands read of a configuration, without its secrets."""

import json
from pathlib import Path

from poller.settings import load_stored


def test_an_account_is_read_without_the_secrets_of_its_bucket(tmp_path: Path) -> None:
    settings = {
        "accounts": {
            "main": {
                "app_id": 1,
                "key_file": "/nowhere/key",
                "cos": {
                    "bucket": "shots",
                    "app_id": 1250000000,
                    "region": "ap-shanghai",
                    "secret_id": "${NOT_SET_HERE}",
                    "secret_key_file": "/nowhere/cos_key",
                },
            }
        },
        "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
        "spool": {"type": "sqlite", "path": "spool.db"},
        "sinks": {"console": {"type": "stdout"}},
    }
    file = tmp_path / "poller.yaml"
    file.write_text(json.dumps(settings))
    cos = load_stored(file, {}).accounts["main"].cos
    assert cos is not None
    assert (cos.bucket, cos.region) == ("shots", "ap-shanghai")
