"""Lists a bucket of the object store: the signature, the pages of a list, and the requests."""
