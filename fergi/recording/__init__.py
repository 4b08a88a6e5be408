"""Sessions of one's own: the study, its server, and what it writes (Sections 3.2 and 3.3, Appendix A)."""
