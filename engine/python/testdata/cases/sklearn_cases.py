"""scikit-learn: estimators of every kind that answers differently."""

from __future__ import annotations

import os
import pickle
from typing import Any, Callable, Dict, List

import joblib
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from . import Case

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
SPECIES = np.array(["setosa", "versicolor", "virginica"])[Y]
BOTH = "predict predict_proba"
ASKED = {"input": X[::15] + 0.01}


def case(name: str, model: Any, methods: str, inputs: Dict[str, Any], **how: Any) -> Case:
    """A case of a fitted model; how has save, and data, which makes the model's argument of the
    inputs.
    """
    save: Callable[[Any, str], None] = how.get("save", joblib.dump)
    file = how.get("file", "model.joblib")
    data = how.get("data", lambda values: values["input"])

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        loaded = joblib.load(os.path.join(folder, file))
        answers: Dict[str, Any] = {}
        for method in methods.split():
            given = getattr(loaded, method)(data(values))
            if isinstance(given, list):
                answers.update({"%s_%d" % (method, i): g for i, g in enumerate(given)})
            else:
                answers[method] = given
        return answers

    return Case(
        name,
        how.get("format", "sklearn"),
        file,
        inputs,
        lambda folder: save(model, os.path.join(folder, file)),
        reference,
    )


def save_pickle(protocol: int) -> Callable[[Any, str], None]:
    """A function that pickles by a protocol."""

    def save(model: Any, path: str) -> None:
        with open(path, "wb") as file:
            pickle.dump(model, file, protocol)

    return save


def save_joblib(compress: Any) -> Callable[[Any, str], None]:
    """A function that saves by joblib, compressed."""
    return lambda model, path: joblib.dump(model, path, compress=compress)


def titanic() -> pd.DataFrame:
    """A table of numbers and texts, some of them missing."""
    rng = np.random.RandomState(7)
    table = pd.DataFrame(
        {
            "age": rng.randint(1, 80, 120).astype(float),
            "fare": rng.rand(120) * 90,
            "sex": rng.choice(["female", "male"], 120),
            "port": rng.choice(["C", "Q", "S"], 120),
        }
    )
    table.loc[::9, "age"] = np.nan
    return table


def table_case() -> Case:
    """A pipeline that finds its columns by name."""
    table = titanic()
    survived = ((table["sex"] == "female") | (table["fare"] > 60)).astype(int)
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
                ("texts", OneHotEncoder(), ["sex", "port"]),
            ]
        ),
        LogisticRegression(),
    ).fit(table, survived)
    asked = {
        c: table[c].to_numpy()[:8].astype(object if table[c].dtype.kind not in "fi" else float)
        for c in table.columns
    }
    return case("sklearn-table", model, "predict predict_proba", asked, data=pd.DataFrame)


def text_case() -> Case:
    """Documents, not numbers."""
    good, bad = (
        ["good", "fine wine", "very good day", "fine"],
        ["bad", "awful day", "very bad", "awful wine"],
    )
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        good + bad, ["yes"] * 4 + ["no"] * 4
    )
    asked = np.array(["a good day", "awful", "day"], dtype=object)
    return case(
        "sklearn-texts",
        model,
        "predict predict_proba",
        {"input": asked},
        data=lambda v: v["input"].tolist(),
    )


def encoder_case() -> Case:
    """Texts in a matrix, without names."""
    table = titanic()[["sex", "port"]].to_numpy(dtype=object)
    model = make_pipeline(OrdinalEncoder(), KNeighborsClassifier(3)).fit(
        table, np.arange(len(table)) % 2 == 0
    )
    return case("sklearn-encoder", model, "predict predict_proba", {"input": table[:6]})


def saved_cases() -> List[Case]:
    """Estimators that differ in how their file was written."""
    return [
        case(
            "sklearn-logistic",
            LogisticRegression(max_iter=300).fit(X, Y),
            BOTH,
            ASKED,
            save=save_pickle(4),
            file="model.pkl",
        ),
        case(
            "sklearn-protocol0",
            LogisticRegression(max_iter=300).fit(X, Y),
            BOTH,
            ASKED,
            save=save_pickle(0),
            file="model.pkl",
        ),
        case(
            "sklearn-zlib",
            RandomForestClassifier(3, max_depth=2, random_state=0).fit(X, Y),
            BOTH,
            ASKED,
            save=save_joblib(3),
        ),
        case(
            "sklearn-gzip",
            LogisticRegression(max_iter=300).fit(X, SPECIES),
            BOTH,
            ASKED,
            save=save_joblib(("gzip", 3)),
            file="model.joblib.gz",
        ),
        case(
            "sklearn-bz2",
            StandardScaler().fit(X),
            "transform",
            ASKED,
            save=save_joblib(("bz2", 3)),
            file="model.joblib.bz2",
        ),
        case(
            "sklearn-xz",
            LinearSVC(random_state=0).fit(X, Y),
            "predict decision_function",
            ASKED,
            save=save_joblib(("xz", 3)),
            file="model.joblib.xz",
        ),
    ]


def cases() -> List[Case]:
    """All cases."""
    return saved_cases() + plain_cases() + [table_case(), text_case(), encoder_case()]


def plain_cases() -> List[Case]:
    """Estimators that differ in what they answer."""
    named = pd.DataFrame(X, columns=["sepal_length", "sepal_width", "petal_length", "petal_width"])
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC(random_state=0)), {"svc__C": [0.5, 1]}, cv=2
    )
    return [
        case(
            "sklearn-forest",
            RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, SPECIES),
            BOTH,
            ASKED,
        ),
        case(
            "sklearn-regressor",
            GradientBoostingRegressor(n_estimators=5, random_state=0).fit(X[:, :3], X[:, 3]),
            "predict",
            {"input": X[::15, :3]},
        ),
        case(
            "sklearn-targets",
            LinearRegression().fit(X[:, :2], X[:, 2:]),
            "predict",
            {"input": X[::15, :2]},
        ),
        case(
            "sklearn-outputs",
            MultiOutputClassifier(LogisticRegression(max_iter=300)).fit(X, np.stack([Y, Y % 2], 1)),
            BOTH,
            ASKED,
        ),
        case("sklearn-clusters", KMeans(3, n_init=2, random_state=0).fit(X), "predict", ASKED),
        case(
            "sklearn-outliers",
            IsolationForest(n_estimators=5, random_state=0).fit(X),
            "predict decision_function",
            ASKED,
        ),
        case("sklearn-search", search.fit(X, SPECIES), "predict decision_function", ASKED),
        case(
            "sklearn-named",
            RandomForestClassifier(3, max_depth=2, random_state=0).fit(named, Y),
            BOTH,
            ASKED,
            data=lambda v: pd.DataFrame(v["input"], columns=named.columns),
        ),
    ]
