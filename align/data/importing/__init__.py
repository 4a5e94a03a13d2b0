"""Foreign files to the layout of the `folder` study: signals.npy, stimuli.csv, images/. One module per kind of file."""
