"""HTML pages that need nothing else: no script, no network, light and dark, narrow and wide.

page.py    a document of sections, tables and pictures; page.css is its style
charts.py  charts as inline SVG

Knows nothing of what the pages show; never imports torch.
"""
