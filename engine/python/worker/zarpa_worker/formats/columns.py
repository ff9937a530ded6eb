"""What a scikit-learn estimator takes: one matrix, texts, or a table whose columns differ.

An estimator says how many features it takes and, when it was fitted on a table, what they are
called. Their types are not kept; encoders, imputers and vectorizers in it tell which are texts.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence

# What a column holds as far as can be told, and a value that it is sure to know; None is a number.
Column = Optional["Sample"]


class Sample(NamedTuple):
    """A value that an encoder has seen."""

    text: bool
    value: Any


class Layout(NamedTuple):
    """How an estimator takes its input: kind is "matrix", "texts" (one column of documents) or
    "table".
    """

    kind: str
    names: List[str]
    columns: List[Column]
    # whether names are those of a table that it was fitted on
    named: bool


def layout(model: Any) -> Layout:
    """Find out how an estimator takes its input; no columns at all mean that it does not say."""
    names = [str(n) for n in _attribute(model, "feature_names_in_", [])]
    count = len(names) or int(_attribute(model, "n_features_in_", 0) or 0)
    inner = first(model)
    if is_vectorizer(inner) and not names:
        return Layout("texts", [], [Sample(True, "")], False)
    if not count:
        names = names or [str(n) for n in _attribute(inner, "feature_names_in_", [])]
        count = len(names) or int(_attribute(inner, "n_features_in_", 0) or 0)
    columns = known(model, count, names) if count else []
    columns = columns or [None] * count
    table = bool(names) and needs_table(inner)
    mixed = any(c is not None and c.text for c in columns) and not all(
        c is not None and c.text for c in columns
    )
    if table or mixed or (names and any(c is not None and c.text for c in columns)):
        return Layout("table", names or ["x%d" % i for i in range(count)], columns, bool(names))
    return Layout("matrix", names, columns, bool(names))


def _attribute(model: Any, name: str, default: Any) -> Any:
    """An attribute, or the default where reading it fails: some are properties of what is not
    fitted.
    """
    try:
        value = getattr(model, name, default)
    except Exception:
        return default
    return default if value is None else value


def wrapped(model: Any) -> Any:
    """The estimator inside one that only searches, calibrates, repeats or combines; None for
    others.
    """
    for name in ("best_estimator_", "regressor_", "estimator_"):
        inner = _attribute(model, name, None)
        if hasattr(inner, "get_params"):
            return inner
    for name in ("estimators_", "calibrated_classifiers_"):
        several = _attribute(model, name, None)
        if isinstance(several, list) and several:
            inner = getattr(several[0], "estimator", several[0])
            if hasattr(inner, "get_params"):
                return inner
    return None


def steps(model: Any) -> List[Any]:
    """A pipeline's estimators, in order."""
    listed = _attribute(model, "steps", None)
    if not isinstance(listed, list):
        return []
    return [s[1] for s in listed if s[1] is not None and s[1] != "passthrough"]


def first(model: Any) -> Any:
    """The estimator that gets the input first."""
    for _ in range(32):
        inner = (steps(model) or [None])[0] or wrapped(model)
        if inner is None:
            return model
        model = inner
    return model


def is_vectorizer(model: Any) -> bool:
    """Whether it takes documents: a CountVectorizer or one of its kind."""
    return hasattr(model, "build_analyzer")


def needs_table(model: Any) -> bool:
    """Whether it finds its columns by their names."""
    for _, _, chosen in _attribute(model, "transformers", []) or []:
        if isinstance(chosen, str) or callable(chosen):
            return True
        if isinstance(chosen, (list, tuple)) and chosen and isinstance(chosen[0], str):
            return True
    return any(needs_table(t) for _, t in _attribute(model, "transformer_list", []) or [])


def known(model: Any, count: int, names: Sequence[str]) -> List[Column]:
    """What the parts of an estimator know of its columns; empty where they say nothing."""
    categories = _attribute(model, "categories_", None)
    if isinstance(categories, list) and len(categories) == count:
        return [_of_categories(c) for c in categories]
    statistics = _attribute(model, "statistics_", None)
    if (
        statistics is not None
        and len(statistics) == count
        and any(isinstance(s, str) for s in statistics)
    ):
        return [Sample(isinstance(s, str), s) for s in statistics]
    if is_vectorizer(model):
        return [Sample(True, "")] * count
    if hasattr(model, "transformers_"):
        return _of_transformers(model, count, names)
    for _, part in _attribute(model, "transformer_list", []) or []:
        found = known(part, count, names)
        if any(found):
            return found
    for step in steps(model):
        found = known(step, count, names)
        if any(found):
            return found
    inner = wrapped(model)
    return known(inner, count, names) if inner is not None else []


def _of_categories(categories: Any) -> Column:
    values = [c for c in list(categories) if c is not None and c == c]
    if not values:
        return None
    return Sample(isinstance(values[0], str), values[0])


def _of_transformers(model: Any, count: int, names: Sequence[str]) -> List[Column]:
    """The columns of a ColumnTransformer, of which each goes to some of its parts."""
    columns: List[Column] = [None] * count
    for _, part, chosen in model.transformers_:
        if isinstance(part, str):
            continue  # "drop" or "passthrough"
        places = _places(chosen, count, names)
        found = known(part, len(places), [names[i] for i in places] if names else [])
        for place, column in zip(places, found):
            if column is not None and (columns[place] is None or column.text):
                columns[place] = column
    return columns


def _places(chosen: Any, count: int, names: Sequence[str]) -> List[int]:
    """The numbers of the columns that a part of a ColumnTransformer was given."""
    every = range(count)
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = names.index(chosen.start) if chosen.start else 0
            stop = names.index(chosen.stop) + 1 if chosen.stop else count
            return list(every[start:stop])
        return list(every[chosen])
    if isinstance(chosen, (str, int)):
        chosen = [chosen]
    listed = list(chosen)
    if listed and isinstance(listed[0], str):
        return [list(names).index(c) for c in listed if c in names]
    if len(listed) == count and all(str(c) in ("True", "False") for c in listed):
        return [i for i in every if listed[i]]
    return [int(c) for c in listed]
