"""`python -m proxyherd` in the folder above a clone that is called proxyherd, and `python CLONE`.

There, Python takes this repository for the package, as a folder without an `__init__.py`, and finds this file in place
of the package's own. So it looks for the package where it is: in this folder.
"""

import runpy
import sys
from pathlib import Path

sys.modules.pop("proxyherd", None)
sys.path.insert(0, str(Path(__file__).resolve().parent))
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
