"""What training asks for: positive pairs drawn from the graph, and the losses over batches of them."""

from training.objectives.in_batch import in_batch_softmax
from training.objectives.objective import Objective
from training.objectives.pairs import PairSource, PairTasks, similar_tasks
from training.objectives.similar import SimilarLoss
from training.objectives.user import UserLoss

__all__ = ["Objective", "PairSource", "PairTasks", "SimilarLoss", "UserLoss", "in_batch_softmax", "similar_tasks"]
