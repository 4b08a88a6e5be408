"""Faces with chosen AUs, after SynFER (arXiv 2410.09865): an AU adapter for Stable Diffusion and its use."""
