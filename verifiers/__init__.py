"""Verifiers: what turns a response into a reward. Importing the package registers every module that holds one."""

import importlib
import pkgutil

PROGRAMS = frozenset({"check"})
"""Modules that run on their own (`python -m`); importing them here would only cost time."""

for _info in pkgutil.iter_modules(__path__):
    if _info.name not in PROGRAMS:
        importlib.import_module(f"{__name__}.{_info.name}")
