"""A synthetic cohort: drawn faces, clips, pictures and tiny scorers, with a planted effect to recover."""
