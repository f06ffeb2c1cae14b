"""jaxnet."""
