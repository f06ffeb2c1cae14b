"""Hand-written derivative rules, and what they must satisfy."""
