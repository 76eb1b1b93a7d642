"""Compute the geometry of the report's figures as plain numbers; the templates draw them.

Figures that stretch with the page are given in percent of their width, small multiples in units of a fixed
:data:`~elicitable.report.pictures.axes.PANEL`. Nothing here is markup, so nothing here can be injected.
"""
