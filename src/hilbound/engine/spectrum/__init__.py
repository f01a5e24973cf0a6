"""Nuclear norms and Schatten powers: how they are computed, and how far off they can be."""
