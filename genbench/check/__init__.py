"""The regression check: are a run's records worse than a baseline's, beyond what noise explains?"""
