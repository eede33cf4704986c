"""The sink `s3`: pictures into a bucket of AWS, MinIO, OSS, COS or another store, by the S3 interface or COS's own.

Delivered
    The store has answered 200 to the PUT of the whole picture, and the ETag is the picture's MD5. A store that encrypts
    gives other ETags: the length of the stored object is then compared, or the CRC-64 that COS returns. An object is
    never stored in part.

Twice
    A key is made of the event, so a repetition writes the same object again.
"""

from poller.sinks.s3.settings import S3Settings
from poller.sinks.s3.sink import S3

__all__ = ["S3", "S3Settings"]
