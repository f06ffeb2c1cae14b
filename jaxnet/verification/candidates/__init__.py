"""The gradients that are checked, and what rounding may do to them."""
