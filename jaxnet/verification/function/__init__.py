"""The function that is differentiated: its values, and what its program does."""
