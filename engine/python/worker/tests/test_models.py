"""Where scripts find their models, with the stand-ins and beside real packages."""

from __future__ import annotations

import json
import sys
from typing import List

from zarpa_worker import layout, script

from .apart import Case, has, post

PATHS = """
import os
from azureml.core.model import Model
def init():
    pass
def run(name):
    if name == "dir":
        return os.environ["AZUREML_MODEL_DIR"]
    name, _, version = name.partition(":")
    try:
        return Model.get_model_path(name, int(version) if version else None)
    except Exception as failure:
        return "%s: %s" % (type(failure).__name__, failure)
"""


class Models(Case):
    def paths(self, *names: str, **settings: str) -> object:
        if has("azureml.core"):
            self.skipTest("the real azureml-core is installed here")

        def ask(service: script.Service) -> List[str]:
            return [json.loads(post(service, name.encode()).body).replace(self.root, "ROOT") for name in names]

        return self.run_script(PATHS, ask, **settings)

    def test_one_model_is_its_own_folder(self) -> None:
        self.write({"models/iris/3/model.pkl": "", "models/.hidden/x": ""})
        got = self.paths("dir", "iris", "iris:3", models=self.root + "/models")
        self.assertEqual(
            got, ["ROOT/models/iris/3", "ROOT/models/iris/3/model.pkl", "ROOT/models/iris/3/model.pkl"]
        )

    def test_several_models_share_a_folder(self) -> None:
        self.write({"models/a/9/f": "", "models/a/10/sub/f": "", "models/b/1/x": "", "models/b/1/y": ""})
        got = self.paths("dir", "a", "a:9", "b", "c", "a:7", models=self.root + "/models")
        self.assertEqual(
            got[:4], ["ROOT/models", "ROOT/models/a/10/sub", "ROOT/models/a/9/f", "ROOT/models/b/1"]
        )
        for told in got[4:]:
            self.assertTrue(told.startswith("ModelNotFoundException: model "), told)

    def test_a_folder_that_is_a_model(self) -> None:
        self.write({"mine/saved_model.pb": "", "mine/variables/v": ""})
        self.assertEqual(self.paths("dir", "any", models=self.root + "/mine"), ["ROOT/mine", "ROOT/mine"])

    def test_a_folder_of_numbers_may_be_a_model_too(self) -> None:
        self.write({"mine/1/a": "", "mine/b.txt": ""})
        self.assertFalse(layout.find(self.root + "/mine").registered)

    def test_a_file_beside_the_script_is_found_as_it_is_named(self) -> None:
        self.write({"models/iris/3/m": "", "code/local.pkl": ""})
        self.assertEqual(self.paths("local.pkl", models=self.root + "/models"), ["local.pkl"])

    def test_a_variable_of_the_deployment_s_own_counts_first(self) -> None:
        self.write({"models/iris/3/sub/m": ""})
        reply = self.run_script(
            "import os\ndef init():\n    pass\ndef run(data):\n    return os.environ['AZUREML_MODEL_DIR']\n",
            lambda s: post(s, b""),
            {"AZUREML_MODEL_DIR": "/elsewhere"},
            models=self.root + "/models",
        )
        self.assertEqual(reply.body, b'"/elsewhere"')

    def test_the_tree_for_the_log_is_bounded(self) -> None:
        self.write({"m/%d/f" % i: "" for i in range(5)})
        lines = layout.tree(self.root + "/m", 4)
        self.assertEqual(lines[:3], ["m/", "    0/", "        f"])
        self.assertEqual((len(lines), lines[4]), (5, "... only the first 4 lines are shown"))


class BesideRealPackages(Case):
    def test_a_package_that_is_there_in_part_keeps_its_part(self) -> None:
        if has("azureml"):
            self.skipTest("azureml is installed here")
        self.write(
            {
                "site/azureml/__init__.py": "",
                "site/azureml/core/__init__.py": "REAL = 1\n",
                "models/iris/3/m": "",
            }
        )
        source = PATHS.replace(
            "import os",
            "import os\nimport azureml.core\nfrom azureml.contrib.services.aml_request import rawhttp",
            1,
        )
        source = source.replace("def init():\n    pass", "def init():\n    assert azureml.core.REAL == 1")
        got = self.beside(source, b"iris")
        self.assertTrue(got.endswith("/models/iris/3/m"), got)

    def test_the_real_model_class_finds_the_models(self) -> None:
        if has("azureml"):
            self.skipTest("azureml is installed here")
        self.write(
            {
                "site/azureml/__init__.py": "",
                "site/azureml/core/__init__.py": "",
                "site/azureml/core/model.py": """
                    MODELS_DIR = 'azureml-models'
                    class Model:
                        @staticmethod
                        def get_model_path(name, version=None):
                            return 'real ' + MODELS_DIR + '|' + type(__loader__).__name__
                """,
                "models/iris/3/m": "",
            }
        )
        source = PATHS.replace(
            "import os",
            "import os\nimport azureml.core\nfrom azureml.contrib.services.aml_request import rawhttp",
            1,
        )
        source = source.replace("def init():\n    pass", "def init():\n    assert azureml.core.REAL == 1")
        got = self.beside(source, b"iris")
        self.assertTrue(got.endswith("/models/iris/3/m"), got)

    def test_the_real_model_class_finds_the_models(self) -> None:
        if has("azureml"):
            self.skipTest("azureml is installed here")
        self.write(
            {
                "site/azureml/__init__.py": "",
                "site/azureml/core/__init__.py": "",
                "site/azureml/core/model.py": "MODELS_DIR = 'azureml-models'\nclass Model:\n    @staticmethod\n    def get_model_path(name, version=None):\n        return 'real ' + MODELS_DIR + '|' + type(__loader__).__name__\n",
                "models/iris/3/m": "",
            }
        )
        self.assertEqual(self.beside(PATHS, b"iris"), "real " + self.root + "/models|SourceFileLoader")

    def beside(self, source: str, name: bytes) -> str:
        def work(service: object) -> object:
            return json.loads(post(service, name).body)

        sys.path.append(self.root + "/site")
        self.addCleanup(sys.path.remove, self.root + "/site")
        return self.run_script(source, work, models=self.root + "/models")
