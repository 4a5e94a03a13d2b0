"""How the embedded generator is made, stage by stage."""
