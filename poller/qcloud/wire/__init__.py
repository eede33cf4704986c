"""The platform's protocol: signing, calls, bodies, replies, masking, clock skew."""
