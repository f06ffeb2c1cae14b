"""Jaxprs: read, traced back to lines, and evaluated with a hook."""
