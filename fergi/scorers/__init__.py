"""Models that score how well an image fits its prompt or pleases, one small module each (Section 6.2.3)."""
