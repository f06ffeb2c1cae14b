"""Derivatives from values alone: one difference, and ladders of them with bounds."""
