"""What is trained: encoder, signal and target spaces, principal axes, router, losses."""
