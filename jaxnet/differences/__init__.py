"""Finite differences: of any function, of the network, and descent by them."""
