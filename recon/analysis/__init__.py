"""What trained encoders and recordings say beyond one score: time courses, repetitions, noise ceilings."""
