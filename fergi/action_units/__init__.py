"""The AU model: network, losses, metrics, its training data and its training (Section 4, Appendix B)."""
