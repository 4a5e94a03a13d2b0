"""What representations of the same pictures share: predictability, universality, dissimilarities. Arrays in and out."""
