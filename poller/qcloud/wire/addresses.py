"""Where an account's pictures and recordings are, as its settings say. Pure."""

import msgspec

from poller.qcloud.wire.urls import bucket_base, bucket_hosts, host_of, locate
from poller.settings import AccountSettings


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The base URLs of an account, None if not configured, and the hosts that serve its pictures."""

    picture_base: str | None
    picture_hosts: frozenset[str]
    recording_base: str | None

    def recording_url(self, vid: str) -> str | None:
        """The URL of a recorded segment by its vid (the 2016 v1.1 document); None where the account has no `vod`."""
        return locate(f"{vid}.f0.flv", self.recording_base).url


def addresses(settings: AccountSettings) -> Addresses:
    """Work out an account's addresses."""
    base, hosts = _pictures(settings)
    return Addresses(
        picture_base=base, picture_hosts=hosts | set(settings.hosts), recording_base=_recordings(settings)
    )


def _pictures(settings: AccountSettings) -> tuple[str | None, frozenset[str]]:
    cos = settings.cos
    if cos is None:
        return None, frozenset()
    if cos.base_url is not None:
        base = _folder(cos.base_url)
        host = host_of(base)
        return base, frozenset({host} if host else ())
    assert cos.bucket is not None
    assert cos.app_id is not None
    return bucket_base(cos.bucket, cos.app_id), bucket_hosts(cos.bucket, cos.app_id)


def _recordings(settings: AccountSettings) -> str | None:
    vod = settings.vod
    if vod is None:
        return None
    if vod.base_url is not None:
        return _folder(vod.base_url)
    return f"http://{vod.biz_id}.vod.myqcloud.com/"


def _folder(url: str) -> str:
    return url if url.endswith("/") else url + "/"
