"""What an envelope says, apart from its messages."""

import pytest

from poller.qcloud.wire.replies import open_output


@pytest.mark.parametrize("inner", [b'{"ret": 5}', b'[{"ret": "5", "message": "other"}]'])
def test_the_platforms_word_is_the_envelopes_own_whatever_its_output_says(inner: bytes) -> None:
    answer, output = open_output(b'{"output": ' + inner + b', "ret": 0, "message": "ok"}')
    assert (answer.ret, answer.said, output) == (0, "ok", inner)
