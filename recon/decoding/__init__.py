"""From a run to what it says about test pictures: tokens, coarse pictures, words."""
