"""Issues of other projects in which a fault of the tables is known."""

ISSUES: dict[str, str] = {}
"""By the name of the function as it stands in the catalogue, without the variant."""


def issue_of(function: str) -> str:
    """Project and number; empty where none is known."""
    return ISSUES.get(function, ISSUES.get(function.split("(")[0], ""))
