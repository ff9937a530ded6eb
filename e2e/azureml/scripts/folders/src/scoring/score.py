"""An entry script in a folder, with modules from the root and from the source directory."""
import os

import helper
from package.inner import double


def init():
    global environment
    names = ("AML_APP_ROOT", "AZUREML_SOURCE_DIRECTORY")
    environment = {name: os.path.basename(os.environ.get(name, "")) for name in names}
    environment["cwd"] = os.path.basename(os.getcwd())
    environment["name"] = __name__


def run(data):
    return {"helper": helper.NAME, "double": double(21), "environment": environment}
