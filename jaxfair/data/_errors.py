"""What can be wrong with data, said in one line; and the extras that some datasets need."""

import importlib
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from jaxfair.files import visible


class DataError(ValueError):
    """Data or an option that cannot be used: one line says what is wrong and what to do.

    Example:
      >>> from jaxfair import data
      >>> data.load("adlut")
      Traceback (most recent call last):
      ...
      jaxfair.data.DataError: no dataset 'adlut': did you mean 'adult'? Choose from adult,
      ...
    """

    __module__ = "jaxfair.data"  # where people find it

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class DataWarning(UserWarning):
    """A dataset is known to do harm where it is taken for more than it is, or something in it is odd.

    The first is shown once per process and dataset; the second stands in ``Dataset.read`` as well.

    Silence it by ``warnings.filterwarnings("ignore", category=data.DataWarning)``.
    """

    __module__ = "jaxfair.data"


_SHOWN: set[str] = set()


def warn_of_harms(name: str, text: str) -> None:
    """Warn of a dataset's known harms, once per process.

    Python's own memory of what it has shown is wiped whenever any library touches the filters, so
    we keep another. It is written only when the warning was really shown: a filter that ignores or
    raises it does so at every call, and no test depends on which test ran before it.
    """
    if name in _SHOWN:
        return
    warnings.warn(f"{name}: {text}", DataWarning, stacklevel=1)
    registry = globals().get("__warningregistry__", {})
    if any(isinstance(key, tuple) and DataWarning in key for key in registry):
        _SHOWN.add(name)


def extra(module: str, *, need: str) -> ModuleType:
    """The module, imported now; a :class:`DataError` where it is not installed.

    Args:
      module: its name, such as ``"PIL.Image"``.
      need: who asks for it, such as ``"cifar10"``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise DataError(f"{need} needs {package}, which is not installed: pip install 'jaxfair[data]'") from None


def shown(names: Iterable[Any]) -> tuple[str, ...]:
    r"""Names that can be seen, typed and told apart, whatever the file has.

    Example:
      >>> print(*shown(["a\x1b[0m", "b"]))
      a\x1b[0m b
      >>> print(*shown(["a\n", r"a\n"]))
      'a\n' 'a\\n'
    """
    given = [str(name) for name in names]
    found = tuple(map(visible, given))
    return found if len(set(found)) == len(set(given)) else tuple(map(repr, given))


def listed(names, *, limit: int = 60) -> str:
    """Names as one line for a message: ``a, b, c``; ``none`` where there are none."""
    names = [str(name) for name in names]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"
