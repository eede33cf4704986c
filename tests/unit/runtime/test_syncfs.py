"""Which kernels report a failed write to `syncfs`."""

import pytest

from poller.runtime.syncfs import kernel_is_too_old


@pytest.mark.parametrize(
    "release",
    ["5.8.0", "5.8", "5.10.0-28-amd64", "5.14.0-427.el9", "6.1.0-18-cloud-amd64", "6.18.44", "10.0-rc1"],
)
def test_a_kernel_from_5_8_on_will_do(release: str) -> None:
    assert not kernel_is_too_old(release)


@pytest.mark.parametrize(
    "release", ["5.7.19", "5.4.0-150-generic", "4.19.0", "3.10.0-1160.el7", "2.6.78", "", "x"]
)
def test_an_older_kernel_or_one_of_no_known_version_will_not(release: str) -> None:
    assert kernel_is_too_old(release)
