"""One leaf, in order of work: probe, keep kinks apart, compare, locate, decide."""
