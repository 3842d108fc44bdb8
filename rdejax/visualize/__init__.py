"""Figures of papers: overlays, sheets, comparisons, embeddings, relevance, bases, charts.

Every picture is a pure function from arrays to a `uint8 [H, W, 3]` image or a matplotlib `Figure`,
one in a file; `rdejax visualize --help` lists the same as commands.
"""
