"""The simulated study: rendered pictures, a brain that answers them, the study itself."""
