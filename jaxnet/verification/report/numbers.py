"""Numbers and names as the report writes them."""

import math
import os
from collections.abc import Sequence


def short(value: float) -> str:
    """Two digits, or a dash for what was not measured."""
    return "-" if math.isnan(value) else "0" if not value else f"{value:.1e}"


def share(value: float, of: float) -> float:
    """One number in units of another; 0 is 0 whatever the unit."""
    return value / of if of else value and math.copysign(math.inf, value)


def beyond(error: float, bound: float) -> float:
    """An error in bounds: any is infinitely many of 0; 0 where it was not measured."""
    found = error / bound if bound else math.inf if error > 0 else 0.0
    return 0.0 if math.isnan(found) else found


def told_apart(one: float, other: float, digits: int) -> tuple[str, str]:
    """Both with at least so many digits, and more where they would read the same."""
    for more in range(digits, 18):
        first, second = (f"{value + 0.0:.{more}g}" for value in (one, other))  # no -0
        if first != second:
            break
    numbers = [text.partition("e") for text in (first, second)]
    if more > digits and all("." in number for number, *_ in numbers):
        width = max(len(number) for number, *_ in numbers)  # 0.0418022 and 0.04180223
        padded = (n.ljust(width, "0") + e + power for n, e, power in numbers)
        first, second = padded
    return first, second


def joined(values: str, cause: str) -> str:
    """A place with its values, and why it is so."""
    if not values or not cause:
        return values + cause
    return values + ("" if values.endswith(": ") else "; ") + cause


def from_here(text: str) -> str:
    """Words in which files below the working directory are named from there."""
    try:
        here = os.path.join(os.getcwd(), "")
    except OSError:  # it is gone
        return text
    return text.replace(here, "") if here != os.sep else text


def seeded(seed: tuple[int, ...]) -> str:
    """The seed of random directions, in words that end a sentence."""
    return "; seed " + " ".join(map(str, seed)) if seed else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
