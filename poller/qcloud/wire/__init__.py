"""What the platform sends and how it is asked: signing, calls, bodies, replies, masking, clock skew."""
