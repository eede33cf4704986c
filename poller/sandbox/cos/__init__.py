"""The object store: pictures that arrive when their upload is over, served as COS serves them."""
