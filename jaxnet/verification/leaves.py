"""What version 0.1 called `Parameters` is `Point` now."""

from jaxnet.verification.point import Point as Parameters

__all__ = ["Parameters"]
