"""Maps from the predicted tokens of a run to what an adapter reads; each in a file of its own."""
