"""A cohort that is made, not met: drawn faces, clips, pictures and scorers with a planted effect to recover."""
