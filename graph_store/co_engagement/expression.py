"""What co-engagement edges are: Ibis expressions over a table of engagements, the same for DuckDB and for Spark.

Weights come from integer counts with one final division, and ties go by the bytes of ids, so that the same graph gives
the same bits.
"""

from __future__ import annotations

from typing import Any

from graph_store.schema import CoEngagement, CoEngagementWeight

_DAY_S = 86_400
_WHOLE = 1 << 20
"""What an engagement of the newest moment counts under a half-life: shares are whole millionths or so."""


def co_engagement_expression(engagements: Any, settings: CoEngagement, *, newest_first: bool) -> Any:
    """The edges: source, target (ids), weight (float64), support (int64: users in common).

    ``engagements`` is an Ibis table of user, entity (texts), weight (float64) and time (UTC, or null). A user's
    repeated engagements with one entity count once. ``newest_first`` says what ``max_per_user`` and ``max_per_entity``
    keep, else the heaviest.
    """
    kept = kept_expression(engagements, settings, newest_first=newest_first)
    return edges_expression(pairs_expression(kept, settings), ids_expression(kept), units_expression(kept), settings)


def kept_expression(engagements: Any, settings: CoEngagement, *, newest_first: bool) -> Any:
    """The engagements that count: u (a user, or one sitting of it), e, entity (its id), share (int64)."""
    import ibis

    events = engagements.mutate(second=engagements.time.epoch_seconds())
    newest = events.second.max().as_scalar()
    if settings.window_days is not None:
        events = events.filter(events.second >= newest - round(settings.window_days * _DAY_S))
    if settings.min_engagement is not None:
        events = events.filter(events.weight >= settings.min_engagement)
    events = _with_sittings(events, settings)
    once = events.group_by("user", "sitting", "entity").agg(
        time=events.time.max(), second=events.second.max(), weight=events.weight.max()
    )

    # Numbers in place of texts: a join of pairs over strings would take several times the memory.
    users, entities = once.select("user", "sitting").distinct(), once.select("entity").distinct()
    users = users.mutate(u=ibis.row_number().over(order_by=[users.user, users.sitting]))
    entities = entities.mutate(e=ibis.row_number().over(order_by=entities.entity))
    numbered = once.inner_join(users, ["user", "sitting"]).inner_join(entities, "entity")
    numbered = numbered.mutate(share=_share(numbered, newest, settings))
    best = numbered.time.desc(nulls_first=False) if newest_first else numbered.weight.desc(nulls_first=False)
    place = ibis.row_number().over(group_by=numbered.u, order_by=[best, numbered.e.asc()])
    kept = numbered.mutate(place=place).filter(lambda table: table.place < settings.max_per_user)
    if settings.max_per_entity is not None:
        best = kept.time.desc(nulls_first=False) if newest_first else kept.weight.desc(nulls_first=False)
        place = ibis.row_number().over(group_by=kept.e, order_by=[best, kept.u.asc()])
        kept = kept.mutate(popular=place).filter(lambda table: table.popular < settings.max_per_entity)
    return kept.select("u", "e", "entity", "share")


def ids_expression(kept: Any) -> Any:
    """The entities that count: e, id, users (the sum of what users count there)."""
    return kept.group_by("e").agg(id=kept.entity.min(), users=kept.share.sum())


def units_expression(kept: Any) -> Any:
    """How much all users count together: one row of n."""
    return kept.group_by("u").agg(share=kept.share.max()).agg(n=lambda table: table.share.sum())


def size_expression(kept: Any) -> Any:
    """How many pairs of engagements there are to count: one row of n."""
    lists = kept.group_by("u").agg(length=kept.count())
    return lists.agg(n=lambda table: (table.length * (table.length - 1) / 2).sum())


