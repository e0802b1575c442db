"""Fairness by complaints: criteria that exclude each other, fixed at a cost, by policies with bounds."""
