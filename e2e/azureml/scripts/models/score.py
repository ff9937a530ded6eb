"""Several models: AZUREML_MODEL_DIR is the folder of all."""
import os

from azureml.core import Model


def init():
    global found
    directory = os.environ["AZUREML_MODEL_DIR"]
    found = {"names": sorted(os.listdir(directory))}
    with open(os.path.join(directory, "iris", "3", "model.json")) as file:
        found["iris"] = file.read().strip()
    for name in ("iris", "text"):
        found[name + " path"] = Model.get_model_path(name).split(os.sep)[-3:]
    with open(os.path.join(Model.get_model_path("text"), "vocabulary.txt")) as file:
        found["words"] = file.read().split()


def run(data):
    return found
