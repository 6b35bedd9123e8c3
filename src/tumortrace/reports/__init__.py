"""Figures and HTML reports, from the records of a run alone."""
