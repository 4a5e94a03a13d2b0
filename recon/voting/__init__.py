"""People as judges: a page that asks which of two seen pictures was reconstructed, and the scores of their votes."""
