"""Linear references: a logistic regression on the model's last state, and on the rule service's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.learning.decision.ceiling.arms import Arm
from benchmarks.learning.decision.ceiling.learner import policy_of
from benchmarks.learning.decision.ceiling.runner import CeilingFolders, CeilingPrompts, split_by_name
from benchmarks.learning.decision.experiment.prompt_sets import Sets
from benchmarks.learning.decision.experiment.settings import Experiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

INVERSE_PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(-5, 2.5, 0.5))
FOLDS = 5


def last_state_features(
    experiment: Experiment, folders: CeilingFolders, arm: Arm
) -> tuple[CeilingPrompts, list[Floats]]:
    """Returns the prompts, and the states from which the untrained model predicts the first token.

    Args:
        arm: determines only below which layers the cached states end.
    """
    policy = policy_of(arm, folders.model, bfloat16=False)
    prompts = CeilingPrompts(experiment, folders.data, policy.tokenizer)
    return prompts, [
        policy.final_states(policy.encode(_texts(sets), folders.cache)).numpy()
        for sets in (prompts.training, prompts.measured, prompts.more)
    ]


def service_features(prompts: CeilingPrompts, artefact: Path) -> list[Floats]:
    """Returns the vectors of the prompts from the encoders of the rule service.

    Args:
        artefact: folder of the index; the vectors are cached beside it.

    Raises:
        RuleServiceError: the index cannot be loaded.
    """
    from benchmarks.retrieval.cached_encoder import CachedEncoder
    from rule_server.retrieval.build import load_or_build
    from rule_server.settings import load_settings

    loaded = load_or_build(load_settings(artefact=artefact, watch=False), lambda line: None)
    encoder = CachedEncoder(loaded.encoder, artefact.parent)
    features = [encoder.encode(_texts(sets)) for sets in (prompts.training, prompts.measured, prompts.more)]
    encoder.save()
    return features


def fit_probe(prompts: CeilingPrompts, features: Sequence[Floats]) -> dict[str, Any]:
    """Fits a logistic regression to the labels of the training prompts, as strong as cross-validation says.

    Args:
        features: (N, H) of the training prompts, of the measured ones and of the further ones.

    Returns:
        A result like that of an arm's last epoch, with the chosen strength and its cross-validated AUC.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")),
        {"logisticregression__C": list(INVERSE_PENALTIES)},
        scoring="roc_auc",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
    )
    training, measured, more = features
    search.fit(training, prompts.labels())
    return {
        "seed": 0,
        "epoch": 1,
        "inverse_penalty": search.best_params_["logisticregression__C"],
        "learnt_auc": round(float(search.best_score_), 4),
        "unseen": prompts.unseen,
        "log_odds": split_by_name(np.round(search.decision_function(measured), 6), prompts.measured),
        "more": split_by_name(np.round(search.decision_function(more), 6), prompts.more),
    }


def _texts(sets: Sets) -> list[str]:
    return [prompt.prompt for prompts in sets.values() for prompt in prompts]
