"""What calls answer: frozen, typed, plain Python values; lists of results iterate and index like lists."""

from __future__ import annotations

from kithkin.types.answers import Answer as Answer
from kithkin.types.answers import Batch as Batch
from kithkin.types.answers import Explanation as Explanation
from kithkin.types.answers import Fallback as Fallback
from kithkin.types.answers import Nodes as Nodes
from kithkin.types.answers import Page as Page
from kithkin.types.answers import ResponseInfo as ResponseInfo
from kithkin.types.answers import Results as Results
from kithkin.types.answers import Score as Score
from kithkin.types.answers import Scores as Scores
from kithkin.types.nodes import Node as Node
from kithkin.types.nodes import PropertyValue as PropertyValue
from kithkin.types.nodes import Reason as Reason
from kithkin.types.nodes import Ref as Ref
from kithkin.types.nodes import ScoredEntity as ScoredEntity
from kithkin.types.status import Activation as Activation
from kithkin.types.status import Bundles as Bundles
from kithkin.types.status import BundleStatus as BundleStatus
from kithkin.types.status import BundleSummary as BundleSummary
from kithkin.types.status import DeltaStatus as DeltaStatus
from kithkin.types.status import Health as Health
from kithkin.types.status import IndexStatus as IndexStatus
from kithkin.types.status import Metric as Metric
from kithkin.types.status import SpaceStatus as SpaceStatus
from kithkin.types.status import Status as Status
from kithkin.types.vectors import Vector as Vector
from kithkin.types.vectors import Vectors as Vectors
