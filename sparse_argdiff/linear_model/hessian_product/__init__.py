"""Products with F' W F, one read of the features for both halves."""
