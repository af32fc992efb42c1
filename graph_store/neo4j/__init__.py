"""The Neo4j store, over Bolt."""
