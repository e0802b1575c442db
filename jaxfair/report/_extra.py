"""The optional packages, imported when they are needed and not before."""

import importlib
import importlib.util
from typing import Any

#: What tables, figures and the page need.
PACKAGES = ("pandas", "matplotlib", "jinja2", "rich")


def can_write() -> bool:
    """Whether all is installed that a page needs, ``jaxfair[report]``.

    Example:
      >>> can_write()
      True
    """
    return all(importlib.util.find_spec(name) for name in PACKAGES)


def need(name: str) -> Any:
    """Import an optional package, or say how to get it.

    Args:
      name: of a module, such as ``"matplotlib.figure"``.

    Returns:
      The module.

    Raises:
      ModuleNotFoundError: with the command that installs it.

    Example:
      >>> need("json").dumps([1])
      '[1]'
      >>> need("no_such_package")
      Traceback (most recent call last):
        ...
      ModuleNotFoundError: reports need no_such_package: pip install 'jaxfair[report]'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.split(".")[0]
        if error.name is None or error.name.split(".")[0] != top:
            raise  # a dependency of the package is missing: its own message says more
        raise ModuleNotFoundError(f"reports need {top}: pip install 'jaxfair[report]'", name=top) from error
