"""Methods: the rows of the leaderboard, one small pure file each. Importing the package registers all of them."""

import importlib
import pkgutil

for _info in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_info.name}")
