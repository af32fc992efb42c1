"""From a graph to a ``FactorModel``: the spectral part, what the learned vectors start from, and the finished space."""

from __future__ import annotations

import numpy as np
import torch

from graph_store.settings import TrainingSettings
from model_store.features import FeatureTransforms
from training.graph import Graph
from training.space_model import SpaceShape
from training.transductive.factor_model import FactorModel, factor_shape
from training.transductive.interactions import Interactions
from training.transductive.softmax import UserSoftmax
from training.transductive.spectral import Spectral, fit_spectral


class FactorTraining:
    """One training of the space ``user``: ``model`` and ``objective`` for the loop, then ``finish``."""

    def __init__(self, graph: Graph, transforms: FeatureTransforms, settings: TrainingSettings) -> None:
        self.graph, self.own = graph, settings.user
        self.interactions = Interactions.of(graph)
        shape = SpaceShape.of("user", graph, transforms, self.own, inner_product=True)
        self.model = FactorModel(factor_shape(shape, graph, self.own), self.own)
        self.spectral = self._spectral(settings.seed)
        with torch.no_grad():
            start = torch.from_numpy(self.spectral.start(self.own.hidden))
            self.model.learned_users.copy_(start[: self.interactions.users])
            self.model.learned_entities.copy_(start[self.interactions.users :])
        self.objective = UserSoftmax(self.interactions, self.model, settings.seed)

    def finish(self) -> FactorModel:
        """The model with what its nodes tell their neighbours, reduced to the published dimension; on the CPU."""
        model = self.model.cpu().eval()
        propagation, users = self.objective.propagation, self.interactions.users
        learned = torch.cat([model.learned_users, model.learned_entities]).detach().numpy()
        # A neighbour adds its layers 0 to K - 1 to this node's layers 1 to K.
        told = propagation.total(learned, max(propagation.layers - 1, 0))
        degrees = np.concatenate([self.interactions.user_degrees, self.interactions.entity_degrees])
        told /= np.sqrt(np.maximum(degrees, 1.0))[:, None]
        width = model.shape.signal_width
        model.set_messages(
            np.hstack([self.spectral.of_users()[:, :width], told[:users]]),
            np.hstack([self.spectral.of_entities(self.own.spectrum)[:, :width], told[users:]]),
        )
        model.fit_projection(self.graph)
        return model

    def _spectral(self, seed: int) -> Spectral:
        own = self.own
        return fit_spectral(
            self.interactions,
            rank=max(self.model.shape.signal_width, own.hidden),
            user_power=own.user_power,
            entity_power=own.entity_power,
            seed=seed,
        )
