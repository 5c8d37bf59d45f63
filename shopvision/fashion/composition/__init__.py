"""A detector and encoders as one catalogue encoder: garments are cut out of pictures, and each gets a vector."""
