"""An app for its own process: a proxied route behind the middlewares of ``STACK``."""

import os

from tests.integration.stacks import app_behind
from tests.support.gateways import billing

app = app_behind(os.environ["STACK"], billing(os.environ["ORIGIN"]))
