"""Metrics over commits or days: runs put in order (`read`), steps found in them (`steps`), and shown."""
