"""What the server of workers has ready for them: importing this module imports the stages and the modules of models.

A module that cannot be imported is for the run to tell of in words; it must not end the server.
"""

import importlib
import os
from contextlib import suppress

from genbench.run.server import PRELOAD

for _name in ["genbench.run.stages", "genbench.run.scoring", *filter(None, os.environ.get(PRELOAD, "").split(","))]:
    with suppress(Exception):
        importlib.import_module(_name)
