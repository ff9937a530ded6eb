"""Which package to install for a module that is not there, where their names differ."""

from __future__ import annotations

# Names that differ from that of their package.
_PACKAGES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "inference_schema": "inference-schema",
    "flask_cors": "flask-cors",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "pyjwt",
    "google.protobuf": "protobuf",
    "google.cloud.storage": "google-cloud-storage",
    "sentence_transformers": "sentence-transformers",
    "onnxruntime_extensions": "onnxruntime-extensions",
    "pytorch_lightning": "pytorch-lightning",
    "pandas_ml": "pandas-ml",
    "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders",
    "umap": "umap-learn",
    "fitz": "pymupdf",
    "docx": "python-docx",
    "pptx": "python-pptx",
    "magic": "python-magic",
    "Crypto": "pycryptodome",
    "OpenSSL": "pyopenssl",
    "serial": "pyserial",
    "usb": "pyusb",
    "zmq": "pyzmq",
    "faiss": "faiss-cpu",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "attr": "attrs",
    "pkg_resources": "setuptools",
    "distutils": "setuptools",
    "win32api": "pywin32",
    "tensorflow_hub": "tensorflow-hub",
    "tensorflow_text": "tensorflow-text",
    "tflite_runtime": "tflite-runtime",
    "torch_geometric": "torch-geometric",
    "open_clip": "open-clip-torch",
    "clip": "openai-clip",
    "whisper": "openai-whisper",
    "rest_framework": "djangorestframework",
    "azureml.core": "azureml-core",
    "azureml.dataprep": "azureml-dataprep",
    "azureml.train": "azureml-train-core",
    "azureml.automl": "azureml-automl-runtime",
    "azureml.interpret": "azureml-interpret",
    "azureml.explain": "azureml-interpret",
    "azureml.monitoring": "azureml-monitoring",
    "azureml.contrib.services": "azureml-contrib-services",
    "azureml": "azureml-core",
    "azureml_inference_server_http": "azureml-inference-server-http",
    "azure.storage.blob": "azure-storage-blob",
    "azure.identity": "azure-identity",
    "azure.keyvault.secrets": "azure-keyvault-secrets",
    "azure.ai.ml": "azure-ai-ml",
    "azureml.ai.monitoring": "azureml-ai-monitoring",
    "opencensus.ext.azure": "opencensus-ext-azure",
}


def requirement(module: str) -> str:
    """The line for requirements.txt that brings a module: the longest name known, or else the name
    of its outermost package."""
    name = module
    while name:
        if name in _PACKAGES:
            return _PACKAGES[name]
        name = name.rpartition(".")[0]
    return module.partition(".")[0]
