"""The spectral part of user vectors: a truncated SVD of the interactions, divided by powers of the degrees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.factorise import right_factors
from training.transductive.interactions import Interactions

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """``D_u^-a R D_e^-b = U s V'``; scores are ``U s^q`` times ``D_e^b V``.

    With a = b = 1/2 this is the ideal low-pass part of GF-CF (Shen et al. 2021, arXiv 2108.07567). ``a`` below 1/2 lets
    users with many engagements count for more in what is kept, ``b`` below 1/2 popular entities.
    """

    users: Floats
    """U ``[users, rank]``."""
    strength: Floats
    """s ``[rank]``, the largest is 1; 0 where the matrix has no more."""
    entities: Floats
    """V ``[entities, rank]``."""
    user_scale: Floats
    """``d_u^-a``."""
    entity_scale: Floats
    """``d_e^-b``."""

    def of_entities(self, spectrum: float) -> Floats:
        """What entities tell their users ``[entities, rank]``; the sum is ``d_u^a U s^spectrum``."""
        inverse = np.where(self.strength > 0, np.maximum(self.strength, 1e-30) ** (spectrum - 1.0), 0.0)
        return np.asarray(self.entities * inverse * self.entity_scale[:, None], np.float32)

    def of_users(self) -> Floats:
        """What users tell their entities ``[users, rank]``; the sum is ``d_e^b V``."""
        inverse = np.where(self.strength > 0, 1.0 / np.maximum(self.strength, 1e-30), 0.0)
        return np.asarray(self.users * inverse * self.user_scale[:, None], np.float32)

    def start(self, width: int) -> Floats:
        """Where learned vectors begin: ``[U s; V s]``, its first columns, of mean squared length 1 on each side."""
        parts = []
        for side in (self.users, self.entities):
            first = np.zeros((len(side), width), np.float32)
            first[:, : min(width, side.shape[1])] = (side * self.strength)[:, :width]
            parts.append(first * np.sqrt(len(first) / max(float(np.sum(first**2)), 1e-30)))
        return np.concatenate(parts).astype(np.float32)


def fit_spectral(
    interactions: Interactions, *, rank: int, user_power: float, entity_power: float, seed: int
) -> Spectral:
    """Factorise the interactions; the rank is cut to what the matrix can have."""
    scaled = interactions.links(user_power, entity_power)
    right = right_factors(scaled, rank, seed)
    left = scaled.times(right)
    strength = np.linalg.norm(left, axis=0)
    first = max(float(strength.max(initial=0.0)), 1e-30)
    there = strength > 1e-6 * first
    # The singular values of the matrix divided by its largest, so that the messages add up to U and V.
    return Spectral(
        users=np.asarray(left * there / np.where(there, strength, 1.0), np.float32),
        strength=np.asarray(strength * there / first, np.float32),
        entities=np.asarray(right * there, np.float32),
        user_scale=np.asarray(np.maximum(interactions.user_degrees, 1.0) ** -user_power / first, np.float32),
        entity_scale=np.asarray(np.maximum(interactions.entity_degrees, 1.0) ** -entity_power / first, np.float32),
    )
