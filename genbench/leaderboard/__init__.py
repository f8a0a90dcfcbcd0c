"""Leaderboards: accepted records of a suite, ranked where they are comparable, as tables and as a page."""
