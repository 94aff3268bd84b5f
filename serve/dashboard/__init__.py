"""The dashboard: one page of answers to the queries, served live or written to a file.

The page is HTML and CSS alone. Bars are boxes or SVG paths of a given size, so it needs no script, fits any screen,
follows the reader's colours, and works as a report. All panels show the same period: whole days of the reporting time
zone. All times are in that zone.
"""
