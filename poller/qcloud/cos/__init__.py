"""The object store: the signature of requests, and the list of a bucket with its pages."""
