"""Click prediction: which of the entities that a user was shown they click (GraphSAGE as Zalando uses it).

The order of the modules: ``data`` (the rows and the graph of each part), ``tabular`` (features of users and entities
without vectors, and the two click models), ``model`` (the graph network), ``fit`` (its training), ``protocol`` (what is
measured). What an encoder of clicks builds on is ``ClickFrame``:

    frame = ClickFrame.of(snapshot, settings.evaluation.clicks[0], "per_user")
    frame.split.supervision           # Clicks: users, entities, time, clicked
    graph = frame.graph(frame.split.message)    # training.graph.Graph, schema and all, with these links only
    graph.csr(EdgeType(frame.clicked))          # User -> Film, clicked; frame.passed: viewed and not clicked

A link is never asked for and a message at once: vectors of supervision rows are made from ``frame.graph(message)``,
those of test rows from ``frame.graph(message + supervision)``.
"""

from training.clicks.data import ClickFrame, Clicks, ClickSplit

__all__ = ["ClickFrame", "ClickSplit", "Clicks"]
