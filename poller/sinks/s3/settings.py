"""Settings of a sink of type `s3`."""

from importlib.util import find_spec
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, model_validator

from poller.settings import Cidr, Secret, SecretFile, Url, wrong
from poller.sinks.pictures import FIELDS, PictureSettings, Template

USUAL_REGION: Final = "us-east-1"
NO_LIBRARY: Final = (
    "s3 needs the library obstore, which is not installed: pip install 'live-screenshot-poller[s3]'"
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bucket is. `url` ends without a slash; `path` is the decoded path of the bucket: empty, or `/bucket`."""

    url: str
    path: str
    host: str
    port: int


class S3Settings(PictureSettings):
    """The bucket, who writes to it, and which pictures it gets."""

    bucket: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="The bucket, such as live-pictures, or live-pictures-1250000000 of COS.",
    )
    signature: Literal["s3", "cos"] = Field(
        default="s3",
        description="s3: requests are signed as AWS has it, which COS takes too. cos: as COS has it, for keys and "
        "gateways that take no other; the extra s3 is not needed then.",
    )
    region: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]{1,50}$",
        description="The region of the bucket; us-east-1 by default. COS needs it unless endpoint is given.",
        examples=["ap-guangzhou"],
    )
    endpoint: Url | None = Field(
        default=None,
        description="The store's URL without the bucket; by default that of AWS, or with signature cos that of COS, "
        "for the region.",
        examples=["https://cos.ap-guangzhou.myqcloud.com", "http://minio.internal:9000"],
    )
    path_style: bool = Field(
        default=False,
        description="Whether the bucket is the first part of the path, as MinIO expects, and not of the host.",
    )
    template: Template = Field(
        default="{date}/{stream}/{name}", description=f"The key of a picture, from {FIELDS}"
    )
    access_key: Secret | None = Field(default=None, description="The id of the key; prefer ${NAME} to it.")
    access_key_file: SecretFile | None = Field(default=None, description="A file with the id of the key.")
    secret_key: Secret | None = Field(default=None, description="The key; prefer ${NAME} to it.")
    secret_key_file: SecretFile | None = Field(default=None, description="A file with the key.")
    uploads: int = Field(default=16, ge=1, le=256, description="The most pictures that are stored at once.")
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(),
        description="Networks that are allowed for the hosts of pictures, and for the store, although they are not "
        "public.",
    )

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        for name in ("access_key", "secret_key"):
            given = [one for one in (name, f"{name}_file") if getattr(self, one) is not None]
            if len(given) > 1:
                raise wrong(f"does not go with {name}: remove one", at=f"{name}_file")
            if not given:
                raise wrong(f"is missing: give {name} or {name}_file", at=name)
        return self

    @model_validator(mode="after")
    def _can_be_signed(self) -> Self:
        if self.signature == "s3" and find_spec("obstore") is None:
            raise wrong(NO_LIBRARY, at="type")
        if self.signature == "cos" and self.endpoint is None and self.region is None:
            raise wrong("is missing: COS needs region or endpoint", at="region")
        return self

    def place(self) -> Place:
        """Where the bucket is, and the host and port that are connected to."""
        parts = urlsplit(self.endpoint or self._usual_endpoint())
        host, before = parts.hostname or "", parts.path.rstrip("/")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if self.path_style:
            url = f"{parts.scheme}://{parts.netloc}{before}"
            return Place(url=url, path=f"{before}/{self.bucket}", host=host, port=port)
        url = f"{parts.scheme}://{self.bucket}.{parts.netloc}{before}"
        return Place(url=url, path=before, host=f"{self.bucket}.{host}", port=port)

    def _usual_endpoint(self) -> str:
        if self.signature == "cos":
            return f"https://cos.{self.region}.myqcloud.com"
        return f"https://s3.{self.usual_region}.amazonaws.com"

    @property
    def usual_region(self) -> str:
        """The region for which a request is signed in the way of AWS."""
        return self.region or USUAL_REGION

    def key(self) -> tuple[str, str]:
        """The id of the key, and the key."""
        pairs = ((self.access_key, self.access_key_file), (self.secret_key, self.secret_key_file))
        found = [(one or other) for one, other in pairs]
        return tuple(one.get_secret_value() for one in found if one is not None)  # type: ignore[return-value]
