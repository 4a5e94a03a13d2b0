"""How pictures of a run are drawn, chosen on training pictures that the choice holds out."""
