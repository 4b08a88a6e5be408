"""The arithmetic and the file formats of FERGI (Feng, Ma and de Sa, arXiv 2312.03187).

The scripts at the top level read, call this package, write and report. Importing it does no work.
"""
