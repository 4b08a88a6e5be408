"""From a picture to the aligned, equalised face that the AU network sees (Section 4, Appendices B.2 and C)."""
