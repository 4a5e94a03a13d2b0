"""Networks and brains compared: universality of dimensions, dissimilarities of pictures; their files and figures."""
