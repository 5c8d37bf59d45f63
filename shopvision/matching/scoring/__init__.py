"""How pairs are scored: one model, a cascade, an ensemble."""
