"""moto's server, with the parts that it would import at the first requests for a bucket or a user."""

from moto.iam import responses as _iam
from moto.s3 import responses as _s3
from moto.server import main

__all__ = ["_iam", "_s3", "main"]
