"""`recon adapt`: decoders for a new person, learning curves over the number of pictures, what is chosen and written."""
