"""jaxfair: train fair, compressed networks in JAX.

``import jaxfair`` loads nothing else: a room, such as `jaxfair.sparsity`, is loaded when it is first asked for.
"""

__version__ = "0.2.0"


def __getattr__(name):
    import importlib

    if not name.startswith("_"):
        try:
            return importlib.import_module(f"jaxfair.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"jaxfair.{name}":
                raise  # the room is there, and misses a package
    raise AttributeError(f"module 'jaxfair' has no attribute {name!r}", name=name, obj=__import__("jaxfair"))


def __dir__():
    import pkgutil

    rooms = (room.name for room in pkgutil.iter_modules(__path__) if not room.name.startswith("_"))
    return sorted([*rooms, *(name for name in globals() if name.startswith("__"))])
