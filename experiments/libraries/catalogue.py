"""All functions that are looked at, one entry each."""

from experiments.libraries.arrays import array_entries
from experiments.libraries.distributions import distribution_entries
from experiments.libraries.elementwise import elementwise_entries
from experiments.libraries.entry import Entry, as_users_have_it
from experiments.libraries.kernels import kernel_entries
from experiments.libraries.layers import layer_entries
from experiments.libraries.linear_algebra import linear_algebra_entries
from experiments.libraries.losses import loss_entries


def catalogue() -> dict[str, Entry]:
    """By name, in the order in which they are run.

    Raises:
        ValueError: two have one name.
    """
    with as_users_have_it():
        entries = [
            *elementwise_entries(),
            *distribution_entries(),
            *array_entries(),
            *linear_algebra_entries(),
            *loss_entries(),
            *layer_entries(),
            *kernel_entries(),
        ]
    found = {entry.name: entry for entry in entries}
    if len(found) < len(entries):
        names = [entry.name for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"names: expected each once; got twice: {', '.join(twice)}")
    return found
