"""A small library with derivative rules of its own, some of them wrong."""
