"""Scripts that cannot be loaded: each tells its phase, its cause and what to do."""

from __future__ import annotations

from .apart import INIT, Case, has, post

RUN = "def run(data):\n    return 1\n"
GOOD = INIT + RUN


class Load(Case):
    def check(self, source: str, phase: str, *texts: str, **more: str) -> None:
        failure = self.fails(source, **more)
        told = failure.message + "\n" + failure.hint
        self.assertEqual(failure.phase, phase, told)
        for text in texts:
            self.assertIn(text, told)

    def test_functions_that_are_missing(self) -> None:
        self.check(RUN, "contract", "score.py: it has no function init()")
        self.check(INIT, "contract", "score.py: it has no function run()")

    def test_a_run_that_cannot_be_called_by_names(self) -> None:
        for parameters, text in (
            ("*args", "*args"),
            ("data, **more", "**more"),
            ("data, /", "data"),
            ("", "no parameter for the request"),
            ("request_headers", "no parameter for the request"),
        ):
            with self.subTest(parameters=parameters):
                self.check(INIT + "def run(%s):\n    return 1\n" % parameters, "contract", "run()", text)
        self.check(INIT + "run = 3\n", "contract", "run(): it is no function")

    def test_a_syntax_error_names_file_and_line(self) -> None:
        self.check(INIT + "def run(data)\n    return 1\n", "syntax", "score.py, line 3")
        self.write({"code/helper.py": "x = = 1\n"})
        self.check("import helper\n" + GOOD, "syntax", "helper.py, line 1")

    def test_a_missing_package_names_the_line_to_add(self) -> None:
        for module, package in (
            ("sklearn.svm", "scikit-learn"),
            ("cv2", "opencv-python-headless"),
            ("PIL", "pillow"),
            ("nowhere_at_all", "nowhere_at_all"),
        ):
            with self.subTest(module=module):
                if has(module.split(".")[0]):
                    self.skipTest("%s is installed here" % module)
                failure = self.fails("import os\nimport %s\n" % module + GOOD)
                self.assertEqual((failure.phase, failure.missing), ("import", package))
                self.assertIn(
                    "score.py, line 2: there is no module %s" % module.split(".")[0], failure.message
                )
                self.assertIn("add the line %s to requirements.txt" % package, failure.hint)

    def test_a_part_that_the_installed_package_does_not_have(self) -> None:
        failure = self.fails("import json.nothing\n" + GOOD)
        self.assertEqual((failure.phase, failure.missing), ("import", ""))
        self.assertIn("this version of it has no json.nothing", failure.hint)
        self.check(
            "from json import nothing\n" + GOOD, "import", "cannot import name 'nothing'", "does not fit"
        )

    def test_a_module_in_another_folder_of_the_code(self) -> None:
        self.write({"code/src/lib/helper.py": "X = 1\n"})
        self.check("import helper\n" + GOOD, "import", "AZUREML_SOURCE_DIRECTORY=src/lib", "src.lib.helper")

    def test_parts_of_azure_packages_that_no_stand_in_has(self) -> None:
        if has("azureml"):
            self.skipTest("azureml is installed here")
        for line in ("from azureml.core import Workspace", "import azureml.core.webservice"):
            with self.subTest(line=line):
                failure = self.fails(line + "\n" + GOOD)
                self.assertEqual(failure.missing, "azureml-core", failure.message)

    def test_what_an_import_raises(self) -> None:
        self.check("import sys\nsys.exit(0)\n" + GOOD, "import", "score.py, line 2", "sys.exit()")
        self.check("x = undefined\n" + GOOD, "import", "score.py, line 1: NameError")

    def test_an_init_that_fails_tells_where_and_shows_the_models(self) -> None:
        self.write({"models/iris/1/m.bin": ""})
        source = "def init():\n    open('nowhere')\n" + RUN
        failure = self.fails(source, models=self.root + "/models")
        self.assertEqual(failure.phase, "init")
        self.assertIn("init() failed at score.py, line 2: FileNotFoundError", failure.message)
        self.assertIn("iris/1", failure.hint)
        self.assertNotIn("zarpa_worker/", failure.traceback)
        self.check("import sys\ndef init():\n    sys.exit()\n" + RUN, "init", "sys.exit()")

    def test_an_entry_that_is_not_there(self) -> None:
        self.check(GOOD, "contract", "src/none.py is not in the code", "score.py", entry="src/none.py")

    def test_settings_that_cannot_be_read(self) -> None:
        failure = self.fails(GOOD, {"SCORING_TIMEOUT_MS": "soon"})
        self.assertIn("SCORING_TIMEOUT_MS: soon", failure.message)
        failure = self.fails(GOOD, {"AML_CORS_ORIGINS": "https://(["})
        self.assertIn("AML_CORS_ORIGINS", failure.message)
        for text in ("[1]", "{"):
            self.write({"code/config.json": text})
            self.check(GOOD, "contract", "config.json: ")

    def test_swagger_files_that_cannot_be_read(self) -> None:
        self.write({"code/swagger3.json": "{"})
        from zarpa_worker.errors import LoadError

        with self.assertRaises(LoadError) as caught:
            self.run_script(GOOD, lambda s: s.swagger())
        self.assertIn("swagger3.json", caught.exception.message)

    def test_main_is_the_script_where_none_is_named(self) -> None:
        self.write({"code/main.py": "def init():\n    pass\ndef run(data):\n    return 'main'\n"})
        reply = self.run_script(GOOD, lambda s: post(s, b""), entry="")
        self.assertEqual(reply.body, b'"main"')

    def test_the_file_of_settings_counts_after_the_environment(self) -> None:
        self.write(
            {
                "code/config.json": '{"AZUREML_ENTRY_SCRIPT": "other.py", "SERVICE_NAME": "n"}',
                "code/other.py": "def init():\n    pass\ndef run(data):\n    return 'other'\n",
            }
        )
        reply = self.run_script(GOOD, lambda s: post(s, b""), entry="")
        self.assertEqual(reply.body, b'"other"')
        reply = self.run_script(GOOD, lambda s: post(s, b""), {"AZUREML_ENTRY_SCRIPT": "score.py"}, entry="")
        self.assertEqual(reply.body, b"1")
