"""From reactions to preferences: valence, pairs of images, and the search for parameters (Section 6.2)."""
