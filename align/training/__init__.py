"""How it is trained: batches, objective, optimiser, schedule, protocols; closed-form fits."""