def pairs_expression(kept: Any, settings: CoEngagement, *, part: int = 0, parts: int = 1) -> Any:
    """The pairs with enough users in common: e, other, support, together; each pair once, ``e < other``.

    Of ``parts`` parts of the entities, those pairs whose ``e`` is of one: they can be counted one after the other.
    """
    import ibis

    left, right = kept.select("u", "e", "share"), kept.select("u", other=kept.e, other_share=kept.share)
    if parts > 1:
        left = left.filter(left.e % parts == part)
    pairs = left.inner_join(right, "u").filter(lambda table: table.e < table.other)
    # Together no longer ago than the older of the two.
    together = ibis.least(pairs.share, pairs.other_share)
    pairs = pairs.mutate(together=together).group_by("e", "other")
    pairs = pairs.agg(support=lambda table: table.count(), together=lambda table: table.together.sum())
    return pairs.filter(pairs.support >= settings.min_support)


def edges_expression(pairs: Any, ids: Any, units: Any, settings: CoEngagement) -> Any:
    """The edges of all pairs: those among the ``top_k`` of their source."""
    import ibis

    sources = ids.rename(source="id", source_users="users")
    targets = ids.select(other="e", target="id", target_users="users")
    pairs = pairs.inner_join(sources, "e").inner_join(targets, "other").cross_join(units)
    weighed = pairs.mutate(weight=_weight(pairs, settings))
    if settings.weight is CoEngagementWeight.NPMI:
        weighed = weighed.filter(weighed.weight > 0)
    forward = weighed.select("e", "other", "source", "target", "weight", "support")
    backward = weighed.select(
        e="other", other="e", source="target", target="source", weight="weight", support="support"
    )
    edges = forward.union(backward)
    rank = ibis.row_number().over(group_by=edges.e, order_by=[edges.weight.desc(), edges.other.asc()])
    return (
        edges.mutate(rank=rank)
        .filter(lambda table: table.rank < settings.top_k)
        .select("source", "target", "weight", "support")
    )


def _with_sittings(events: Any, settings: CoEngagement) -> Any:
    """The events with the number of the sitting of its user that each falls into; 0 where they are not told apart."""
    import ibis

    if settings.session_gap_minutes is None:
        return events.mutate(sitting=ibis.literal(0, "int64"))
    order = [events.second, events.entity]
    events = events.mutate(before=events.second.lag().over(group_by=events.user, order_by=order))
    begins = events.second - events.before > round(settings.session_gap_minutes * 60)
    events = events.mutate(begins=begins.fill_null(False).cast("int64"))
    order = [events.second, events.entity]
    return events.mutate(sitting=events.begins.sum().over(ibis.cumulative_window(group_by=events.user, order_by=order)))


def _share(once: Any, newest: Any, settings: CoEngagement) -> Any:
    """What an engagement counts, a whole number: sums of these are the same in any order, on any engine."""
    import ibis

    if settings.half_life_days is None:
        return ibis.literal(1, "int64")
    age = (newest - once.second).cast("float64") / (settings.half_life_days * _DAY_S)
    return (ibis.literal(2.0).pow(-age) * float(_WHOLE)).round().cast("int64").fill_null(0)


def _weight(pairs: Any, settings: CoEngagement) -> Any:
    """The weight of a pair, symmetric in its ends; counts stay integers until the last step."""
    import ibis

    together, product = pairs.together, pairs.source_users * pairs.target_users
    if settings.half_life_days is not None:
        # Products of shares would not fit into 64 bits.
        product = pairs.source_users.cast("float64") * pairs.target_users.cast("float64")
    match settings.weight:
        case CoEngagementWeight.COUNT:
            return together.cast("float64") / float(1 if settings.half_life_days is None else _WHOLE)
        case CoEngagementWeight.COSINE:
            return together.cast("float64") / product.cast("float64").sqrt()
        case CoEngagementWeight.LIFT:
            return (together.cast("float64") * pairs.n.cast("float64")) / product.cast("float64")
        case CoEngagementWeight.NPMI:
            # Where all users engage with both, neither tells anything of the other: 0 / 0, taken as 0.
            lift = (together.cast("float64") * pairs.n.cast("float64")) / product.cast("float64")
            rarity = (pairs.n.cast("float64") / together.cast("float64")).ln()
            return ibis.ifelse(together < pairs.n, lift.ln() / rarity, 0.0)
