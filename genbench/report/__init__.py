"""The report of a run: comparative tables, pictures, charts, and the audit of the metrics."""
