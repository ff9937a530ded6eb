"""One model, found in every way that scripts find it."""
import glob
import json
import os

from azureml.core.model import Model


def init():
    global found
    directory = os.getenv("AZUREML_MODEL_DIR")
    with open(os.path.join(directory, "model.json")) as file:
        found = json.load(file)
    found["tail"] = directory.split(os.sep)[-2:]
    found["glob"] = [os.path.basename(p) for p in glob.glob(os.path.join(directory, "*"))]
    found["path"] = Model.get_model_path("iris").split(os.sep)[-3:]
    found["version"] = Model.get_model_path("iris", version=3).split(os.sep)[-3:]
    try:
        Model.get_model_path("other")
    except Exception as failure:
        found["other"] = type(failure).__name__


def run(data):
    return found
