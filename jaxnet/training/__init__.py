"""Training: from a State and the data to a later State and a History.

The module is `loop`, for `jaxnet.training.train` is the function.
"""

from jaxnet.training.loop import Callback, train
from jaxnet.training.programs import Recipe, compile_programs
from jaxnet.training.state import SGD, History, State, init_state, with_learning_rate

__all__ = [
    "SGD",
    "Callback",
    "History",
    "Recipe",
    "State",
    "compile_programs",
    "init_state",
    "train",
    "with_learning_rate",
]
