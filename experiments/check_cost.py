"""What does a gradient check cost, beside check_grads and chex?

    python experiments/check_cost.py
    python experiments/check_cost.py --quick                  # two operations for 52

Prints a row for each check: seconds of the first and of the second identical call,
programs compiled in each, evaluations of the function; and one for a deep model, a
large leaf, and a net of custom rules. Takes about six minutes on two cores, which
should have nothing else to do.
"""

from dataclasses import dataclass

from experiments.command import parsed
from experiments.measurements.checks import cost_of_checks, cost_of_models


@dataclass(frozen=True)
class Flags:
    """What is measured."""

    quick: bool = False
    """Two operations instead of 52, and small models."""


def main() -> None:
    """Print the tables."""
    quick = parsed(Flags, __doc__).quick
    print(cost_of_checks(quick).text())
    print(cost_of_models(quick).text())


if __name__ == "__main__":
    main()
