"""What a check found, as records, as a table and as words."""
