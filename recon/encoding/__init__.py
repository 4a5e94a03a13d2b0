"""How well pictures predict responses: what is read, fitted, scored and written by `recon encode`."""
