"""Verifiers: what turns a response into a reward. Importing the package registers every module that holds one."""

import importlib
import pkgutil

PROGRAMS = frozenset({"check", "high_precision", "math_process", "numeric", "split_tests", "zygote"})
"""Modules that run on their own (`python -m`, child processes); importing them here would only cost time."""

for _info in pkgutil.iter_modules(__path__):
    if _info.name not in PROGRAMS:
        importlib.import_module(f"{__name__}.{_info.name}")
