"""THINGS-EEG2 and THINGS-MEG, in the variants that are passed around."""
