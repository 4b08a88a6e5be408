"""Preference pairs tune scoring models and generators (the dashed lines of the paper's Figure 1)."""
