"""What training asks for: positive pairs drawn from the graph, and the losses over batches of them."""

from training.objectives.candidates import Candidates, contrast, draw_candidates
from training.objectives.hard_negatives import HardNegatives
from training.objectives.objective import Objective
from training.objectives.pairs import PairSource, PairTasks, similar_tasks
from training.objectives.similar import SimilarLoss
from training.objectives.user import UserLoss

__all__ = [
    "Candidates",
    "HardNegatives",
    "Objective",
    "PairSource",
    "PairTasks",
    "SimilarLoss",
    "UserLoss",
    "contrast",
    "draw_candidates",
    "similar_tasks",
]
