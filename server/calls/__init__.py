"""The calls of ``RetrievalService``: a request read, what is searched, the answer put together."""
