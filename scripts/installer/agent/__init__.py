"""The installer's agent: reads a node, decides, stages a transaction, has the host script commit it, reports.

Standard library only: it runs in a stock Python image.
"""
