"""The two click models that get tabular columns, and with them vectors: logistic regression and boosted trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOGISTIC_REGRESSION = "logistic regression"
BOOSTED_TREES = "boosted trees"

_TRIALS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    LOGISTIC_REGRESSION: tuple({"C": c} for c in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    BOOSTED_TREES: tuple(
        {"max_leaf_nodes": leaves, "learning_rate": 0.05, "max_iter": trees, "l2_regularization": 10.0}
        for leaves in (4, 8, 16, 31)
        for trees in (100, 200)
    ),
}
"""What is tried of each model, the same with and without vectors."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One click model with the settings chosen for it."""

    model: str
    chosen: dict[str, Any]
    trials: int
    validated: float
    """ROC-AUC of the chosen settings on the newest of the training rows, fitted on the others."""
    scores: Floats
    """Of the rows asked for, ``[rows]``."""


def fit_click_model(
    model: str, train: Floats, clicked: NDArray[np.bool_], newest: NDArray[np.bool_], asked: Floats, *, seed: int
) -> Fitted:
    """Choose the settings on the ``newest`` training rows, fitted on the others; fit on all of them; score ``asked``.

    By time and not by random folds, in which trees do well that tell one user of a day from another.
    """
    from sklearn.metrics import roc_auc_score

    build = _BUILDERS[model]
    found = []
    for settings in _TRIALS[model]:
        estimator = build(settings, seed).fit(train[~newest], clicked[~newest])
        found.append(float(roc_auc_score(clicked[newest], estimator.predict_proba(train[newest])[:, 1])))
    best = int(np.argmax(found))
    estimator = build(_TRIALS[model][best], seed).fit(train, clicked)
    return Fitted(
        model=model,
        chosen=dict(_TRIALS[model][best]),
        trials=len(found),
        validated=found[best],
        scores=np.asarray(estimator.predict_proba(asked)[:, 1], dtype=np.float64),
    )


def _logistic_regression(settings: Mapping[str, Any], seed: int) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression(max_iter=2000, **settings)
    )


def _boosted_trees(settings: Mapping[str, Any], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed, early_stopping=False, **settings)


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any], int], Any]] = {
    LOGISTIC_REGRESSION: _logistic_regression,
    BOOSTED_TREES: _boosted_trees,
}
CLICK_MODELS = tuple(_BUILDERS)
