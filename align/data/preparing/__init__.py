"""Steps between recordings as they are read and signals to train on; fitted on training rows."""
